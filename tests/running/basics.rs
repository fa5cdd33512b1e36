//! What a process gets: arguments, variables, user, directory, descriptors, exit codes.

use super::*;

#[test]
fn root_run_gives_the_output_and_the_exit_code() {
    let s = sandbox();
    assert_eq!(shown(&s, "run --rm app:1 echo one two"), "one two\n");
    mica(&s, "run --rm app:1 -- exit 7").code(7);
    mica(&s, "run --rm app:1 false").code(1);
    // Process 1 of its namespace.
    assert_eq!(shown(&s, "run --rm app:1 -- echo $$"), "1\n");
    // Killed by a signal: 128 and its number.
    mica(&s, "run --rm --init app:1 -- kill -9 $$").code(137);
    mica(&s, "run --rm --init app:1 -- kill -TERM $$").code(143);
    let run = mica(&s, "run --rm app:1 -- echo out; echo err >&2").ok();
    assert_eq!(
        (run.stdout().as_str(), run.stderr().as_str()),
        ("out\n", "err\n")
    );
    assert!(left(&s).is_empty());
}

#[test]
fn root_run_says_what_cannot_be_run() {
    let s = sandbox();
    let missing = mica(&s, "run --rm app:1 nosuch").code(127);
    assert!(
        missing
            .stderr()
            .contains("exec: \"nosuch\": executable file not found in $PATH"),
        "{}",
        missing.describe()
    );
    let missing = mica(&s, "run --rm app:1 /no/such").code(127);
    assert!(missing.stderr().contains("no such file or directory"));
    let denied = mica(&s, "run --rm app:1 /etc/passwd").code(126);
    assert!(denied.stderr().contains("permission denied"));
    mica(&s, "run --rm app:1 /etc").code(126);
    mica(&s, "run --rm -w /etc/passwd app:1 true").code(126);
    let user = mica(&s, "run --rm -u eve app:1 true").code(126);
    assert!(user.stderr().contains("unable to find user eve"));
    let image = mica(&s, "run --rm --pull never nosuch true").code(125);
    assert!(image.stderr().contains("No such image: nosuch:latest"));
    mica(&s, "run --nosuch app:1 true").code(125);
    let dir = mica(&s, "run --rm -w rel app:1 true").code(125);
    assert!(dir.stderr().contains("needs to be an absolute path"));
    let name = mica(&s, "run --rm --name -x app:1 true").code(125);
    assert!(!name.stderr().is_empty());
    assert!(left(&s).is_empty(), "{:?}", left(&s));
}

#[test]
fn root_run_refuses_an_image_for_another_machine() {
    let s = sandbox();
    s.load(&image("other:1").config(|c| c["architecture"] = "s390x".into()));
    let refused = mica(&s, "run --rm other:1 true").code(125);
    assert!(
        refused.stderr().contains("linux/s390x") && refused.stderr().contains("do not run here"),
        "{}",
        refused.describe()
    );
}

#[test]
fn root_run_follows_the_image_s_configuration() {
    let s = sandbox();
    s.load(&image("conf:1").config(|c| {
        c["config"] = serde_json::json!({
            "Env": ["PATH=/bin", "A=image", "B=image"],
            "Entrypoint": ["/bin/echo", "entry"],
            "Cmd": ["cmd"],
            "WorkingDir": "/work/here",
            "User": "bob",
        });
    }));
    assert_eq!(shown(&s, "run --rm conf:1"), "entry cmd\n");
    assert_eq!(shown(&s, "run --rm conf:1 mine"), "entry mine\n");
    assert_eq!(
        shown(&s, "run --rm --entrypoint pwd conf:1"),
        "/work/here\n"
    );
    let id = shown(&s, "run --rm --entrypoint id conf:1");
    assert_eq!(
        id,
        "uid=1000(bob) gid=1001(bobs) groups=10(wheel),1001(bobs)\n"
    );
    assert_eq!(shown(&s, "run --rm --entrypoint id -u 0 conf:1 -u"), "0\n");
    assert_eq!(
        shown(&s, "run --rm --entrypoint id -u 5:6 conf:1 -g"),
        "6\n"
    );
    let env = shown(
        &s,
        "run --rm --entrypoint env -e A=mine -e C=new -h box conf:1",
    );
    for line in [
        "PATH=/bin",
        "A=mine",
        "B=image",
        "C=new",
        "HOSTNAME=box",
        "HOME=/home/bob",
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in:\n{env}");
    }
    assert_eq!(
        shown(&s, "run --rm --entrypoint hostname -h box conf:1"),
        "box\n"
    );
    fs::write(s.path("vars"), "# comment\n\nX=1\nA=file\n").unwrap();
    let file = s.path("vars");
    let run = s.mica([
        "run",
        "--rm",
        "--entrypoint",
        "env",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "A=flag",
        "conf:1",
    ]);
    let env = run.ok().stdout();
    assert!(env.contains("X=1\n") && env.contains("A=flag\n"), "{env}");
    // No command at all.
    s.load(&image("none:1").config(|c| c["config"] = serde_json::json!({})));
    let none = mica(&s, "run --rm none:1").code(125);
    assert!(none.stderr().contains("no command specified"));
}

#[test]
fn root_run_passes_standard_input_only_when_asked() {
    let s = sandbox();
    let store = s.store();
    let piped = format!(
        "echo hello | {} run --rm -i app:1 cat",
        env!("CARGO_BIN_EXE_mica")
    );
    assert_eq!(s.sh(&piped).ok().stdout(), "hello\n");
    let not = format!(
        "echo hello | {} run --rm app:1 cat",
        env!("CARGO_BIN_EXE_mica")
    );
    assert_eq!(s.sh(&not).ok().stdout(), "");
    // Big and binary, both ways.
    let through = format!(
        "head -c 3000000 {0} > big; {0} run --rm -i app:1 cat < big | cmp - big",
        env!("CARGO_BIN_EXE_mica")
    );
    s.sh(&through).ok();
    assert!(store.exists());
}

#[test]
fn root_run_gives_a_terminal_that_has_a_size() {
    let s = sandbox();
    // `script` is the terminal; what it prints has carriage returns.
    let script = format!(
        "script -qec \"stty rows 33 cols 77; {} run --rm -it app:1 sh -c 'tty; stty size; echo \\$TERM; exit 4'\" /dev/null < /dev/null || echo code $?",
        env!("CARGO_BIN_EXE_mica")
    );
    let out = s.sh(&script).ok().stdout().replace('\r', "");
    for line in ["/dev/pts/0", "33 77", "xterm", "code 4"] {
        assert!(
            out.lines().any(|l| l.trim_matches('\0').ends_with(line)),
            "{line} in:\n{out}"
        );
    }
    let refused = mica(&s, "run --rm -it app:1 true").code(1);
    assert!(refused.stderr().contains("the input device is not a TTY"));
}

#[test]
fn root_changes_stay_with_the_container() {
    let s = sandbox();
    shown(
        &s,
        "run --name one app:1 -- echo changed > /etc/passwd; rm /bin/wc; mkdir /new",
    );
    assert_eq!(
        shown(&s, "run --rm app:1 -- grep -c root /etc/passwd; ls /bin/wc"),
        "1\n/bin/wc\n"
    );
    // Started again, it finds what it has changed.
    s.load(&image("app:2"));
    shown(
        &s,
        "run --name two app:1 -- cat /mark 2>/dev/null; echo x >> /mark",
    );
    assert_eq!(shown(&s, "start -a two"), "x\n");
    assert_eq!(shown(&s, "start -a two"), "x\nx\n");
    // Nothing can be changed at all.
    mica(&s, "run --rm --read-only app:1 touch /x").code(1);
    shown(&s, "run --rm --read-only --tmpfs /t app:1 touch /t/x");
}

#[test]
fn root_run_leaves_the_mount_table_alone() {
    let s = sandbox();
    let before = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    shown(&s, "run --rm -v data:/d app:1 true");
    shown(&s, "run -d --name web app:1 sleep 60");
    let during = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    shown(&s, "rm -f web");
    assert_eq!(before, during);
}

/// One too many: cron ran nothing.
#[test]
fn root_regression_a_file_has_the_links_that_its_image_has() {
    let s = sandbox();
    s.load(&image("links:1").layer(|l| {
        let l = l.dir("d", 0o755).file("d/one", "1").file("d/two", "2");
        l.hardlink("d/twin", "d/two")
    }));
    let script = "stat -c %h /d/one /d/two /d/twin; echo x >>/d/one; stat -c %h /d/one";
    assert_eq!(
        shown(&s, &format!("run --rm links:1 -- {script}")),
        "1\n2\n2\n1\n"
    );
}
