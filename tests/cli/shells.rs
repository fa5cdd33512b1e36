use std::process::Command;

use super::{Sandbox, store};

/// What a shell would offer after these words, the last of which is being typed.
fn offered(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let mut command: Command = sandbox.command();
    let index = (words.len() - 1).to_string();
    command
        .env("MICA_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", index);
    command
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_COMP_TYPE", "9");
    command.arg("--").args(words);
    let run = sandbox.run(command).ok();
    run.stdout().lines().map(str::to_owned).collect()
}

#[test]
fn names_of_images_are_completed_from_the_store() {
    let sandbox = store(&["app:1", "other:1"]);
    sandbox.mica(["tag", "app:1", "app:latest"]).ok();
    assert_eq!(
        offered(&sandbox, &["mica", "rmi", "app"]),
        ["app:1", "app:latest"]
    );
    assert_eq!(
        offered(&sandbox, &["mica", "image", "inspect", "ot"]),
        ["other:1"]
    );
    sandbox.mica(["rmi", "app:latest"]).ok();
    assert_eq!(offered(&sandbox, &["mica", "history", "app"]), ["app:1"]);
    let verbs = offered(&sandbox, &["mica", "i"]);
    for verb in ["images", "inspect", "image"] {
        assert!(verbs.contains(&verb.to_owned()), "{verbs:?}");
    }
    let empty = Sandbox::new();
    assert!(!offered(&empty, &["mica", "rmi", "a"]).contains(&"app:1".to_owned()));
    assert!(!empty.store().exists());
}

#[test]
fn every_shell_has_a_script() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.mica(["completion", shell]).ok().stdout();
        assert!(
            script.contains("MICA_COMPLETE") && script.contains("mica"),
            "{script}"
        );
        // Not a path of the machine it was made on.
        assert!(!script.contains(env!("CARGO_MANIFEST_DIR")), "{script}");
    }
    sandbox
        .sh(&format!(
            "{} completion bash | bash -n",
            env!("CARGO_BIN_EXE_mica")
        ))
        .ok();
    sandbox.mica(["completion", "csh"]).code(125);
}

#[test]
fn every_verb_has_a_page() {
    let sandbox = Sandbox::new();
    sandbox.mica(["man", "man"]).ok();
    let one = sandbox.path("man/man1");
    let help = sandbox.mica(["-h"]).ok().stdout();
    let verbs = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next());
    let verbs: Vec<&str> = verbs.filter(|verb| *verb != "help").collect();
    assert!(verbs.len() > 12, "{help}");
    for verb in verbs {
        let page = one.join(format!("mica-{verb}.1"));
        let text =
            std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        assert!(text.contains(".SH SYNOPSIS"), "{text}");
    }
    for page in ["mica.1", "mica-image-ls.1", "mica-system-df.1"] {
        assert!(one.join(page).is_file(), "{page}");
    }
    let tree = std::fs::read_to_string(sandbox.path("man/man7/mica-fs.7")).expect("mica-fs.7");
    assert!(
        tree.contains(".SH REMOVING\n.IP \\(bu 2\n\\fBrmdir\\fR"),
        "{tree}"
    );
}
