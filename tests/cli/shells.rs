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
        .skip(2)
        .take_while(|line| *line != "Options:")
        // Of a description that is folded the second line stands further in.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    let verbs: Vec<&str> = verbs.filter(|verb| *verb != "help").collect();
    assert!(verbs.len() > 50, "{help}");
    for title in ["Get and send images:", "Run containers:", "More:"] {
        assert!(help.contains(&format!("\n{title}\n")), "{help}");
    }
    for verb in verbs {
        let page = one.join(format!("mica-{verb}.1"));
        let text =
            std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        for section in [".SH SYNOPSIS", ".SH EXAMPLES", ".SH \"SEE ALSO\""] {
            assert!(text.contains(section), "{text}");
        }
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

/// What bash offers at the end of a line, by the script that `make install` brings.
fn bash(sandbox: &Sandbox, line: &str) -> Vec<String> {
    let mica = std::path::Path::new(env!("CARGO_BIN_EXE_mica"));
    let dir = mica.parent().expect("a directory").display();
    let script = format!(
        "PATH={dir}:$PATH; . ./mica.bash; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9\n\
         _mica; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    std::fs::write(
        sandbox.path("mica.bash"),
        sandbox.mica(["completion", "bash"]).ok().stdout,
    )
    .expect("write");
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(sandbox.dir());
    command.env("MICA_STORE", sandbox.store());
    let text = sandbox.run(command).ok().stdout();
    text.lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn regression_bash_completes_across_colons() {
    let sandbox = store(&[
        "sample:1.0",
        "sample:2",
        "registry.example.com:5000/team/app:1",
        "debian:bookworm",
    ]);
    sandbox.mica(["volume", "create", "data"]).ok();
    let table: [(&str, &[&str]); 11] = [
        ("mica rmi sam", &["sample:1.0", "sample:2"]),
        // bash takes what stands before the colon for a word of its own.
        ("mica rmi sample:", &["1.0", "2"]),
        ("mica rmi sample:1", &["1.0"]),
        ("mica rmi debian:bo", &["bookworm"]),
        ("mica rmi registry.example.com:", &["5000/team/app:1"]),
        ("mica rmi registry.example.com:5000/team/app:", &["1"]),
        ("docker rmi sample:2", &["2"]),
        ("mica run -v da", &["data"]),
        ("mica images --filter dang", &["dangling=true"]),
        ("mica run sample:2 ", &[]),
        ("mica run --rm sample:2 ls sam", &[]),
    ];
    for (line, expected) in table {
        assert_eq!(bash(&sandbox, line), expected, "{line}");
    }
    // At a prompt, with readline itself: the only tag that fits is put in whole.
    std::fs::write(
        sandbox.path("keys"),
        format!(
            "PATH={}:$PATH\n. ./mica.bash\nmica tag debian:bo\t done:1\nexit\n",
            std::path::Path::new(env!("CARGO_BIN_EXE_mica"))
                .parent()
                .expect("a directory")
                .display()
        ),
    )
    .expect("write");
    sandbox.sh("script -qec 'bash --norc --noprofile -i' /dev/null <keys >/dev/null 2>&1 || true");
    let tags = sandbox
        .mica(["images", "--format", "{{.Repository}}:{{.Tag}}", "done"])
        .ok()
        .stdout();
    assert_eq!(tags, "done:1\n");
}

#[test]
fn regression_containers_filters_and_the_trash_are_completed() {
    let sandbox = store(&["app:1", "old:1"]);
    crate::cli::histories::stopped_container(&sandbox, "web", "app:1");
    sandbox.mica(["rmi", "--trash", "1h", "old:1"]).ok();
    for words in [
        &["mica", "rm", "w"][..],
        &["mica", "start", "w"],
        &["mica", "logs", "w"],
        &["mica", "exec", "w"],
        &["mica", "stop", "w"],
        &["mica", "kill", "w"],
        &["mica", "wait", "w"],
        &["mica", "commit", "w"],
        &["mica", "diff", "w"],
        &["mica", "rename", "w"],
        &["mica", "restart", "w"],
        &["mica", "top", "w"],
        &["mica", "inspect", "w"],
        &["mica", "container", "rm", "w"],
    ] {
        assert_eq!(offered(&sandbox, words), ["web"], "{words:?}");
    }
    assert_eq!(offered(&sandbox, &["mica", "restore", "o"]), ["old:1"]);
    for verb in ["push", "save", "tag", "run", "create", "bundle"] {
        assert_eq!(
            offered(&sandbox, &["mica", verb, "ap"]),
            ["app:1"],
            "{verb}"
        );
    }
    for (typed, found) in [("ap", "app:1"), ("w", "web")] {
        assert_eq!(offered(&sandbox, &["mica", "export", typed]), [found]);
    }
    let mut filters = offered(&sandbox, &["mica", "rmi", "--filter", "l"]);
    filters.sort();
    assert_eq!(filters, ["label!=", "label="]);
    // Each of the other verbs that have it takes what it is offered.
    for (verb, count) in [
        ("images", 8),
        ("ps", 12),
        ("events --until 1h", 9),
        ("volume ls", 7),
        ("volume prune --dry-run", 3),
        ("container prune --dry-run", 3),
    ] {
        let mut words = vec!["mica"];
        words.extend(verb.split(' '));
        words.push("--filter");
        let all = offered(&sandbox, &[&words[..], &[""]].concat());
        assert_eq!(all.len(), count, "{verb}: {all:?}");
        for filter in all {
            let filter = match filter.split_once('=') {
                Some(("exited", "")) => "exited=0".to_owned(),
                Some(("before" | "since", "")) if verb == "ps" => format!("{filter}web"),
                Some(("before" | "since", "")) => format!("{filter}app:1"),
                Some(("until" | "used", "")) => format!("{filter}1h"),
                Some((_, "")) => format!("{filter}x"),
                _ => filter,
            };
            sandbox
                .mica(words[1..].iter().copied().chain([filter.as_str()]))
                .ok();
        }
    }
    let id = &crate::cli::image("app:1").id()["sha256:".len()..];
    assert!(offered(&sandbox, &["mica", "history", &id[..3]]).contains(&id[..12].to_owned()));
    for words in [
        &["mica", "exec", "web", ""][..],
        &["mica", "run", "-i", "app:1", "-"],
        &["mica", "create", "app:1", "a"],
    ] {
        assert_eq!(offered(&sandbox, words), Vec::<String>::new(), "{words:?}");
    }
    assert!(offered(&sandbox, &["mica", "run", "--rm", "--na"]).contains(&"--name".to_owned()));
}

/// At a terminal only: scripts see tables and findings alone.
#[test]
fn regression_a_terminal_is_told_what_an_empty_answer_means() {
    let mica = env!("CARGO_BIN_EXE_mica");
    let sandbox = Sandbox::new();
    let terminal = |line: &str| {
        let run = sandbox.sh(&format!("script -qec '{mica} {line}' /dev/null </dev/null"));
        run.ok().stdout().replace('\r', "")
    };
    let hint = format!(
        "mica: there is no store at {} yet; MICA_STORE or --store choose another\n",
        sandbox.store().display()
    );
    for verb in ["images", "ps"] {
        assert!(terminal(verb).starts_with(&hint), "{}", terminal(verb));
        assert_eq!(sandbox.mica([verb]).ok().stderr(), "");
    }
    sandbox.load(&crate::cli::image("app:1"));
    assert!(!terminal("images").contains("no store"));
    assert!(
        terminal("check").starts_with("verified: 1 image and 2 layers"),
        "{}",
        terminal("check")
    );
    assert_eq!(sandbox.mica(["check"]).ok().stdout(), "");
}

#[test]
fn regression_a_toolchain_that_is_missing_or_too_old_is_named() {
    let sandbox = Sandbox::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/toolchain");
    let cargo = |version: &str| {
        let path = sandbox.path("cargo");
        std::fs::write(
            &path,
            format!("#!/bin/sh\necho cargo {version} '(abc 2026-01-01)'\n"),
        )
        .expect("write");
        sandbox.sh("chmod +x cargo").ok();
        sandbox.sh(&format!("{script} {}", path.display()))
    };
    for good in ["1.88.0", "1.100.1", "2.0.0"] {
        cargo(good).ok();
    }
    for old in ["0.66.0", "1.63.0", "1.9.0"] {
        let said = cargo(old).code(1).stderr();
        let short = old.rsplit_once('.').expect("a dot").0;
        assert!(
            said.contains(&format!("is of Rust {short}, which is too old"))
                && said.contains("rustup"),
            "{said}"
        );
    }
    let missing = sandbox
        .sh(&format!("{script} /no/such/cargo"))
        .code(1)
        .stderr();
    assert!(missing.contains("/no/such/cargo is missing"), "{missing}");
    // Before anything else is done.
    let here = env!("CARGO_MANIFEST_DIR");
    for goal in ["run", "test", "test-fast"] {
        let make = format!("env -u MAKEFLAGS make -C {here} {goal} CARGO=/no/such/cargo");
        let run = sandbox.sh(&make).fails();
        assert!(
            run.stderr().contains("/no/such/cargo is missing"),
            "{}",
            run.describe()
        );
        assert!(!run.stdout().contains("install"), "{}", run.describe());
    }
    let readme = include_str!("../../README.md");
    let (before, _) = readme.split_once("make run ").expect("the commands");
    for said in [
        "`apt install make`",
        "Rust 1.88 or newer (rustup",
        "Debian's own is 1.63 and cannot build it",
    ] {
        assert!(before.contains(said), "{said}");
    }
}

/// The shells themselves, as somebody has them who has typed `make install`: bash with its package for completion, which loads the
/// script when it is first needed; zsh, which finds it in its function path; fish.
#[test]
fn regression_the_shells_themselves_complete() {
    let sandbox = store(&["debian:bookworm"]);
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_mica"));
    let bin = bin.parent().expect("a directory").display();
    for (shell, file) in [
        ("bash", "bash/completions/mica"),
        ("zsh", "zsh/_mica"),
        ("fish", "fish/mica.fish"),
    ] {
        let file = sandbox.path(file);
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("mkdir");
        let script = sandbox.mica(["completion", shell]).ok();
        std::fs::write(file, script.stdout).expect("write");
    }
    // The lines for the alias are those that the help says.
    let help = sandbox.mica(["completion", "--help"]).ok().stdout();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (shell, start, alias) in [
        (
            "bash --norc --noprofile -i",
            "BASH_COMPLETION_USER_DIR=$PWD/bash; . /usr/share/bash-completion/bash_completion; . $PWD/bash/completions/mica",
            "complete -o nospace -o bashdefault -F _mica docker",
        ),
        (
            "zsh -f -i",
            "fpath=($PWD/zsh $fpath); autoload -U compinit; compinit -u -D",
            "compdef docker=mica",
        ),
        (
            "fish --no-config -i",
            "source $PWD/fish/mica.fish",
            "complete -c docker -w mica",
        ),
    ] {
        assert!(help.contains(alias), "{help}");
        let name = shell.split(' ').next().expect("a word");
        // The only tag that fits is put in whole, at the first key.
        let keys = format!(
            "cd {}\n{start}\nmica tag debian:bo\t {name}done:1\nalias docker=mica; {alias}\ndocker tag debian:bo\t {name}alias:1\nexit\n",
            sandbox.dir().display()
        );
        std::fs::write(sandbox.path("keys"), keys).expect("write");
        let run = sandbox.sh(&format!(
            "PATH={bin}:$PATH TERM=xterm timeout 60 script -qec '{shell}' /dev/null <keys 2>&1 || true"
        ));
        for tag in ["done", "alias"] {
            let tags = sandbox.mica(["images", "-q", &format!("{name}{tag}:1")]);
            let found = tags.ok().stdout().lines().count();
            assert_eq!(found, 1, "{name} {tag}: {}", run.describe());
        }
    }
}

/// What moves fits the terminal; and what is said of an error is said without a library's word for it.
#[test]
fn regression_net_progress_fits_narrow_terminals() {
    let sandbox = Sandbox::new();
    let registry =
        crate::common::registry::Registry::start(&sandbox, crate::common::registry::Kind::Plain);
    let large = crate::common::image::ImageBuilder::new("large:1")
        .layer(|l| l.file("big", vec![b'x'; 120_000_000]));
    large.docker_archive(&sandbox.path("large.tar"));
    let name = registry.name("some/large:1");
    let mica = env!("CARGO_BIN_EXE_mica");
    for columns in [80, 40] {
        for line in [
            "load -i large.tar".to_owned(),
            format!("tag large:1 {name}"),
            format!("push {name}"),
            "rmi -f large:1".to_owned(),
            format!("rmi {name}"),
            format!("pull {name}"),
            format!("rmi {name}"),
        ] {
            let run = sandbox.sh(&format!(
                "script -qec 'stty cols {columns}; {mica} {line}' /dev/null </dev/null"
            ));
            let text = run.ok().stdout();
            // Cursor movements and colours take no room.
            let mut shown = String::new();
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once('\u{1b}') {
                shown.push_str(before);
                let end = after.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
                shown.push('\r');
                rest = after.get(end + 1..).unwrap_or_default();
            }
            shown.push_str(rest);
            let moving = shown
                .split(['\r', '\n'])
                .filter(|piece| piece.contains("MB"));
            for piece in moving {
                let length = piece.trim_end().chars().count();
                assert!(length <= columns, "{line}: {length} > {columns}: {piece:?}");
            }
        }
    }
    let run = sandbox
        .mica(["pull", "--retry-for", "0", "127.0.0.1:1/none:1"])
        .fails();
    assert!(!run.stderr().contains("io: "), "{}", run.describe());
}

#[test]
fn fuse_regression_umount_offers_what_is_mounted() {
    let sandbox = store(&["app:1"]);
    let mount = sandbox.mount();
    let point = mount.path("").display().to_string();
    let point = point.trim_end_matches('/');
    let typed = &point[..point.len() - 1];
    assert_eq!(offered(&sandbox, &["mica", "umount", typed]), [point]);
    mount.unmount();
    assert!(!offered(&sandbox, &["mica", "umount", typed]).contains(&point.to_owned()));
}
