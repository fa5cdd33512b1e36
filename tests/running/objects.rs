//! Containers as objects: inspected, renamed, restarted, listed with their processes.

use serde_json::{Value, json};

use super::*;

fn inspected(sandbox: &Sandbox, line: &str) -> Value {
    let text = shown(sandbox, line);
    let mut all: Vec<Value> =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"));
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn root_regression_inspect_knows_containers_and_volumes() {
    let s = sandbox();
    s.mkdir("host");
    let bind = format!("{}:/b:ro", s.path("host").display());
    let line = format!(
        "run -d --name web -h box -e A=1 -l k=v -v data:/d -v {bind} -v /anon --tmpfs /t -w /tmp --add-host h:1.2.3.4 --ulimit nofile=9:99 app:1 sleep 1000"
    );
    let id = shown(&s, &line);
    let id = id.trim();
    for line in [
        "inspect web",
        "container inspect web",
        "inspect --type container web",
        &format!("inspect {}", &id[..6]),
    ] {
        let found = inspected(&s, line);
        assert_eq!(found["Id"], id, "{line}");
        assert_eq!(found["Name"], "/web");
        assert_eq!(found["Path"], "sleep");
        assert_eq!(found["Args"], json!(["1000"]));
        assert_eq!(found["Image"], image("app:1").id());
        let state = &found["State"];
        assert_eq!(
            (&state["Status"], &state["Running"], &state["ExitCode"]),
            (&json!("running"), &json!(true), &json!(0))
        );
        assert!(state["Pid"].as_i64().unwrap() > 1);
        assert_eq!(state["FinishedAt"], "0001-01-01T00:00:00Z");
        let config = &found["Config"];
        assert_eq!(config["Hostname"], "box");
        assert_eq!(
            config["Env"].as_array().unwrap().last(),
            Some(&json!("A=1"))
        );
        assert_eq!(config["Labels"], json!({"k": "v"}));
        assert_eq!(
            (&config["WorkingDir"], &config["Image"]),
            (&json!("/tmp"), &json!("app:1"))
        );
        assert_eq!(config["Entrypoint"], Value::Null);
        assert_eq!(config["Volumes"], json!({"/anon": {}}));
        let host = &found["HostConfig"];
        assert_eq!(host["NetworkMode"], "host");
        assert_eq!(host["ExtraHosts"], json!(["h:1.2.3.4"]));
        assert_eq!(
            host["Ulimits"],
            json!([{"Name": "nofile", "Hard": 99, "Soft": 9}])
        );
        let mounts = found["Mounts"].as_array().unwrap();
        let of = |place: &str| {
            mounts
                .iter()
                .find(|mount| mount["Destination"] == place)
                .unwrap()
        };
        assert_eq!(
            (&of("/d")["Type"], &of("/d")["Name"], &of("/d")["RW"]),
            (&json!("volume"), &json!("data"), &json!(true))
        );
        assert!(
            of("/d")["Source"]
                .as_str()
                .unwrap()
                .starts_with(&s.store().display().to_string())
        );
        assert_eq!(
            (&of("/b")["Type"], &of("/b")["RW"]),
            (&json!("bind"), &json!(false))
        );
        assert_eq!(of("/t")["Type"], "tmpfs");
    }
    for (format, expected) in [
        ("{{.State.Running}}", "true"),
        ("{{.ID}}", id),
        ("{{range .Mounts}}{{.Name}};{{end}}", ""),
        ("{{json .Config.Cmd}}", "[\"sleep\",\"1000\"]"),
        ("{{len .Config.Entrypoint}} {{.Config.Entrypoint}}", "0 []"),
    ] {
        let run = s.mica(["inspect", "-f", format, "web"]).ok().stdout();
        assert!(
            expected.is_empty() || run.trim_end() == expected,
            "{format}: {run}"
        );
    }
    assert!(
        shown(&s, "inspect -s -f {{.SizeRw}} web")
            .trim()
            .parse::<u64>()
            .is_ok()
    );
    shown(&s, "kill web");
    shown(&s, "wait web");
    let state = &inspected(&s, "inspect web")["State"];
    assert_eq!(
        (&state["Status"], &state["ExitCode"]),
        (&json!("exited"), &json!(137))
    );

    let volume = inspected(&s, "inspect data");
    assert_eq!(
        (&volume["Name"], &volume["Driver"]),
        (&json!("data"), &json!("local"))
    );
    assert_eq!(volume, inspected(&s, "volume inspect data"));
    // A container comes before an image of the same name.
    shown(&s, "tag app:1 web");
    assert_eq!(inspected(&s, "inspect web")["Name"], "/web");
    assert_eq!(inspected(&s, "inspect --type image web")["Os"], "linux");
    for (line, said) in [
        ("inspect nosuch", "No such object: nosuch"),
        (
            "inspect --type container nosuch",
            "No such container: nosuch",
        ),
        (
            "inspect --type image nosuch",
            "No such image: nosuch:latest",
        ),
        ("inspect --type volume nosuch", "get nosuch: no such volume"),
        ("container inspect nosuch", "No such container: nosuch"),
        ("users nosuch", "No such object: nosuch"),
    ] {
        let run = mica(&s, line).code(1);
        assert_eq!(
            run.stderr(),
            format!("Error response from daemon: {said}\n"),
            "{line}"
        );
    }
}

/// What scripts ask of any container.
#[test]
fn root_regression_inspect_of_a_container_has_the_fields_of_dockers_type() {
    let s = sandbox();
    shown(
        &s,
        "create --name web --cap-add net_admin --cap-drop kill --cap-drop chown --security-opt seccomp=unconfined app:1 true",
    );
    shown(&s, "create --name plain app:1 true");
    for (name, format, expected) in [
        (
            "web",
            "{{.HostConfig.CapAdd}} {{json .HostConfig.CapDrop}}",
            r#"[CAP_NET_ADMIN] ["CAP_CHOWN","CAP_KILL"]"#,
        ),
        ("web", "{{.HostConfig.SecurityOpt}}", "[seccomp=unconfined]"),
        (
            "plain",
            "{{json .HostConfig.CapAdd}} {{json .HostConfig.CapDrop}} {{json .HostConfig.SecurityOpt}}",
            "null null null",
        ),
        (
            "plain",
            "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
            "none",
        ),
        (
            "plain",
            "{{.HostConfig.LogConfig.Type}} {{.HostConfig.IpcMode}}|{{.HostConfig.PidMode}}|{{.HostConfig.Runtime}}",
            "json-file private||mica",
        ),
        (
            "plain",
            "{{json .HostConfig.VolumesFrom}} {{.HostConfig.PublishAllPorts}}",
            "null false",
        ),
        (
            "plain",
            "{{range .Config.ExposedPorts}}x{{end}}{{if .Config.Healthcheck}}x{{end}}",
            "",
        ),
    ] {
        let run = s.mica(["inspect", "-f", format, name]).ok();
        assert_eq!(run.stdout(), format!("{expected}\n"), "{format}");
    }
    shown(&s, "rm web plain");
}

#[test]
fn regression_inspect_has_the_fields_of_dockers_type() {
    let s = Sandbox::new();
    s.load(&image("app:1"));
    let id = image("app:1").id();
    for (format, expected) in [
        ("{{.ID}}", id.as_str()),
        ("{{.Id}}|{{.Parent}}|{{.DockerVersion}}", &format!("{id}||")),
        (
            "{{json .Config.Entrypoint}} {{json .Config.Volumes}} {{json .Config.Labels}} {{json .Config.OnBuild}}",
            "null null null null",
        ),
        (
            "{{.Config.Entrypoint}} {{.Config.Volumes}} {{len .Config.Entrypoint}}",
            "[] map[] 0",
        ),
        (
            "{{range .Config.Entrypoint}}x{{else}}none{{end}}{{if .Config.Labels}}y{{end}}",
            "none",
        ),
        (
            "{{.Config.Hostname}}|{{.Config.Domainname}}|{{.Config.Tty}}|{{.Config.OpenStdin}}|{{.Config.Image}}",
            "||false|false|",
        ),
        ("{{.Config.Labels.some}}", "<no value>"),
        ("{{index .Config.Labels \"some\"}}", ""),
        ("{{join .Config.Entrypoint \",\"}}", ""),
    ] {
        let run = s.mica(["inspect", "-f", format, "app:1"]).ok();
        assert_eq!(run.stdout(), format!("{expected}\n"), "{format}");
    }
}

#[test]
fn root_rename_restart_top_port_and_sizes() {
    let s = sandbox();
    shown(
        &s,
        "run -d --name one app:1 -- echo here; touch /made; exec sleep 1000",
    );
    shown(&s, "run --name other app:1 true");
    assert_eq!(shown(&s, "rename one two"), "");
    assert_eq!(shown(&s, "ps --format {{.Names}}"), "two\n");
    shown(&s, "exec two true");
    for (line, why) in [
        ("rename two other", "is already in use by container"),
        ("rename two two", "same name"),
        ("rename two -x", "unexpected argument"),
        ("rename two a/b", "Invalid container name (a/b)"),
        ("rename nosuch xy", "No such container: nosuch"),
    ] {
        let run = mica(&s, line).fails();
        assert!(
            run.stderr().contains(why) || why == "unexpected argument",
            "{}",
            run.describe()
        );
    }
    let pid = shown(&s, "inspect -f {{.State.Pid}} two");
    let top = shown(&s, "top two");
    let rows: Vec<&str> = top.lines().collect();
    assert_eq!(rows.len(), 2, "{top}");
    assert!(
        rows[0].starts_with("UID ") && rows[0].ends_with("CMD") && rows[1].ends_with("sleep 1000"),
        "{top}"
    );
    assert!(rows[1].contains(pid.trim()), "{top}");
    assert_eq!(shown(&s, "top two -o pid,comm").lines().count(), 2);
    mica(&s, "top other").fails();

    assert_eq!(shown(&s, "port two"), "");
    let none = mica(&s, "port two 80").code(1);
    assert!(
        none.stderr()
            .contains("no public port '80/tcp' published for two"),
        "{}",
        none.describe()
    );

    let sizes = shown(&s, "ps -s");
    assert!(
        sizes.lines().next().unwrap().ends_with("SIZE") && sizes.contains(" (virtual "),
        "{sizes}"
    );
    assert!(shown(&s, "ps --format {{.Size}}").contains("(virtual "));

    assert_eq!(shown(&s, "restart -t 0 two other"), "two\nother\n");
    assert_ne!(shown(&s, "inspect -f {{.State.Pid}} two"), pid);
    shown(&s, "run -d --rm --name short app:1 sleep 1000");
    mica(&s, "restart -t 0 short").code(1);
    shown(&s, "kill two short");
}

#[test]
fn version_and_info_answer() {
    let s = Sandbox::new();
    let version = env!("CARGO_PKG_VERSION");
    assert!(shown(&s, "version").starts_with(&format!("mica:\n Version:         {version}\n")));
    assert_eq!(
        shown(&s, "version -f {{.Server.Version}}"),
        format!("{version}\n")
    );
    assert_eq!(shown(&s, "version --format {{.Client.Os}}"), "linux\n");
    // Without a store too, and it makes none.
    assert!(shown(&s, "info").contains("Containers: 0\n"));
    assert_eq!(
        shown(&s, "info -f {{.DockerRootDir}}"),
        format!("{}\n", s.store().display())
    );
    assert!(!s.store().exists());
    s.load(&image("app:1"));
    assert_eq!(shown(&s, "system info -f {{.Images}}"), "1\n");
    let all: Value = serde_json::from_str(&shown(&s, "info -f json")).unwrap();
    assert_eq!(all["Driver"], "mica");
}

/// By the times that `-t` shows; docker counts both ends in.
#[test]
fn root_logs_of_a_time() {
    let s = sandbox();
    shown(
        &s,
        "run -d --name two app:1 -- for i in 1 2 3; do echo line $i; sleep 0.1; done",
    );
    shown(&s, "wait two");
    let all = shown(&s, "logs -t two");
    let times: Vec<&str> = all
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(times.len(), 3, "{all}");
    for (options, expected) in [
        (format!("--since {}", times[1]), "line 2\nline 3\n"),
        (format!("--until {}", times[1]), "line 1\nline 2\n"),
        (
            format!("--since {} --until {}", times[1], times[1]),
            "line 2\n",
        ),
        ("--since 1h".to_owned(), "line 1\nline 2\nline 3\n"),
        ("--until 1h".to_owned(), ""),
        ("--since 0s".to_owned(), ""),
    ] {
        assert_eq!(
            shown(&s, &format!("logs {options} two")),
            expected,
            "{options}"
        );
    }
    mica(&s, "logs --since nonsense two").fails();
    shown(&s, "rm two");
}
