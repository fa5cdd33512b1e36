use std::fs;

use crate::build::{build, build_text, cached, content, context, listing};
use crate::running::{sandbox, shown};

/// A build gives its image the names asked for when all of it is done; one that fails gives none, and leaves the last good step's image without a name.
#[test]
fn root_a_build_names_its_image_at_the_end() {
    let s = sandbox();
    let good = "FROM app:1\nRUN echo one > /one\n";
    build_text(&s, good, &["-t", "b:1"]).ok();
    assert_eq!(content(&s, "b:1", "/one"), "one\n");
    let bad = format!("{good}RUN echo two > /two\nRUN false\n");
    build_text(&s, &bad, &["-t", "b:1"]).fails();
    let names = shown(&s, "images -q b:1");
    assert_eq!(names.lines().count(), 1);
    let left_over = shown(&s, "images -q -f dangling=true");
    assert_eq!(content(&s, left_over.trim(), "/two"), "two\n");
    assert!(content(&s, "b:1", "/one") == "one\n");
}

/// The exit status of a build is that of the command that failed; docker's text names the command and the status.
#[test]
fn root_a_builds_status_is_its_commands() {
    let s = sandbox();
    let run = build_text(&s, "FROM app:1\nRUN exit 42\n", &[]).code(42);
    let text = "The command '/bin/sh -c exit 42' returned a non-zero code: 42";
    assert!(run.stderr().contains(text), "{}", run.describe());
}

/// A step is done again if its instruction, what is below it, or the names, modes, owners and content of what it copies have changed, and not if only times have.
#[test]
fn root_a_step_is_done_again_if_it_would_be_another() {
    let s = sandbox();
    let root = context(
        &s,
        "c",
        &[
            ("Dockerfile", "FROM app:1\nCOPY f /f\nRUN cat /f > /g\n"),
            ("f", "1"),
        ],
    );
    build(&s, "c", &[]).ok();
    let set = |seconds| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let file = fs::File::options()
            .append(true)
            .open(root.join("f"))
            .unwrap();
        file.set_modified(time).unwrap();
    };
    set(1000);
    assert_eq!(cached(&build(&s, "c", &[]).ok()), 2);
    fs::write(root.join("f"), "2").unwrap();
    set(1000);
    assert_eq!(cached(&build(&s, "c", &[]).ok()), 0);
}

/// The cache of builds is no image: images, rmi and pruning of images do not show or take it, and an image that was loaded makes no hit unless --cache-from names it.
#[test]
fn root_the_cache_of_builds_is_no_image() {
    let s = sandbox();
    context(
        &s,
        "c",
        &[("Dockerfile", "FROM app:1\nRUN echo one > /one\n")],
    );
    build(&s, "c", &["-t", "b:1"]).ok();
    assert_eq!(shown(&s, "images -aq").lines().count(), 2);
    let tar = s.path("b.tar").display().to_string();
    shown(&s, &format!("save -o {tar} b:1"));
    shown(&s, "rmi b:1");
    shown(&s, "image prune -af");
    s.load(&crate::running::image("app:1"));
    assert_eq!(cached(&build(&s, "c", &[]).ok()), 1);
    shown(&s, "builder prune -af");
    shown(&s, &format!("load -i {tar}"));
    assert_eq!(cached(&build(&s, "c", &["-t", "c:1"]).ok()), 0);
    shown(&s, "builder prune -af");
    let named = build(&s, "c", &["-t", "d:1", "--cache-from", "b:1"]).ok();
    assert_eq!(cached(&named), 1);
}

/// COPY puts nothing outside the image and takes nothing from outside the context, whatever links there are in either.
#[test]
fn root_a_copy_stays_inside() {
    let s = sandbox();
    let victim = s.mkdir("victim");
    fs::write(victim.join("secret"), "SECRET").unwrap();
    let path = victim.display().to_string();
    s.load(&crate::running::image("evil:1").layer(|l| l.symlink("out", &path)));
    let root = context(
        &s,
        "c",
        &[
            (
                "Dockerfile",
                "FROM evil:1\nCOPY f /out/f\nCOPY link /link\n",
            ),
            ("f", "f"),
        ],
    );
    std::os::unix::fs::symlink(victim.join("secret"), root.join("link")).unwrap();
    build(&s, "c", &["-t", "b:1"]).ok();
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    s.sh("! grep -rl SECRET \"$MICA_STORE\"").ok();
}

/// A file of a context belongs to root in the image unless --chown says otherwise; of another stage or image it keeps its owner.
#[test]
fn root_copies_belong_to_root() {
    let s = sandbox();
    let file = "FROM app:1 AS a\nRUN echo x > /x; chown 5:6 /x\nFROM app:1\nCOPY f /f\nCOPY --chown=7:8 f /g\nCOPY --from=a /x /x\n";
    let root = context(&s, "c", &[("Dockerfile", file), ("f", "f")]);
    std::os::unix::fs::chown(root.join("f"), Some(33), Some(44)).unwrap();
    build(&s, "c", &["-t", "b:1"]).ok();
    let all = listing(&s, "b:1", "");
    for line in [
        "-rw-r--r-- 0/0 1 f",
        "-rw-r--r-- 7/8 1 g",
        "-rw-r--r-- 5/6 2 x",
    ] {
        assert!(all.iter().any(|have| have == line), "{line}\n{all:#?}");
    }
}

/// What is mounted for a RUN, and what had to be made to mount it on, is in no layer; a secret is in no layer, no history and no configuration.
#[test]
fn root_mounts_of_a_step_are_in_no_layer() {
    let s = sandbox();
    fs::write(s.path("token"), "tOp9sEcReT").unwrap();
    let file = "FROM app:1\nRUN --mount=type=secret,id=t --mount=type=tmpfs,target=/opt/x --mount=type=cache,target=/srv/y test -s /run/secrets/t && touch /opt/x/a /srv/y/b /done\n";
    let secret = format!("id=t,src={}", s.path("token").display());
    build_text(&s, file, &["-t", "b:1", "--secret", &secret]).ok();
    let all = listing(&s, "b:1", "").join("\n");
    assert!(all.contains(" done"));
    for path in [" opt", " srv", " run"] {
        assert!(!all.contains(path), "{path}\n{all}");
    }
    s.sh("! grep -rl tOp9sEcReT \"$MICA_STORE\"").ok();
}

/// The same Dockerfile and context with the same SOURCE_DATE_EPOCH make the same image.
#[test]
fn root_builds_can_be_reproduced() {
    let file = "FROM app:1\nRUN echo x > /x\nCOPY f /f\nENV A=1\n";
    let mut ids = Vec::new();
    for _ in 0..2 {
        let s = sandbox();
        context(&s, "c", &[("Dockerfile", file), ("f", "f")]);
        let mut command = s.command();
        command.args(["build", "-q"]).arg(s.path("c"));
        command.env("SOURCE_DATE_EPOCH", "1000000000");
        ids.push(s.run(command).ok().stdout());
    }
    assert_eq!(ids[0], ids[1]);
}
