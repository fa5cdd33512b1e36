use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use serde_json::Value;

use super::Sandbox;
use crate::running::wait_until;

/// A process that ends with the test.
struct User(Child);

impl User {
    fn start(command: &mut Command) -> User {
        User(command.stdin(Stdio::null()).spawn().expect("a user"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn json(sandbox: &Sandbox, volume: &str) -> Value {
    let text = sandbox.mica(["volume", "inspect", volume]).ok().stdout();
    serde_json::from_str::<Value>(&text).expect("JSON")[0].take()
}

/// Where the data of a volume is.
fn data(sandbox: &Sandbox, volume: &str) -> String {
    json(sandbox, volume)["Source"].as_str().unwrap().to_owned()
}

#[test]
fn volumes_come_and_go_in_dockers_words() {
    let sandbox = Sandbox::new();
    let run = sandbox.mica(["volume", "ls"]).ok();
    assert_eq!(run.stdout(), "DRIVER    VOLUME NAME\n");
    for _ in 0..2 {
        let run = sandbox.mica(["volume", "create", "data"]).ok();
        assert_eq!(run.stdout(), "data\n");
    }
    let run = sandbox
        .mica(["volume", "create", "--label", "a=b", "v10"])
        .ok();
    assert_eq!(run.stdout(), "v10\n");
    sandbox.mica(["volume", "create", "--ephemeral", "v9"]).ok();
    let run = sandbox.mica(["volume", "create"]).ok();
    let anonymous = run.stdout().trim().to_owned();
    assert_eq!(anonymous.len(), 64);
    sandbox.mica(["volume", "rm", &anonymous]).ok();
    assert_eq!(
        sandbox.mica(["volume", "list"]).ok().stdout(),
        "DRIVER    VOLUME NAME\nlocal     data\nlocal     v9\nlocal     v10\n"
    );
    assert_eq!(
        sandbox
            .mica(["volume", "ls", "-q", "-f", "label=a=b"])
            .ok()
            .stdout(),
        "v10\n"
    );
    assert_eq!(
        sandbox
            .mica([
                "volume",
                "ls",
                "--format",
                "{{.Name}} {{.Kind}} {{.Links}} {{.Size}} {{.Scope}}",
                "-f",
                "name=v9"
            ])
            .ok()
            .stdout(),
        "v9 ephemeral 0 0B local\n"
    );
    assert_eq!(
        sandbox
            .mica([
                "volume",
                "ls",
                "--format",
                "{{.Name}}:{{.Labels}}",
                "-f",
                "name=v1"
            ])
            .ok()
            .stdout(),
        "v10:a=b\n"
    );
    let long = sandbox.mica(["volume", "ls", "-l"]).ok().stdout();
    let first = long.lines().next().unwrap();
    assert_eq!(
        first,
        "DRIVER    VOLUME NAME   KIND         SIZE      USERS"
    );

    let run = sandbox
        .mica(["volume", "rm", "none", "data", "none"])
        .code(1);
    let missing = "Error response from daemon: get none: no such volume\n";
    assert_eq!(run.stdout(), "data\n");
    assert_eq!(run.stderr(), format!("{missing}{missing}"));
    let run = sandbox.mica(["volume", "rm", "-f", "none"]).ok();
    assert_eq!(
        (run.stdout().as_str(), run.stderr().as_str()),
        ("none\n", "")
    );
    let run = sandbox.mica(["volume", "inspect", "none"]).code(1);
    assert_eq!(run.stdout(), "[]\n");
    assert_eq!(run.stderr(), missing);
}

#[test]
fn inspect_has_dockers_keys_and_more() {
    let sandbox = Sandbox::new();
    sandbox
        .mica(["volume", "create", "--label", "a=b", "data"])
        .ok();
    let data = json(&sandbox, "data");
    let keys: Vec<&str> = data
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for key in [
        "CreatedAt",
        "Driver",
        "Labels",
        "Mountpoint",
        "Name",
        "Options",
        "Scope",
        "Kind",
        "Size",
        "Users",
    ] {
        assert!(keys.contains(&key), "{keys:?}");
    }
    assert_eq!(data["Labels"]["a"], "b");
    assert_eq!(data["Kind"], "persistent");
    assert_eq!(data["Options"], Value::Null);
    assert_eq!(data["Mountpoint"], data["Source"]);
    assert_eq!(
        sandbox
            .mica([
                "volume",
                "inspect",
                "-f",
                "{{.Name}} {{.Driver}} {{.Labels.a}}",
                "data"
            ])
            .ok()
            .stdout(),
        "data local b\n"
    );
    let source = sandbox.mkdir("host");
    let argument = format!("{}:ro", source.display());
    sandbox
        .mica(["volume", "create", "--bind", &argument, "host"])
        .ok();
    let host = json(&sandbox, "host");
    assert_eq!(host["Kind"], "bind");
    assert_eq!(host["ReadOnly"], true);
    assert_eq!(host["Source"].as_str(), source.to_str());
    assert_eq!(host["Options"]["o"], "bind,ro");
    let device = format!("device={}", source.display());
    let options = ["-o", "type=none", "-o", "o=bind", "-o", &device];
    sandbox
        .mica(
            ["volume", "create"]
                .iter()
                .chain(&options)
                .chain(&["second"]),
        )
        .ok();
    assert_eq!(json(&sandbox, "second")["Kind"], "bind");
    sandbox.mica(["volume", "rm", "host", "second"]).ok();
    assert!(source.is_dir());
}

#[test]
fn bad_names_binds_and_options_are_refused() {
    let sandbox = Sandbox::new();
    let table: [(&[&str], &str); 9] = [
        (
            &["./x"],
            "Error response from daemon: create ./x: \"./x\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path\n",
        ),
        (
            &["x"],
            "Error response from daemon: create x: volume name is too short, names should be at least two alphanumeric characters\n",
        ),
        (
            &["--bind", "/none/such", "host"],
            "bind source path does not exist: /none/such\n",
        ),
        (
            &["--bind", "none/such", "host"],
            "bind source path does not exist: /",
        ),
        (
            &["--bind", "/dev/null", "host"],
            "neither a directory nor a file",
        ),
        (&["-o", "type=tmpfs", "mem"], "not supported"),
        (
            &[
                "-o",
                "type=none",
                "-o",
                "o=bind,uid=0",
                "-o",
                "device=/etc",
                "etc",
            ],
            "not supported",
        ),
        (&["-d", "nfs", "far"], "driver \"nfs\""),
        (
            &["-o", "type=none", "-o", "o=bind", "-o", "device=etc", "etc"],
            "must be absolute",
        ),
    ];
    for (arguments, expected) in table {
        let run = sandbox
            .mica(["volume", "create"].iter().chain(arguments))
            .code(1);
        assert!(run.stderr().contains(expected), "{}", run.describe());
    }
    let store = sandbox.store();
    let inside = store.join("blobs");
    let run = sandbox
        .mica([
            "volume",
            "create",
            "--bind",
            inside.to_str().unwrap(),
            "own",
        ])
        .code(1);
    assert!(
        run.stderr().contains("inside the store"),
        "{}",
        run.describe()
    );
    sandbox.mica(["volume", "create", "data"]).ok();
    let run = sandbox
        .mica(["volume", "create", "--ephemeral", "data"])
        .code(1);
    assert!(
        run.stderr()
            .contains("create data: volume name must be unique"),
        "{}",
        run.describe()
    );
    sandbox
        .mica(["volume", "create", "--ephemeral", "--bind", "/etc", "both"])
        .code(125);
    sandbox.mica(["volume", "ls", "-f", "colour=red"]).code(1);
    assert_eq!(sandbox.mica(["volume", "ls", "-q"]).ok().stdout(), "data\n");
}

#[test]
fn a_used_volume_is_not_removed_and_users_are_shown() {
    let sandbox = Sandbox::new();
    sandbox.mica(["volume", "create", "data"]).ok();
    let data = data(&sandbox, "data");
    fs::write(format!("{data}/f"), "x").unwrap();
    let user = User::start(
        Command::new("tail")
            .arg("-f")
            .arg(format!("{data}/f"))
            .stdout(Stdio::null()),
    );
    let inside = User::start(Command::new("sleep").arg("100").current_dir(&data));
    let open = format!("/proc/{}/fd", user.pid());
    wait_until("tail has opened it", || {
        let links = fs::read_dir(&open).into_iter().flatten().flatten();
        let mut links = links.filter_map(|link| fs::read_link(link.path()).ok());
        links.any(|path| path.ends_with("f"))
    });
    let run = sandbox.mica(["volume", "rm", "data"]).code(1);
    let (one, two) = (user.pid().min(inside.pid()), user.pid().max(inside.pid()));
    assert_eq!(
        run.stderr(),
        format!("Error response from daemon: remove data: volume is in use - [{one}, {two}]\n")
    );
    assert!(run.stdout().is_empty());
    let table = sandbox.mica(["users", "data"]).ok().stdout();
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = table.lines().map(words).collect();
    assert_eq!(rows[0], ["PID", "COMMAND", "HOW", "OF", "PATH"]);
    let row = |pid: u32, command: &str, how: &str, path: &str| {
        let row = vec![
            pid.to_string(),
            command.into(),
            how.into(),
            "data".into(),
            path.into(),
        ];
        assert!(rows.contains(&row), "{row:?} {table}");
    };
    row(user.pid(), "tail", "open", &format!("{data}/f"));
    row(inside.pid(), "sleep", "cwd", &data);
    // A path on any file system.
    let quiet = sandbox
        .mica(["users", "-q", &format!("{data}/f")])
        .ok()
        .stdout();
    assert_eq!(quiet, format!("{}\n", user.pid()));
    let here = sandbox.dir().canonicalize().unwrap();
    let relative = std::path::Path::new(&data)
        .strip_prefix(here)
        .unwrap()
        .join("f");
    let relative = relative.to_str().unwrap();
    let same = sandbox.mica(["users", "-q", relative]).ok().stdout();
    assert_eq!(same, quiet);
    let run = sandbox.mica(["users", "none"]).code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: No such object: none\n"
    );
    let run = sandbox
        .mica(["volume", "ls", "-q", "-f", "dangling=true"])
        .ok();
    assert_eq!(run.stdout(), "");
    let df = sandbox.mica(["system", "df"]).ok().stdout();
    assert!(df.contains("\nLocal Volumes   1         1 "), "{df}");
    drop(user);
    drop(inside);
    sandbox.mica(["volume", "rm", "data"]).ok();
}

#[test]
fn prune_takes_what_nobody_uses_or_has_named() {
    let sandbox = Sandbox::new();
    let anonymous = sandbox
        .mica(["volume", "create"])
        .ok()
        .stdout()
        .trim()
        .to_owned();
    let labelled = sandbox
        .mica(["volume", "create", "--label", "keep"])
        .ok()
        .stdout()
        .trim()
        .to_owned();
    let source = sandbox.mkdir("host");
    sandbox.mica(["volume", "create", "named"]).ok();
    sandbox
        .mica([
            "volume",
            "create",
            "--bind",
            source.to_str().unwrap(),
            "host",
        ])
        .ok();
    sandbox
        .mica(["volume", "create", "--ephemeral", "brief"])
        .ok();
    fs::write(
        format!("{}/f", data(&sandbox, &anonymous)),
        vec![b'x'; 1 << 20],
    )
    .unwrap();
    let asked = sandbox.mica(["volume", "prune"]).ok();
    assert!(
        asked.stdout().starts_with("WARNING! This will remove anonymous local volumes not used by at least one container.\n"),
        "{}",
        asked.describe()
    );
    let rehearsed = sandbox
        .mica([
            "volume",
            "prune",
            "-f",
            "--dry-run",
            "--filter",
            "label!=keep",
        ])
        .ok()
        .stdout();
    let pruned = sandbox
        .mica(["volume", "prune", "-f", "--filter", "label!=keep"])
        .ok()
        .stdout();
    assert_eq!(
        pruned,
        format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 1.049MB\n")
    );
    assert_eq!(rehearsed, pruned.replace("reclaimed", "reclaimable"));
    let run = sandbox.mica(["system", "prune", "-f"]).ok();
    assert_eq!(run.stdout(), "Total reclaimed space: 0B\n");
    let run = sandbox
        .mica(["system", "prune", "--volumes", "--filter", "until=1h"])
        .code(1);
    assert!(
        run.stderr().contains("not supported with \"--volumes\""),
        "{}",
        run.describe()
    );
    let run = sandbox
        .mica(["system", "prune", "-f", "--volumes"])
        .ok()
        .stdout();
    assert_eq!(
        run,
        format!("Deleted Volumes:\n{labelled}\n\nTotal reclaimed space: 0B\n")
    );
    let run = sandbox.mica(["volume", "prune", "-af"]).ok().stdout();
    assert_eq!(
        run,
        "Deleted Volumes:\nhost\nnamed\n\nTotal reclaimed space: 0B\n"
    );
    assert_eq!(
        sandbox.mica(["volume", "ls", "-q"]).ok().stdout(),
        "brief\n"
    );
    assert!(source.is_dir());
}

#[test]
fn hold_becomes_the_command() {
    let sandbox = Sandbox::new();
    sandbox.mica(["volume", "create", "data"]).ok();
    sandbox
        .mica(["volume", "create", "--ephemeral", "brief"])
        .ok();
    let run = sandbox
        .mica([
            "hold",
            "data",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 3",
        ])
        .code(3);
    assert_eq!(
        (run.stdout().as_str(), run.stderr().as_str()),
        ("out\n", "err\n")
    );
    sandbox.mica(["hold", "data", "--", "/none/such"]).code(127);
    sandbox.mica(["hold", "data", "--", "/etc"]).code(126);
    let run = sandbox.mica(["hold", "none", "--", "true"]).code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: get none: no such volume\n"
    );
    sandbox.mica(["hold", "data"]).code(1);

    // The command's children hold the lease on.
    let pid = sandbox.path("pid");
    let script = format!("sleep 100 >/dev/null 2>&1 & echo $! >{}", pid.display());
    sandbox
        .mica(["hold", "data", "brief", "--", "sh", "-c", &script])
        .ok();
    let child = fs::read_to_string(&pid).unwrap().trim().to_owned();
    let used = sandbox.mica(["volume", "rm", "data"]);
    let table = sandbox.mica(["users", "brief"]);
    thread::sleep(Duration::from_millis(2200));
    let listed = sandbox.mica(["volume", "ls", "-q"]);
    let kill = format!("kill -9 {child}");
    Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(
        used.stderr().contains("volume is in use"),
        "{}",
        used.describe()
    );
    assert!(table.ok().stdout().contains("lease"));
    assert_eq!(listed.ok().stdout(), "brief\ndata\n");

    // The lease is gone with the child; the ephemeral volume two seconds after somebody has seen that.
    while fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(
        sandbox.mica(["volume", "ls", "-q"]).ok().stdout(),
        "brief\ndata\n"
    );
    thread::sleep(Duration::from_millis(2100));
    assert_eq!(sandbox.mica(["volume", "ls", "-q"]).ok().stdout(), "data\n");
    sandbox.mica(["volume", "rm", "data"]).ok();
    assert_eq!(
        fs::read_dir(sandbox.store().join("volumes"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_dry_run_ends_no_volume() {
    let sandbox = Sandbox::new();
    sandbox
        .mica(["volume", "create", "--ephemeral", "brief"])
        .ok();
    // Made long ago, and never used.
    let list = sandbox.store().join("volumes.json");
    let mut volumes: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    volumes["volumes"][0]["since"] = "2020-01-01T00:00:00Z".into();
    fs::write(&list, volumes.to_string()).unwrap();
    for line in [
        "gc --dry-run",
        "volume prune -a -f --dry-run",
        "system prune --volumes -f --dry-run",
    ] {
        sandbox.mica(line.split(' ')).ok();
        let now: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
        assert_eq!(now, volumes, "{line}");
    }
    sandbox.mica(["volume", "prune", "-f"]).ok();
    assert_eq!(sandbox.mica(["volume", "ls", "-q"]).ok().stdout(), "");
}

#[test]
fn a_damaged_list_of_volumes_stops_writing() {
    let sandbox = Sandbox::new();
    sandbox.mica(["volume", "create", "data"]).ok();
    let data = data(&sandbox, "data");
    fs::write(format!("{data}/f"), "precious").unwrap();
    let list = sandbox.store().join("volumes.json");
    let good = fs::read_to_string(&list).unwrap();
    for damaged in [
        "",
        "{\"format\": 1, \"volumes\": [{",
        "{\"format\": 9, \"volumes\": []}",
    ] {
        fs::write(&list, damaged).unwrap();
        for verb in [
            &["volume", "ls"][..],
            &["volume", "create", "more"],
            &["volume", "rm", "data"],
            &["volume", "prune", "-af"],
        ] {
            let run = sandbox.mica(verb).fails();
            assert!(
                run.stderr().contains("volumes.json is damaged"),
                "{}",
                run.describe()
            );
        }
        let check = sandbox.mica(["check"]).code(1);
        let text = check.stdout() + &check.stderr();
        assert!(
            text.contains("volumes.json is damaged") && text.contains("good copy"),
            "{text}"
        );
        // Images are not concerned.
        sandbox.mica(["images"]).ok();
        sandbox.mica(["gc"]).ok();
        assert_eq!(fs::read_to_string(&list).unwrap(), damaged);
    }
    fs::write(&list, good).unwrap();
    assert_eq!(sandbox.mica(["volume", "ls", "-q"]).ok().stdout(), "data\n");
    assert_eq!(fs::read_to_string(format!("{data}/f")).unwrap(), "precious");
}

/// The form of old tutorials, and docker's filter.
#[test]
fn regression_volumes_are_named_and_found_as_dockers_are() {
    let sandbox = Sandbox::new();
    let made = sandbox.mica(["volume", "create", "--name", "data"]).ok();
    assert_eq!(made.stdout(), "data\n");
    sandbox.mica(["volume", "create", "data2"]).ok();
    let found = |filter: &str| {
        let run = sandbox.mica(["volume", "ls", "-q", "-f", filter]);
        run.ok().stdout()
    };
    assert_eq!(found("name=data"), "data\ndata2\n");
    assert_eq!(found("name=^data$"), "data\n");
    let both = sandbox
        .mica(["volume", "create", "--name", "a", "b"])
        .code(1);
    assert!(
        both.stderr().contains("conflicting options"),
        "{}",
        both.describe()
    );
}
