use super::*;

fn base() -> RunConfig {
    RunConfig {
        env: vec!["PATH=/bin".to_owned(), "NAME=mica".to_owned()],
        entrypoint: Some(vec!["/entry".to_owned()]),
        cmd: Some(vec!["run".to_owned()]),
        working_dir: "/srv".to_owned(),
        ..RunConfig::default()
    }
}

fn changed(changes: &[&str]) -> RunConfig {
    let mut config = base();
    apply(&parse(changes).unwrap(), &mut config).unwrap();
    config
}

fn refusal(change: &str) -> String {
    let parsed = match parse(&[change]) {
        Err(error) => return error.to_string(),
        Ok(parsed) => parsed,
    };
    match apply(&parsed, &mut base()) {
        Err(error) => error.to_string(),
        Ok(()) => panic!("accepted: {change}"),
    }
}

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[test]
fn commands_have_a_shell_form_and_an_exec_form() {
    let shell = changed(&["CMD echo \"$NAME\" > /x"]);
    assert_eq!(
        shell.cmd,
        Some(list(&["/bin/sh", "-c", "echo \"$NAME\" > /x"]))
    );
    assert_eq!(shell.entrypoint, Some(list(&["/entry"])));
    let exec = changed(&[r#"cmd ["a b", "$NAME"]"#]);
    assert_eq!(exec.cmd, Some(list(&["a b", "$NAME"])));
    // Not JSON, so it is for the shell.
    let broken = changed(&["CMD ['a']"]);
    assert_eq!(broken.cmd, Some(list(&["/bin/sh", "-c", "['a']"])));
    assert_eq!(changed(&["CMD []"]).cmd, Some(Vec::new()));
    let mut config = base();
    config.shell = Some(list(&["/bin/ash", "-eo", "pipefail", "-c"]));
    apply(&parse(&["ENTRYPOINT top -b"]).unwrap(), &mut config).unwrap();
    assert_eq!(
        config.entrypoint,
        Some(list(&["/bin/ash", "-eo", "pipefail", "-c", "top -b"]))
    );
}

#[test]
fn an_entry_point_drops_a_command_that_it_does_not_come_with() {
    let alone = changed(&[r#"ENTRYPOINT ["x"]"#]);
    assert_eq!((alone.entrypoint, alone.cmd), (Some(list(&["x"])), None));
    let both = changed(&[r#"CMD ["y"]"#, r#"ENTRYPOINT ["x"]"#]);
    assert_eq!(
        (both.entrypoint, both.cmd),
        (Some(list(&["x"])), Some(list(&["y"])))
    );
    let none = changed(&["ENTRYPOINT []"]);
    assert_eq!((none.entrypoint, none.cmd), (None, Some(list(&["run"]))));
}

#[test]
fn variables_and_quotes() {
    for (text, expected) in [
        ("ENV A=1", "A=1"),
        ("ENV A one two", "A=one two"),
        ("ENV A\ttabbed", "A=tabbed"),
        ("ENV A=\"one two\"", "A=one two"),
        ("ENV A='$NAME'", "A=$NAME"),
        ("ENV A=\"$NAME\"", "A=mica"),
        ("ENV A=${NAME}x", "A=micax"),
        ("ENV A=$NAMEx", "A="),
        ("ENV A=\\$NAME", "A=$NAME"),
        ("ENV A=one\\ two", "A=one two"),
        ("ENV A=${NONE:-dflt}", "A=dflt"),
        ("ENV A=${NONE:-${NAME}}", "A=mica"),
        ("ENV A=${NAME:+yes}", "A=yes"),
        ("ENV A=${NONE:+yes}", "A="),
        ("ENV A=100$", "A=100$"),
        ("ENV A=", "A="),
        ("ENV A=a=b", "A=a=b"),
        ("ENV A=\"a\\\"b\\n\"", "A=a\"b\\n"),
    ] {
        assert_eq!(changed(&[text]).env.last().unwrap(), expected, "{text}");
    }
    // The environment as it was before the instruction; a value keeps its place.
    let env = changed(&["ENV NAME=new OTHER=$NAME", "ENV THIRD=$NAME"]).env;
    assert_eq!(
        env,
        list(&["PATH=/bin", "NAME=new", "OTHER=mica", "THIRD=new"])
    );
}

#[test]
fn everything_else() {
    let config = changed(&[
        "EXPOSE 80 53/UDP 8000-8002",
        "LABEL a=b \"with space\"=\"c d\"\nLABEL old style value",
        "VOLUME /data /var/$NAME",
        "VOLUME [\"/with space\"]",
        "USER www:data",
        "WORKDIR sub/../other",
        "STOPSIGNAL SIGRTMIN+3",
        "ONBUILD   RUN make",
        "# a comment\nENV LONG=one\\\n  TWO=2",
        "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://localhost/",
    ]);
    assert_eq!(
        config.exposed_ports,
        list(&["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"])
    );
    let labels: Vec<(&str, &str)> = config
        .labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        labels,
        [("a", "b"), ("old", "style value"), ("with space", "c d")]
    );
    assert_eq!(config.volumes, list(&["/data", "/var/mica", "/with space"]));
    assert_eq!(config.user, "www:data");
    assert_eq!(config.working_dir, "/srv/other");
    assert_eq!(changed(&["WORKDIR /a//b/"]).working_dir, "/a/b");
    assert_eq!(config.stop_signal, "SIGRTMIN+3");
    assert_eq!(config.on_build, list(&["RUN make"]));
    assert!(config.env.ends_with(&list(&["LONG=one", "TWO=2"])));
    let check = config.healthcheck.unwrap();
    assert_eq!(
        check.test,
        list(&["CMD-SHELL", "curl -f http://localhost/"])
    );
    assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
    assert_eq!(
        changed(&["HEALTHCHECK NONE"]).healthcheck.unwrap().test,
        list(&["NONE"])
    );
}

#[test]
fn refusals_are_dockers() {
    for (change, text) in [
        ("RUN make", "RUN is not a valid change command"),
        ("x", "x is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        (
            "ENV A=1 B",
            "Syntax error - can't find = in \"B\". Must be of the form: name=value",
        ),
        ("ENV =x", "ENV names can not be blank"),
        ("LABEL \"\"=x", "LABEL names can not be blank"),
        ("EXPOSE http", "invalid containerPort: http"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("EXPOSE 80/icmp", "invalid proto: icmp"),
        ("EXPOSE 90-80", "invalid containerPort: 90-80"),
        ("STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"),
        ("USER", "USER requires exactly one argument"),
        (
            "CMD [1]",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        (
            "ONBUILD ONBUILD RUN x",
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "ENV A='x",
            "unexpected end of statement while looking for matching single-quote",
        ),
        ("ENV A=${}", "syntax error: bad substitution"),
        (
            "ENV A=${NAME",
            "unexpected end of statement while looking for matching }",
        ),
        (
            "ENV A=${NAME*x}",
            "unsupported modifier (*) in substitution",
        ),
        ("ENV A=\"${NONE:?must be set}\"", "NONE: must be set"),
        (
            "HEALTHCHECK --interval=1 CMD x",
            "time: invalid duration \"1\"",
        ),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        (
            "VOLUME [\"\"]",
            "VOLUME specified can not be an empty string",
        ),
    ] {
        assert_eq!(refusal(change), text, "{change}");
    }
}
