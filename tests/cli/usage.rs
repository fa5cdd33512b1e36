use super::{Sandbox, store};

#[test]
fn help_works_on_every_verb() {
    let sandbox = Sandbox::new();
    let verbs = [
        "images", "tag", "rmi", "inspect", "history", "gc", "check", "load", "mount", "umount",
        "image", "system",
    ];
    let top = sandbox.mica(["-h"]).ok().stdout();
    for verb in verbs {
        assert!(
            top.contains(&format!("\n  {verb} ")),
            "{verb} is not in:\n{top}"
        );
        let help = sandbox.mica([verb, "-h"]).ok();
        assert!(
            help.stdout().contains(&format!("Usage: mica {verb}")),
            "{}",
            help.describe()
        );
        assert_eq!(help.stderr(), "");
    }
    for verb in [
        "ls", "tag", "rm", "inspect", "history", "prune", "load", "save",
    ] {
        sandbox.mica(["image", verb, "-h"]).ok();
    }
    for verb in ["df", "prune"] {
        sandbox.mica(["system", verb, "-h"]).ok();
    }
    // With a value it is the host name, as docker's.
    for words in [
        &["run", "-h"][..],
        &["container", "run", "-h"],
        &["run", "--rm", "-h"],
    ] {
        let help = sandbox.mica(words).ok().stdout();
        assert!(
            help.contains("run [OPTIONS] <IMAGE>") && help.contains("--hostname"),
            "{help}"
        );
    }
    assert!(
        sandbox
            .mica(["--version"])
            .ok()
            .stdout()
            .starts_with("mica ")
    );
    assert!(!sandbox.store().exists());
}

/// docker 28's statuses: 1 for a verb that is unknown or has the wrong number of arguments, 125 for a flag.
#[test]
fn wrong_usage_has_dockers_status() {
    let sandbox = Sandbox::new();
    let table: [(&[&str], i32); 14] = [
        (&["run"], 1),
        (&["container", "run", "--rm"], 1),
        (&["create"], 1),
        (&["run", "--name"], 125),
        (&["nonsense"], 1),
        (&["rmi"], 1),
        (&["tag", "a"], 1),
        (&["inspect"], 1),
        (&["history", "a", "b"], 1),
        (&["image", "nonsense"], 1),
        (&["images", "--nonsense"], 125),
        (&["images", "--all-rows"], 1),
        (&["run", "--pull", "x", "y"], 125),
        (&["image", "prune", "--keep", "x"], 125),
    ];
    for (args, code) in table {
        let run = sandbox.mica(args).code(code);
        assert_eq!(run.stdout(), "", "{args:?}");
        let said = run.stderr();
        let help = format!(
            "Run 'mica{} --help' for more information",
            if args[0] == "nonsense" { "" } else { " " }
        );
        assert!(
            said.starts_with("mica: ")
                && said.contains(help.split("--help").next().unwrap_or_default().trim_end()),
            "{args:?}: {said}"
        );
    }
    assert_eq!(
        sandbox.mica(["nonsense"]).code(1).stderr(),
        "mica: unknown command: mica nonsense\n\nRun 'mica --help' for more information\n"
    );
    assert_eq!(
        sandbox.mica(["image", "nonsense"]).code(1).stderr(),
        "mica: unknown command: mica image nonsense\n\nRun 'mica image --help' for more information\n"
    );
    // As docker's client: who says nothing gets the help.
    let bare = sandbox.mica::<&str>([]).ok();
    assert_eq!(bare.stdout(), sandbox.mica(["--help"]).ok().stdout());
    assert_eq!(bare.stderr(), "");
}

/// What docker has and mica has not is said in one line, and never with another verb's name.
#[test]
fn regression_what_is_not_there_says_why() {
    let sandbox = Sandbox::new();
    for verb in [
        "search",
        "compose",
        "stack",
        "buildx",
        "network",
        "plugin",
        "swarm",
        "secret",
        "config",
        "node",
        "service",
        "context",
        "manifest",
        "scan",
        "stats",
        "update",
        "checkpoint",
        "trust",
    ] {
        let said = sandbox.mica([verb, "x"]).code(1).stderr();
        assert!(
            said.starts_with(&format!("mica: there is no {verb} here: "))
                && said.lines().count() == 1,
            "{said}"
        );
    }
    for verb in ["stats", "update"] {
        let said = sandbox.mica(["container", verb, "x"]).code(1).stderr();
        assert!(
            said.starts_with(&format!("mica: there is no {verb} here: ")),
            "{said}"
        );
    }
    for typo in ["pus", "stp", "tras", "scann", "lst", "rmm", "sart"] {
        let said = sandbox.mica([typo]).code(1).stderr();
        assert!(!said.contains("similar"), "{said}");
    }
    let flags = [
        "-m 512m",
        "-m512m",
        "--memory=1g",
        "--cpus 2",
        "--gpus all",
        "--device /dev/kvm",
        "--dns 1.1.1.1",
        "--pid host",
        "--ipc=host",
        "--userns=host",
        "--log-driver none",
        "--health-cmd true",
        "--link a",
        "--restart always",
        "--restart=on-failure:3",
        "-p 8080:80",
        "--stop-timeout 5",
        "--disable-content-trust=false",
    ];
    for flag in flags {
        let line = format!("run {flag} app:1 true");
        let run = sandbox.mica(line.split(' ')).code(125);
        let said = run.stderr();
        let name = flag.split([' ', '=']).next().unwrap_or_default();
        let name = if name == "-m512m" { "-m" } else { name };
        assert!(
            said.starts_with(&format!("mica: {name}")) && said.lines().count() == 1,
            "{said}"
        );
        assert!(!said.contains("unknown"), "{said}");
        let (_, instead) = said
            .split_once(": ")
            .and_then(|(_, why)| why.split_once(": "))
            .unwrap_or_default();
        assert!(
            !instead.is_empty() || said.contains("namespaces of its own"),
            "{said}"
        );
        if flag.starts_with("-m") || flag.contains("cpus") || flag.contains("gpus") {
            assert!(said.contains("podman"), "{said}");
        }
    }
    let said = sandbox
        .mica(["run", "--restart", "foo", "x"])
        .code(125)
        .stderr();
    assert_eq!(
        said,
        "mica: invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'\n"
    );
}

#[test]
fn a_missing_store_is_named() {
    let sandbox = Sandbox::new();
    let path = sandbox.store().display().to_string();
    for args in [
        vec!["rmi", "x"],
        vec!["inspect", "x"],
        vec!["tag", "x", "y"],
        vec!["gc"],
        vec!["check"],
        vec!["history", "x"],
    ] {
        let run = sandbox.mica(&args).code(1);
        assert_eq!(
            run.stderr(),
            format!("mica: {path} is not a mica store\n"),
            "{args:?}"
        );
    }
    assert!(!sandbox.store().exists());
}

#[test]
fn the_store_option_wins_over_the_environment() {
    let sandbox = store(&["app:1"]);
    let other = sandbox.path("other").display().to_string();
    let header = "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n";
    assert_eq!(
        sandbox.mica(["--store", &other, "images"]).ok().stdout(),
        header
    );
    assert_eq!(
        sandbox.mica(["images", "--store", &other]).ok().stdout(),
        header
    );
    assert_ne!(sandbox.mica(["images"]).ok().stdout(), header);
}
