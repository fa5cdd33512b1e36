//! Bad input: docker's words, and the line.

use super::*;

#[test]
fn root_build_refuses_in_dockers_words() {
    let s = sandbox();
    context(
        &s,
        "c",
        &[
            ("f", "f"),
            ("g", "g"),
            ("d/x", "x"),
            ("ignored", "i"),
            (".dockerignore", "ignored\n"),
        ],
    );
    let long = format!("FROM app:1\nRUN {}\n", "x".repeat(1 << 20));
    for (file, code, words) in [
        (
            "FROM app:1\n\nRUNN x\n",
            1,
            "Error response from daemon: dockerfile parse error on line 3: unknown instruction: RUNN",
        ),
        (
            "FROM app:1\nENV\n",
            1,
            "line 2: ENV requires at least one argument",
        ),
        (
            "FROM app:1\nCOPY --bad=1 f /\n",
            1,
            "line 2: unknown flag: --bad",
        ),
        (
            "FROM app:1\nCOPY f\n",
            1,
            "line 2: COPY requires at least two arguments",
        ),
        (
            "FROM app:1\nARG\n",
            1,
            "line 2: ARG requires at least one argument",
        ),
        (
            "FROM app:1\nENV A\n",
            1,
            "line 2: ENV must have two arguments",
        ),
        (
            "FROM app:1\nENV =x\n",
            1,
            "line 2: ENV names can not be blank",
        ),
        (
            "FROM app:1\nENV a=b c\n",
            1,
            "line 2: Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        (
            "FROM app:1\nARG A B=1 =2\n",
            1,
            "line 2: ARG names can not be blank",
        ),
        (
            "FROM app:1\nCOPY --from=127.0.0.1:1/none:1 /x /y\n",
            1,
            "cannot get image 127.0.0.1:1/none:1",
        ),
        (
            "FROM app:1 AS 1a\n",
            1,
            "line 1: invalid name for build stage: \"1a\"",
        ),
        (
            "FROM app:1\nRUN <<EOF\nx\n",
            1,
            "line 2: unterminated heredoc",
        ),
        ("RUN x\n", 1, "line 1: no build stage in current context"),
        ("# nothing\n", 1, "line 1: file with no instructions"),
        ("", 1, "the Dockerfile ("),
        (
            &long,
            1,
            "line 2: dockerfile line greater than maximum allowed size of 65535",
        ),
        (
            "FROM app:1\nRUN \0\n",
            1,
            "line 2: the line contains a NUL byte",
        ),
        (
            "FROM app:1\nCOPY nope /\n",
            1,
            "Error response from daemon: COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist (Dockerfile:2)",
        ),
        (
            "FROM app:1\nCOPY ignored /\n",
            1,
            "stat ignored: file does not exist",
        ),
        (
            "FROM app:1\nCOPY *.zip /\n",
            1,
            "COPY failed: no source files were specified",
        ),
        (
            "FROM app:1\nCOPY ../f /\n",
            1,
            "COPY failed: forbidden path outside the build context: ../f ()",
        ),
        (
            "FROM app:1\nCOPY f g /x\n",
            1,
            "the destination must be a directory and end with a /",
        ),
        (
            "FROM app:1\nCOPY f /etc/passwd/x\n",
            1,
            "cannot copy to non-directory: /etc/passwd",
        ),
        (
            "FROM app:1\nCOPY d /etc/passwd\n",
            1,
            "cannot copy to non-directory: /etc/passwd",
        ),
        (
            "FROM app:1\nCOPY --chown=nobody f /\n",
            1,
            "no such user: nobody",
        ),
        (
            "FROM app:1\nCOPY --chmod=rwx f /\n",
            1,
            "invalid chmod parameter: 'rwx'",
        ),
        (
            "FROM app:1\nCOPY --from=3 f /\n",
            1,
            "invalid from flag value 3",
        ),
        (
            "FROM app:1 AS a\nCOPY --from=a f /\n",
            1,
            "circular dependency detected on stage: a",
        ),
        (
            "FROM app:1 AS a\nCOPY --from=b f /\nFROM app:1 AS b\nCOPY --from=a f /\n",
            1,
            "circular dependency detected on stage: b",
        ),
        (
            "FROM app:1\nCOPY --from=app:1 /nope /\n",
            1,
            "COPY failed: stat /nope: file does not exist",
        ),
        ("FROM Nope\n", 1, "must be lowercase"),
        (
            "FROM ${NONE}\n",
            1,
            "base name (${NONE}) should not be blank",
        ),
        ("FROM scratch\n", 1, "No image was generated"),
        (
            "FROM app:1\nEXPOSE http\n",
            1,
            "invalid containerPort: http",
        ),
        (
            "FROM app:1\nENV A=\"${B:?is missing}\"\n",
            1,
            "B: is missing (Dockerfile:2)",
        ),
        (
            "FROM app:1\nRUN --mount=type=nope,target=/x true\n",
            1,
            "unsupported mount type \"nope\"",
        ),
        (
            "FROM app:1\nUSER nobody\nRUN true\n",
            126,
            "unable to find user nobody",
        ),
    ] {
        fs::write(s.path("c/Dockerfile"), file).unwrap();
        let run = build(&s, "c", &[]);
        let shown = run.describe();
        assert_eq!(run.status.code(), Some(code), "{shown}");
        assert!(run.stderr().contains(words), "{words}\n{shown}");
    }
    for file in [
        &b"FROM app:1\nRUN echo \xff\n"[..],
        b"FROM app:1\n\xfe\xff x\n",
    ] {
        fs::write(s.path("c/Dockerfile"), file).unwrap();
        let error = build(&s, "c", &[]).code(1).stderr();
        assert!(
            error.contains("parse error on line 2: the line is not valid UTF-8"),
            "{error}"
        );
    }
    assert_eq!(left(&s), [] as [PathBuf; 0]);
}

#[test]
fn root_build_refuses_what_is_no_context() {
    let s = sandbox();
    let run = s.mica(["build", "x"]).code(1);
    assert_eq!(
        run.stderr(),
        "mica: unable to prepare context: path \"x\" not found\n"
    );
    fs::write(s.path("file"), "").unwrap();
    let error = s.mica(["build", "file"]).code(1).stderr();
    assert!(
        error.contains("context must be a directory: file"),
        "{error}"
    );
    context(&s, "empty", &[]);
    let error = build(&s, "empty", &[]).code(1).stderr();
    assert!(
        error.contains("unable to evaluate symlinks in Dockerfile path")
            && error.contains("empty/Dockerfile: no such file or directory"),
        "{error}"
    );
    // Nor is git run, whose options and paths such a name could hold.
    for url in [
        "https://example.org/x.git",
        "https://example.org/x.git#main:../../etc",
        "git://example.org/x#--upload-pack=touch:d",
        "git@example.org:x",
        "github.com/a/b",
    ] {
        let error = s.mica(["build", url]).code(1).stderr();
        assert!(error.contains("contexts are not fetched"), "{error}");
    }
    s.mica(["build", "--", "--upload-pack=x"]).code(1);
    context(
        &s,
        "c",
        &[("Dockerfile", "FROM app:1\n"), (".dockerignore", "a\n[\n")],
    );
    let error = build(&s, "c", &[]).code(1).stderr();
    assert!(
        error.contains("error reading .dockerignore: line 2"),
        "{error}"
    );
    let error = build(&s, "c", &["-t", "Upper:1"]).code(1).stderr();
    assert!(
        error.contains("invalid argument \"Upper:1\" for \"-t, --tag\" flag"),
        "{error}"
    );
    s.mica(["build"]).code(1);
}

#[test]
fn root_build_refuses_programs_of_another_machine() {
    let s = sandbox();
    let other = match crate::common::image::host_architecture() {
        "arm64" => "riscv64",
        _ => "arm64",
    };
    s.load(
        &crate::running::image("other:1").config(|config| config["architecture"] = other.into()),
    );
    let file = "FROM other:1\nENV A=1\nRUN true\n";
    let error = build_text(&s, file, &[]).fails().stderr();
    assert!(
        error.contains(&format!("linux/{other}")) && error.contains("programs do not run here"),
        "{error}"
    );
    // Without a RUN it can be built.
    build_text(&s, "FROM other:1\nENV A=1\n", &["-t", "o:1"]).ok();
    let text = s
        .mica(["inspect", "-f", "{{.Architecture}}", "o:1"])
        .ok()
        .stdout();
    assert_eq!(text.trim(), other);
}

#[test]
fn root_build_notices_a_context_that_changes() {
    let s = sandbox();
    let root = context(
        &s,
        "c",
        &[
            ("Dockerfile", "FROM app:1\nRUN sleep 1\nCOPY f /f\n"),
            ("f", "before"),
        ],
    );
    let path = root.join("f");
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(700));
        fs::write(path, "after, and longer").unwrap();
    });
    let run = build(&s, "c", &[]);
    // Depending on who is faster it is built, or refused by name; never a mixture.
    if run.status.code() != Some(0) {
        assert!(
            run.stderr().contains("changed while it was read"),
            "{}",
            run.describe()
        );
    }
}

#[test]
fn root_build_on_a_full_disk_fails_and_leaves_nothing() {
    let s = sandbox();
    let small = s.mkdir("small");
    rustix::mount::mount(
        "tmpfs",
        &small,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"size=24m",
    )
    .unwrap();
    let store = small.join("s");
    let run = |args: &[&str]| {
        let mut command = s.command();
        command.env("MICA_STORE", &store).args(args);
        s.run(command)
    };
    let tar = s.path("app.tar");
    s.mica(["save", "-o", tar.to_str().unwrap(), "app:1"]).ok();
    run(&["load", "-i", tar.to_str().unwrap()]).ok();
    let used = || fs::read_dir(store.join("blobs/sha256")).unwrap().count();
    let before = used();
    let root = context(&s, "c", &[("Dockerfile", "FROM app:1\nCOPY big /big\n")]);
    fs::write(root.join("big"), vec![7u8; 64 << 20]).unwrap();
    let c = root.to_str().unwrap().to_owned();
    let error = run(&["build", &c]).fails().stderr();
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(used(), before);
    let file = root.join("Dockerfile");
    fs::write(&file, "FROM app:1\nRUN cat /dev/zero > /big\n").unwrap();
    let error = run(&["build", &c]).fails();
    assert!(
        error.describe().contains("No space left on device"),
        "{}",
        error.describe()
    );
    fs::write(
        &file,
        "FROM app:1\nRUN cat /dev/zero > /tmp/big; rm /tmp/big; echo ok > /ok\n",
    )
    .unwrap();
    run(&["build", &c]).ok();
    assert!(
        !exists(&store.join("containers"))
            || fs::read_dir(store.join("containers")).unwrap().count() == 0
    );
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
}
