//! How the caller runs: what he limits stays, what is merely his way does not matter.

use super::*;

#[test]
fn root_everyday_callers_limits_stay() {
    let s = sandbox();
    print(
        &s,
        &[
            (
                "nice -n 10 $MICA run --rm app:1 sh -c 'read -r line < /proc/self/stat; set -- $line; echo ${19}'",
                "10\n",
            ),
            (
                "taskset -c 0 $MICA run --rm app:1 grep Cpus_allowed_list /proc/self/status",
                "Cpus_allowed_list:\t0\n",
            ),
            (
                "ulimit -Sn 300; mica run --rm app:1 sh -c 'ulimit -Sn'",
                "300\n",
            ),
            ("ulimit -c 0; mica run --rm app:1 sh -c 'ulimit -c'", "0\n"),
            ("timeout 60 $MICA run --rm app:1 echo x", "x\n"),
            (
                "timeout -s INT 0.7 $MICA run --rm --init app:1 sleep 600 || echo $?",
                "124\n",
            ),
        ],
    );
}

#[test]
fn root_everyday_callers_ways_do_not_matter() {
    let s = sandbox();
    print(
        &s,
        &[
            (
                "umask 077; mica run --rm app:1 sh -c 'umask; touch /f; stat -c %a /f'",
                "0022\n644\n",
            ),
            (
                "umask 002; mica run --rm app:1 sh -c 'umask; mkdir /d; stat -c %a /d'",
                "0022\n755\n",
            ),
            (
                "umask 000; mica run --rm -w /new/dir app:1 stat -c %a /new /new/dir",
                "755\n755\n",
            ),
            (
                "umask 002; mica run --rm -v um:/v -v /usr:/made/here app:1 stat -c %a /v /made",
                "755\n755\n",
            ),
            (
                "mkdir gone; cd gone; rmdir ../gone; mica run --rm app:1 pwd",
                "/\n",
            ),
            (
                "env -i MICA_STORE=$MICA_STORE setsid $MICA run --rm app:1 echo unit < /dev/null 2>&1 | cat",
                "unit\n",
            ),
            (
                "env -i MICA_STORE=$MICA_STORE setsid -w $MICA run --rm app:1 sh -c 'exit 3' <&- >&- 2>&- || echo $?",
                "3\n",
            ),
            ("nohup $MICA run --rm app:1 echo x 2>/dev/null", "x\n"),
            ("mica run --rm app:1 echo x & wait $!", "x\n"),
            ("echo a b | xargs -n 1 $MICA run --rm app:1 echo", "a\nb\n"),
            (
                "exec 5<$MICA_STORE 6>/dev/null; mica run --rm app:1 echo x",
                "x\n",
            ),
            ("trap '' HUP PIPE; mica run --rm app:1 echo x", "x\n"),
        ],
    );
}

#[test]
fn root_everyday_callers_variables() {
    let s = sandbox();
    fs::write(s.path("vars"), "# a comment\nA=file\nB=with space\nC\n").unwrap();
    print(
        &s,
        &[
            (
                "mica run --rm --env-file vars app:1 sh -c 'echo $A,$B'",
                "file,with space\n",
            ),
            (
                "mica run --rm --env-file <(echo A=substituted) app:1 sh -c 'echo $A'",
                "substituted\n",
            ),
            (
                "mica run --rm --env-file <(echo A=1) --env-file <(echo B=2) app:1 sh -c 'echo $A$B'",
                "12\n",
            ),
            (
                "echo A=in | mica run --rm --env-file /dev/stdin app:1 sh -c 'echo $A'",
                "in\n",
            ),
            (
                "C=caller mica run --rm --env-file vars app:1 sh -c 'echo $C'",
                "caller\n",
            ),
            (
                "export X=1; mica run --rm -e X -e Y=2 app:1 sh -c 'echo $X$Y'",
                "12\n",
            ),
            ("mica run --rm -e A=1 -e A=2 app:1 sh -c 'echo $A'", "2\n"),
            (
                "mica run -d --name kept -e A=1 app:1 sleep 600 >/dev/null; mica exec -e B=2 kept sh -c 'echo $A$B'; mica rm -f kept",
                "12\nkept\n",
            ),
        ],
    );
}

/// What a service manager starts: no terminal, no home, a socket for its output, and SIGTERM in the end.
const UNIT: &str = r#"python3 -c 'import os, socket, subprocess
ours, its = socket.socketpair()
loop = "trap \"exit 0\" TERM; echo up; while :; do sleep 0.1; done"
unit = subprocess.Popen([os.environ["MICA"], "run", "--rm", "--name", "unit", "app:1", "sh", "-c", loop],
    stdin=subprocess.DEVNULL, stdout=its, stderr=its, cwd="/", start_new_session=True,
    env={name: os.environ[name] for name in ("PATH", "MICA_STORE")})
print(ours.recv(3).decode(), end="", flush=True)
unit.terminate()
print(unit.wait())'
mica ps -aq | wc -l"#;

#[test]
fn root_everyday_callers_that_are_no_shell() {
    let s = sandbox();
    print(
        &s,
        &[
            (UNIT, "up\n0\n0\n"),
            (
                "env -i MICA_STORE=$MICA_STORE $MICA run --rm app:1 echo x </dev/null 2>&1 | cat",
                "x\n",
            ),
            (
                "cd /; setsid -w $MICA run --rm app:1 echo x </dev/null",
                "x\n",
            ),
        ],
    );
}
