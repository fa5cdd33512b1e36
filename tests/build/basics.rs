//! Every instruction, the console, the ways to give context and Dockerfile.

use super::*;

#[test]
fn root_build_console_is_that_of_dockers_classic_builder() {
    let s = sandbox();
    context(
        &s,
        "c",
        &[
            (
                "Dockerfile",
                "FROM app:1\nLABEL maintainer=me\nENV A\tone\nRUN echo hi \\\n  && echo $A > /f\nCOPY index.html /var/www/\nEXPOSE 80\nCMD [\"nginx\", \"-g\", \"daemon off;\"]\n",
            ),
            ("index.html", "hello\n"),
        ],
    );
    let run = build(&s, "c", &["-t", "mynginx:1.0", "-t", "mynginx"]).ok();
    let text = run.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "Sending build context to Docker daemon  3.07kB");
    assert_eq!(lines[1], "Step 1/7 : FROM app:1");
    assert!(text.contains("\nStep 3/7 : ENV A\tone\n ---> "), "{text}");
    let run_at = lines
        .iter()
        .position(|line| line.starts_with("Step 4/7"))
        .unwrap();
    assert_eq!(lines[run_at], "Step 4/7 : RUN echo hi   && echo $A > /f");
    let container = lines[run_at + 1].strip_prefix(" ---> Running in ").unwrap();
    assert_eq!(container.len(), 12);
    assert_eq!(lines[run_at + 2], "hi");
    assert_eq!(
        lines[run_at + 3],
        format!("Removing intermediate container {container}")
    );
    let short = id(&s, "mynginx:1.0")[7..19].to_owned();
    assert!(text.ends_with(&format!(
        " ---> {short}\nSuccessfully built {short}\nSuccessfully tagged mynginx:1.0\nSuccessfully tagged mynginx:latest\n"
    )));
    // Once more: nothing is done, and the image is the same.
    let again = build(&s, "c", &["-t", "mynginx:1.0"]).ok();
    assert_eq!(cached(&again), 6);
    assert!(
        again
            .stdout()
            .contains(&format!("Successfully built {short}\n"))
    );
    assert_eq!(content(&s, "mynginx", "/f"), "one\n");
    let history = s
        .mica([
            "history",
            "--no-trunc",
            "--format",
            "{{.CreatedBy}}",
            "mynginx",
        ])
        .ok();
    let history = history.stdout();
    let rows: Vec<&str> = history.lines().collect();
    assert_eq!(
        rows[0],
        "/bin/sh -c #(nop)  CMD [\"nginx\" \"-g\" \"daemon off;\"]"
    );
    assert_eq!(rows[1], "/bin/sh -c #(nop)  EXPOSE 80");
    assert!(
        rows[2].starts_with("/bin/sh -c #(nop) COPY file:") && rows[2].contains(" in /var/www/")
    );
    assert_eq!(rows[3], "/bin/sh -c echo hi   && echo $A > /f");
    assert_eq!(rows[4], "/bin/sh -c #(nop)  ENV A=one");
    assert_eq!(left(&s), [] as [PathBuf; 0]);
}

#[test]
fn root_build_has_every_instruction() {
    let s = sandbox();
    context(&s, "c", &[("a", "A"), ("b", "B")]);
    let file = r#"# syntax=docker/dockerfile:1
ARG TAG=none
FROM app:${TAG} AS base
MAINTAINER somebody
ARG NAME=world UNSET
ENV GREETING="hello ${NAME}" TWO=2
LABEL a=b "c d"='e f'
WORKDIR /srv/work
WORKDIR sub
RUN pwd > /pwd; echo "$GREETING $NAME $UNSET|" > /greeting
SHELL ["/bin/sh", "-ec"]
RUN false || true; echo shell > /shell
RUN ["/bin/sh", "-c", "echo exec > /exec"]
COPY a b ./
ADD ["a", "/with space/"]
EXPOSE 80 53/udp
VOLUME /data /more
VOLUME ["/json"]
USER bob:wheel
RUN id -u > /tmp/who
HEALTHCHECK --interval=5s CMD true
STOPSIGNAL SIGQUIT
ONBUILD RUN echo triggered > /tmp/trigger
ENTRYPOINT ["/bin/echo"]
CMD ["x"]
"#;
    let name = s.path("D");
    fs::write(&name, file).unwrap();
    let name = name.to_str().unwrap();
    let more = [
        "-f",
        name,
        "-t",
        "all:1",
        "--build-arg",
        "TAG=1",
        "--build-arg",
        "UNSET=set",
        "--build-arg",
        "NOBODY=asks",
        "--label",
        "extra=1",
    ];
    let run = build(&s, "c", &more).ok();
    assert!(
        run.stderr()
            .contains("[Warning] One or more build-args [NOBODY] were not consumed"),
        "{}",
        run.describe()
    );
    let config = config(&s, "all:1");
    assert_eq!(
        config["Env"],
        serde_json::json!([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "GREETING=hello world",
            "TWO=2"
        ])
    );
    assert_eq!(config["Labels"]["c d"], "e f");
    assert_eq!(config["Labels"]["extra"], "1");
    assert_eq!(config["WorkingDir"], "/srv/work/sub");
    assert_eq!(config["User"], "bob:wheel");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/echo"]));
    assert_eq!(config["Cmd"], serde_json::json!(["x"]));
    assert_eq!(config["StopSignal"], "SIGQUIT");
    assert_eq!(config["Shell"], serde_json::json!(["/bin/sh", "-ec"]));
    assert_eq!(
        config["Healthcheck"]["Test"],
        serde_json::json!(["CMD-SHELL", "true"])
    );
    assert_eq!(
        config["OnBuild"],
        serde_json::json!(["RUN echo triggered > /tmp/trigger"])
    );
    assert!(config["ExposedPorts"]["53/udp"].is_object());
    assert!(config["Volumes"]["/json"].is_object());
    let get = |path: &str| shown(&s, &format!("run --rm --entrypoint /bin/cat all:1 {path}"));
    assert_eq!(get("/pwd"), "/srv/work/sub\n");
    assert_eq!(get("/greeting"), "hello world world set|\n");
    assert_eq!(get("/shell"), "shell\n");
    assert_eq!(get("/exec"), "exec\n");
    assert_eq!(get("/srv/work/sub/a"), "A");
    assert_eq!(get("/tmp/who"), "1000\n");
    let history = s
        .mica([
            "history",
            "--no-trunc",
            "--format",
            "{{.CreatedBy}}",
            "all:1",
        ])
        .ok();
    assert!(
        history
            .stdout()
            .contains("|2 NAME=world UNSET=set /bin/sh -c pwd > /pwd"),
        "{}",
        history.stdout()
    );
    // The trigger fires in a build on top, and only there.
    let on_top = build_text(&s, "FROM all:1\nUSER root\n", &["-t", "top:1"]).ok();
    assert!(
        on_top.stdout().contains("# Executing 1 build trigger\n"),
        "{}",
        on_top.stdout()
    );
    let trigger = shown(&s, "run --rm --entrypoint /bin/cat top:1 /tmp/trigger");
    assert_eq!(trigger, "triggered\n");
    assert_eq!(
        self::config(&s, "top:1")
            .get("OnBuild")
            .and_then(Value::as_array),
        None
    );
}

#[test]
fn root_build_heredocs_are_scripts_and_files() {
    let s = sandbox();
    let file = "FROM app:1\nARG WHO=me\nRUN <<EOF\necho one > /one\necho $WHO > /two\nEOF\nRUN cat <<-EOF > /three\n\tthree $WHO\n\tEOF\nRUN <<SCRIPT\n#!/bin/busybox sh\necho \"$0\" > /four\nSCRIPT\nCOPY <<A <<\"B\" /texts/\n${WHO}\nA\n${WHO}\nB\nCOPY --chmod=750 <<EOF /run.sh\n#!/bin/sh\nEOF\n";
    build_text(&s, file, &["-t", "h:1"]).ok();
    for (path, expected) in [
        ("/one", "one\n"),
        ("/two", "me\n"),
        ("/three", "three me\n"),
        ("/four", "/dev/pipes/SCRIPT\n"),
        ("/texts/A", "me\n"),
        ("/texts/B", "${WHO}\n"),
    ] {
        assert_eq!(content(&s, "h:1", path), expected, "{path}");
    }
    assert_eq!(listing(&s, "h:1", "run.sh"), ["-rwxr-x--- 0/0 10 run.sh"]);
    assert!(listing(&s, "h:1", "dev").is_empty());
}

#[test]
fn root_build_stages_are_built_if_they_are_needed() {
    let s = sandbox();
    let file = "ARG V=1\nFROM app:$V AS tools\nRUN echo made > /made\nFROM app:1 AS unused\nRUN exit 1\nFROM scratch AS bare\nCOPY --from=tools /made /bin/busybox /\nFROM bare\nCOPY --from=0 /made /again\nCOPY --from=app:1 /etc/group /group\nENTRYPOINT [\"/busybox\"]\n";
    let run = build_text(&s, file, &["-t", "final:1"]).ok();
    assert!(
        run.stdout()
            .contains("Step 1/9 : ARG V=1\nStep 2/9 : FROM app:$V AS tools\n")
    );
    assert_eq!(
        shown(&s, "run --rm final:1 cat /made /again"),
        "made\nmade\n"
    );
    assert!(!listing(&s, "final:1", "group").is_empty());
    let run = build_text(&s, file, &["-t", "tools:1", "--target", "Tools"]).ok();
    assert!(
        run.stdout()
            .contains("Step 3/3 : RUN echo made > /made\n ---> Using cache\n")
    );
    let error = build_text(&s, file, &["--target", "none"]).code(1).stderr();
    assert_eq!(
        error,
        "Error response from daemon: target stage \"none\" could not be found\n"
    );
}

#[test]
fn root_build_takes_its_input_from_many_places() {
    let s = sandbox();
    let root = context(
        &s,
        "c",
        &[
            ("Dockerfile", "FROM app:1\nCOPY f /f\n"),
            ("f", "file"),
            ("other", "FROM app:1\nCOPY f /g\n"),
        ],
    );
    let (code, out, _) = piped(
        &s,
        &["build", "-q", "-t", "in:1", "-"],
        b"FROM app:1\nENV A=1\n",
    );
    assert_eq!((code, out.trim()), (Some(0), id(&s, "in:1").as_str()));
    let c = root.to_str().unwrap();
    let (code, _, _) = piped(
        &s,
        &["build", "-t", "in:2", "-f", "-", c],
        b"FROM app:1\nCOPY f /stdin\n",
    );
    assert_eq!(code, Some(0));
    assert_eq!(content(&s, "in:2", "/stdin"), "file");
    let (code, _, err) = piped(&s, &["build", "-f", "-", "-"], b"FROM app:1\n");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("can't use stdin for both build context and dockerfile"));
    for compress in ["", "z", "J"] {
        let tar = Command::new("tar")
            .arg(format!("-c{compress}"))
            .args(["-C", c, "."])
            .output();
        let tar = tar.unwrap().stdout;
        let (code, out, err) = piped(&s, &["build", "--no-cache", "-t", "in:3", "-"], &tar);
        assert_eq!(code, Some(0), "{out}{err}");
        assert_eq!(content(&s, "in:3", "/f"), "file");
        let (code, ..) = piped(&s, &["build", "-t", "in:4", "-f", "other", "-"], &tar);
        assert_eq!(code, Some(0));
        assert_eq!(content(&s, "in:4", "/g"), "file");
    }
    // The ID in a file; the same through the long names.
    let iid = s.path("iid");
    s.mica(["image", "build", "--iidfile", iid.to_str().unwrap(), c])
        .ok();
    let written = fs::read_to_string(iid).unwrap();
    assert_eq!(written.len(), 71);
    assert_eq!(
        s.mica(["builder", "build", "-q", c]).ok().stdout().trim(),
        written
    );
}

/// On a terminal, and there alone, a line moves while something takes long; however narrow it is.
#[test]
fn root_build_shows_on_a_terminal_how_far_it_is() {
    let s = sandbox();
    let root = context(&s, "c", &[("Dockerfile", "FROM app:1\nCOPY big /\n")]);
    fs::write(root.join("big"), vec![7; 96 << 20]).unwrap();
    let mica = env!("CARGO_BIN_EXE_mica");
    let on_terminal = |columns: usize, more: &str| {
        let line = format!("tar -c -C c . | {mica} build --no-cache {more} -");
        let run = s.sh(&format!(
            "script -qec \"stty cols {columns}; {line}\" /dev/null </dev/null"
        ));
        run.ok().stdout()
    };
    let moving = |text: &str| -> Vec<String> {
        let pieces = text
            .split(['\r', '\n'])
            .map(|piece| piece.trim_end_matches("\x1b[K"));
        let begins = [
            "Reading the build context: ",
            "Step 2/2: writing the layer: ",
        ];
        pieces
            .filter(|piece| begins.iter().any(|begin| piece.starts_with(begin)))
            .map(str::to_owned)
            .collect()
    };
    for columns in [80, 40] {
        let text = on_terminal(columns, "");
        let shown = moving(&text);
        let of_context = shown
            .iter()
            .filter(|line| line.starts_with("Reading"))
            .count();
        assert!(of_context > 0 && of_context < shown.len(), "{text:?}");
        assert!(shown.iter().all(|line| line.len() < columns), "{shown:?}");
        // What moved is gone before the next line.
        assert!(text.contains("\r\x1b[KSending build context"), "{text:?}");
    }
    assert!(moving(&on_terminal(80, "--progress plain")).is_empty());
    let quiet = build(&s, "c", &["--no-cache"]).ok();
    assert!(!quiet.stderr().contains('\r'), "{}", quiet.describe());
}

#[test]
fn root_build_fails_as_its_command_does() {
    let s = sandbox();
    let run = build_text(
        &s,
        "FROM app:1\nRUN echo good > /good\nRUN echo out; exit 7\n",
        &["-t", "no:1"],
    )
    .code(7);
    assert!(
        run.stderr()
            .contains("The command '/bin/sh -c echo out; exit 7' returned a non-zero code: 7\n"),
        "{}",
        run.describe()
    );
    assert!(run.stdout().ends_with("out\n") || run.stdout().contains("\nout\nRemoving"));
    // Nothing has the name; the last good step can be looked into.
    assert_eq!(shown(&s, "images -q no"), "");
    let left_over = shown(&s, "images -q -f dangling=true");
    assert_eq!(content(&s, left_over.trim(), "/good"), "good\n");
    assert_eq!(left(&s), [] as [PathBuf; 0]);
    // Quiet builds say nothing until something fails.
    let quiet = build_text(&s, "FROM app:1\nRUN echo noise; exit 3\n", &["-q"]).code(3);
    assert_eq!(quiet.stdout(), "");
    assert!(quiet.stderr().contains("noise\n"), "{}", quiet.describe());
    let missing = build_text(&s, "FROM app:1\nRUN [\"/nope\"]\n", &[]).code(127);
    assert!(
        missing.stderr().contains("\"/nope\""),
        "{}",
        missing.describe()
    );
    // A shell on the spot: its input is ours.
    let file = s.path("stdin.Dockerfile");
    let nothing = s.path("nothing");
    fs::write(&file, "FROM app:1\nRUN echo last > /last\nRUN exit 4\n").unwrap();
    let args = [
        "build",
        "--shell-on-error",
        "-f",
        file.to_str().unwrap(),
        nothing.to_str().unwrap(),
    ];
    let (code, out, err) = piped(&s, &args, b"cat /last\n");
    assert_eq!(code, Some(4), "{err}");
    assert!(out.ends_with("last\n"), "{out}{err}");
}

#[test]
fn root_build_interrupted_says_where_and_leaves_nothing_running() {
    let s = sandbox();
    let file = s.path("D");
    fs::write(
        &file,
        "FROM app:1\nRUN echo one > /one\nRUN echo started; sleep 1000\n",
    )
    .unwrap();
    context(&s, "c", &[]);
    let mut command = s.command();
    command.args(["build", "-f"]).arg(&file).arg(s.path("c"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
    while lines.next().unwrap().unwrap() != "started" {}
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    for line in lines {
        line.unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("interrupted in step 3/3 : RUN echo started; sleep 1000"),
        "{text}"
    );
    assert_eq!(left(&s), [] as [PathBuf; 0]);
    let run = build_text(&s, "FROM app:1\nRUN echo one > /one\n", &[]).ok();
    assert_eq!(cached(&run), 1);
}

#[test]
fn root_build_is_reproducible() {
    let file = "FROM app:1\nENV A=1\nWORKDIR /made\nRUN echo x > x; mkdir sub; ln x sub/y\nCOPY f g/f\nCMD [\"x\"]\n";
    let mut ids = Vec::new();
    for round in 0..2 {
        let s = sandbox();
        context(&s, "c", &[("Dockerfile", file), ("f", "f")]);
        if round == 1 {
            let old = std::time::SystemTime::now() - std::time::Duration::from_secs(1000);
            let path = s.path("c/f");
            fs::File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        let mut command = s.command();
        command
            .args(["build", "-q"])
            .arg(s.path("c"))
            .env("SOURCE_DATE_EPOCH", "1000000000");
        ids.push(s.run(command).ok().stdout());
    }
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn root_build_shows_a_live_mount_the_new_tag() {
    let s = sandbox();
    let mount = s.mount();
    build_text(
        &s,
        "FROM app:1\nRUN echo one > /one\n",
        &["-t", "my-app:1.0"],
    )
    .ok();
    let text = fs::read_to_string(mount.point.join("images/my-app/1.0/one")).unwrap();
    assert_eq!(text, "one\n");
    build_text(
        &s,
        "FROM app:1\nRUN echo two > /one\n",
        &["-t", "my-app:1.0"],
    )
    .ok();
    let text = fs::read_to_string(mount.point.join("images/my-app/1.0/one")).unwrap();
    assert_eq!(text, "two\n");
    // The old image has lost its name.
    assert_eq!(shown(&s, "images -q -f dangling=true").lines().count(), 1);
}
