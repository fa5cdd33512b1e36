//! What else other runtimes have got wrong, and the rule that the sources are read for.

use super::*;

/// Before its root has changed, the child knows no path: the places that do are named here, with the reason.
#[test]
fn paths_of_the_host_are_used_in_one_place() {
    let allowed = [
        // The one that opens what the container shall see.
        "child/sources.rs",
        // After the root has changed.
        "child/process.rs",
        // Its root is the container's before it knows any path.
        "visitor.rs",
        // The container's lists of users, read when its root is the caller's.
        "users.rs",
        // The supervisor, which is not the container: /dev/null, the kernel's settings, its own log and lock.
        "supervisor.rs",
        "supervisor/attached.rs",
        "supervisor/startup.rs",
        "guard.rs",
        "stdio.rs",
        "exec.rs",
        // The container's directory, in a store that is its owner's alone, and the socket in it.
        "files.rs",
        "attach/hub.rs",
    ];
    let words = [
        "std::fs::",
        "fs::File",
        "fs::OpenOptions",
        "fs::create_dir",
        "fs::set_permissions",
        "fs::copy",
        "fs::read",
        "CWD",
        "File::open",
        "File::options",
        "Path::exists",
        ".exists()",
        "canonicalize",
        "metadata(",
        "read_link(",
        "read_dir(",
        "libc::open",
        "libc::stat",
        "libc::ch",
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runtime");
    let mut todo = vec![src.clone()];
    let mut faults = Vec::new();
    let mut seen = 0;
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let name = path
                .strip_prefix(&src)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if allowed.contains(&name.as_str()) || name.ends_with("tests.rs") {
                continue;
            }
            seen += 1;
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for (number, line) in code.lines().enumerate() {
                let line = line.split("//").next().unwrap();
                // Files made of descriptors are none of it.
                let line = line
                    .replace("std::fs::File::from(", "")
                    .replace("use std::fs::File;", "")
                    .replace("rustix::fs::", "");
                if words.iter().any(|word| line.contains(word)) {
                    faults.push(format!("src/runtime/{name}:{}: {line}", number + 1));
                }
            }
        }
    }
    assert!(seen >= 5, "only {seen} files");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn root_regression_devices_work_nowhere() {
    let s = sandbox();
    let demo = s.mkdir("demo");
    let at = demo.display();
    let mounts = format!("-v vol:/vol --tmpfs /mem -v {at}:/bind -v /dev:/devices");
    let seen = shown(
        &s,
        &format!(
            "run --rm {mounts} app:1 -- for d in / /dev /dev/shm /vol /mem /bind /etc; do \
             mknod $d/b b 7 0 && mknod $d/c c 1 1 || echo none $d; \
             for n in $d/b $d/c; do busybox head -c 1 $n 2>&1 | grep -c 'ermission denied' | grep -v 1; done; \
             done; busybox head -c 1 /devices/zero 2>&1 | grep -c 'ermission denied'"
        ),
    );
    assert_eq!(seen, "1\n");
}

/// As many places to make as do not fit into one message.
#[test]
fn root_regression_a_start_with_too_much_to_say_fails_whole() {
    let s = sandbox();
    let mut args = vec!["run".to_owned(), "--rm".to_owned()];
    for number in 0..620 {
        args.push("--tmpfs".to_owned());
        args.push(format!("/{}/{number}", "x".repeat(240)));
    }
    args.extend(["app:1", "echo", "ran"].map(str::to_owned));
    let run = s.mica(&args).code(125);
    assert_eq!(run.stdout(), "");
    assert!(left(&s).is_empty());
}

/// A container that looks at every process that joins it, for something of the host.
#[test]
fn root_regression_exec_shows_nothing_of_the_host_while_it_joins() {
    let s = sandbox();
    let marker = secret(&s);
    let look = format!(
        "run -d --name web app:1 -- while true; do for p in /proc/[0-9]*; do \
         ls $p/root{0} $p/cwd{0} 2>/dev/null; for f in $p/fd/*; do readlink $f | grep {1}; ls $f{0} 2>/dev/null; done; done; done >> /found",
        marker.display(),
        s.dir().display(),
    );
    shown(&s, &look);
    for _ in 0..30 {
        shown(&s, "exec web true");
    }
    assert_eq!(shown(&s, "exec web cat /found"), "");
    shown(&s, "rm -f web");
}

#[test]
fn root_regression_a_user_of_odd_spelling_is_not_root() {
    let s = sandbox();
    shown(&s, "run -d --name web app:1 sleep 600");
    for (user, expected) in [
        ("1", "1:0"),
        ("1:2", "1:2"),
        ("01", "1:0"),
        ("+1", "1:0"),
        ("1:", "1:0"),
        (" 1", ""),
        ("4294967296", ""),
        ("2147483648", ""),
        ("-1", ""),
        ("0x1", ""),
    ] {
        let run = s.mica([
            "exec",
            "-u",
            user,
            "web",
            "sh",
            "-c",
            "echo $(id -u):$(id -g)",
        ]);
        let out = run.stdout();
        let fine = run.status.code() != Some(0) || (out.trim() == expected && !expected.is_empty());
        assert!(fine, "{user:?}: {}", run.describe());
    }
    shown(&s, "rm -f web");
}
