//! Redirections of the shell.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use super::*;

#[test]
fn root_everyday_streams_input() {
    let s = sandbox();
    fs::write(s.path("in"), "one\ntwo\n").unwrap();
    print(
        &s,
        &[
            (
                "mica run --rm -i app:1 cat <<END\none\ntwo\nEND",
                "one\ntwo\n",
            ),
            ("mica run --rm -i app:1 cat <<< word", "word\n"),
            ("mica run --rm -i app:1 wc -l < in", "2\n"),
            ("mica run --rm -i app:1 cat < <(echo from)", "from\n"),
            ("echo piped | mica run --rm -i app:1 cat", "piped\n"),
            // The rest is for whoever comes next, as in any shell script.
            (
                "while read -r line; do mica run --rm app:1 echo \"$line\"; done < in",
                "one\ntwo\n",
            ),
            ("mica run --rm -i app:1 cat < /dev/null", ""),
            ("mica run --rm app:1 cat <&-", ""),
            ("mica run --rm -i app:1 wc -c <&-", "0\n"),
            ("mica run --rm -i app:1 sh -s a b <<< 'echo $1 $2'", "a b\n"),
            (
                "mica run -d --name kept app:1 sleep 600 >/dev/null; mica exec -i kept cat <<< word; mica exec -i kept wc -l < in",
                "word\n2\n",
            ),
            ("mica exec kept cat < /dev/null; mica rm -f kept", "kept\n"),
        ],
    );
    assert_eq!(fs::read_to_string(s.path("in")).unwrap(), "one\ntwo\n");
}

#[test]
fn root_everyday_streams_output() {
    let s = sandbox();
    print(
        &s,
        &[
            ("mica run --rm app:1 echo x > out; cat out", "x\n"),
            (
                "echo old > log; mica run --rm app:1 echo new >> log; cat log",
                "old\nnew\n",
            ),
            (
                "mica run --rm app:1 sh -c 'echo o; echo e >&2' > both 2>&1; sort both",
                "e\no\n",
            ),
            (
                "mica run --rm app:1 sh -c 'echo o; echo e >&2' 2>&1 >/dev/null | cat",
                "e\n",
            ),
            (
                "mica run --rm app:1 sh -c 'echo o; echo e >&2' 2>err; cat err",
                "o\ne\n",
            ),
            (
                "(echo first; mica run --rm app:1 echo second; echo third) > out; cat out",
                "first\nsecond\nthird\n",
            ),
            (
                "mica run --rm app:1 sh -c 'echo a; echo b' | tail -n 1",
                "b\n",
            ),
            ("mica run --rm app:1 busybox yes | head -n 1", "y\n"),
            (
                "x=$(mica run --rm app:1 echo word); echo \"<$x>\"",
                "<word>\n",
            ),
            (
                "mica run --rm app:1 sh -c 'head -c 3000000 /dev/zero || busybox head -c 3000000 /dev/zero' 2>/dev/null | wc -c",
                "3000000\n",
            ),
            ("mica run --rm app:1 echo x >&- && echo quiet", "quiet\n"),
            ("mica run --rm app:1 echo x | tee copy; cat copy", "x\nx\n"),
            (
                "mica run -d --name kept app:1 sleep 600 >/dev/null; mica exec kept echo x >> log; cat log; mica rm -f kept",
                "old\nnew\nx\nkept\n",
            ),
        ],
    );
    // What cannot be written is lost, and nothing hangs.
    bash(&s, "mica run --rm app:1 echo x > /dev/full || true").ok();
}

#[test]
fn root_everyday_streams_a_socket_and_a_terminal() {
    let s = sandbox();
    // As inetd and ssh have it.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = s.command();
    command
        .args(["run", "--rm", "-i", "app:1", "cat"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    ours.write_all(b"by socket\n").unwrap();
    drop(ours);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"by socket\n");
    for (line, expected) in [
        (
            "mica run --rm -it app:1 sh -c \"test -t 0 && test -t 1 && echo both\"",
            "both",
        ),
        ("mica run --rm -t app:1 tty", "/dev/pts/0"),
        (
            "mica run --rm app:1 sh -c \"test -t 0 || echo none\"",
            "none",
        ),
        (
            "mica run --rm -i app:1 sh -c \"test -t 0 || echo none\"",
            "none",
        ),
        (
            "mica run -dit --name kept app:1 sh >/dev/null; mica exec -it kept tty; mica rm -f kept",
            "/dev/pts/1",
        ),
        // The image's /dev/console is the terminal.
        (
            "mica run --rm -it app:1 sh -c \"echo here > /dev/console\"",
            "here",
        ),
    ] {
        let script = format!(
            // script(1) starts $SHELL or sh, and not every sh hands on a function of bash.
            "SHELL=/bin/bash script -qec {} /dev/null < /dev/null",
            shell_word(&format!("bash -c {}", shell_word(line)))
        );
        let out = bash(&s, &script).ok().stdout().replace(['\r', '\0'], "");
        assert!(out.lines().any(|l| l.ends_with(expected)), "{line}:\n{out}");
    }
}

fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
