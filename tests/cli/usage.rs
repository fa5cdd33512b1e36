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
    assert!(
        sandbox
            .mica(["--version"])
            .ok()
            .stdout()
            .starts_with("mica ")
    );
    assert!(!sandbox.store().exists());
}

#[test]
fn wrong_usage_is_status_2() {
    let sandbox = Sandbox::new();
    let table: [&[&str]; 8] = [
        &[],
        &["nonsense"],
        &["rmi"],
        &["tag", "a"],
        &["inspect"],
        &["history", "a", "b"],
        &["images", "--nonsense"],
        &["images", "--all-rows"],
    ];
    for args in table {
        let run = sandbox.mica(args).code(2);
        assert_eq!(run.stdout(), "", "{args:?}");
        assert!(!run.stderr().is_empty(), "{args:?}");
    }
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
