use crate::common::image::ImageBuilder;

use super::{Sandbox, chains, image, short, sleeper, store};

/// Files below `blobs/`.
fn blobs(sandbox: &Sandbox) -> usize {
    let files = sandbox.store_files();
    files
        .iter()
        .filter(|(path, _)| path.to_string_lossy().contains("/blobs/"))
        .count()
}

#[test]
fn rmi_prints_what_docker_prints() {
    let sandbox = store(&["app:1", "other:1"]);
    sandbox.mica(["tag", "app:1", "app:alias"]).ok();
    let (app, other) = (image("app:1"), image("other:1"));
    let run = sandbox.mica(["rmi", "app:alias"]).ok();
    assert_eq!(run.stdout(), "Untagged: app:alias\n");
    // The lowest layer is the other image's too.
    let run = sandbox.mica(["rmi", "app:1"]).ok();
    assert_eq!(
        run.stdout(),
        format!(
            "Untagged: app:1\nDeleted: {}\nDeleted: {}\n",
            app.id(),
            chains(&app)[0]
        )
    );
    let run = sandbox.mica(["rmi", "other:1"]).ok();
    let [top, bottom] = &chains(&other)[..] else {
        panic!("two layers");
    };
    assert_eq!(
        run.stdout(),
        format!(
            "Untagged: other:1\nDeleted: {}\nDeleted: {top}\nDeleted: {bottom}\n",
            other.id()
        )
    );
    assert_eq!(blobs(&sandbox), 0);
    assert_eq!(
        sandbox.mica(["gc"]).ok().stdout(),
        "Total reclaimed space: 0B\n"
    );
}

#[test]
fn rmi_goes_on_after_an_error() {
    let sandbox = store(&["app:1"]);
    let missing = "Error response from daemon: No such image: x:latest\n";
    let run = sandbox.mica(["rmi", "x", "app:1", "x"]).code(1);
    assert!(
        run.stdout()
            .starts_with("Untagged: app:1\nDeleted: sha256:"),
        "{}",
        run.describe()
    );
    assert_eq!(run.stderr(), format!("{missing}{missing}"));
    let run = sandbox.mica(["rmi", "-f", "x"]).ok();
    assert_eq!(
        (run.stdout().as_str(), run.stderr().as_str()),
        ("", missing)
    );
}

#[test]
fn rmi_by_id() {
    let sandbox = store(&["app:1"]);
    let id = image("app:1").id();
    sandbox.mica(["tag", "app:1", "org/other:1"]).ok();
    // The beginning of an ID is docker's; whole, or as `images -q` prints it, it means the image.
    let run = sandbox.mica(["rmi", &short(&id)[..4]]).code(1);
    assert_eq!(
        run.stderr(),
        format!(
            "Error response from daemon: conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories\n",
            short(&id)
        )
    );
    for text in [&id, &id.replace("sha256:", ""), &short(&id)] {
        let run = sandbox.mica(["rmi", "--dry-run", text]).ok();
        let all = format!("Untagged: app:1\nUntagged: org/other:1\nDeleted: {id}\n");
        assert!(run.stdout().starts_with(&all), "{}", run.stdout());
    }
    let run = sandbox.mica(["rmi", "-f", &short(&id)]).ok();
    assert!(
        run.stdout().starts_with(&format!(
            "Untagged: app:1\nUntagged: org/other:1\nDeleted: {id}\n"
        )),
        "{}",
        run.stdout()
    );
    assert_eq!(blobs(&sandbox), 0);

    sandbox.load(&image("app:1"));
    let run = sandbox.mica(["image", "rm", &short(&id)]).ok();
    assert!(
        run.stdout()
            .starts_with(&format!("Untagged: app:1\nDeleted: {id}\n")),
        "{}",
        run.stdout()
    );
}

#[test]
fn rmi_takes_globs_and_rehearses() {
    let sandbox = store(&["app:1", "app:2", "other:1"]);
    let files = sandbox.store_files();
    let dry = sandbox
        .mica(["rmi", "--dry-run", "app:*", "other:1", "other:1"])
        .code(1);
    assert_eq!(
        dry.stderr(),
        "Error response from daemon: No such image: other:1\n"
    );
    assert_eq!(sandbox.store_files(), files);
    let run = sandbox.mica(["rmi", "app:*", "other:1"]).ok();
    let (lines, sum) = dry
        .stdout()
        .rsplit_once("Total reclaimable space: ")
        .map(|(l, s)| (l.to_owned(), s.to_owned()))
        .unwrap_or_default();
    assert_eq!(run.stdout(), lines);
    assert!(sum.trim().ends_with("kB"), "{sum}");
    assert_eq!(blobs(&sandbox), 0);
    let run = sandbox.mica(["rmi", "x*"]).code(1);
    assert_eq!(
        run.stderr(),
        "Error response from daemon: No such image: x*\n"
    );
}

#[test]
fn fuse_rmi_refuses_what_is_in_use() {
    let sandbox = store(&["app:1"]);
    let mount = sandbox.mount();
    let mut user = sleeper(&mount.image("app/1"));
    let id = short(&image("app:1").id());
    let who = format!("process {} (sleep)", user.id());
    let by_name = sandbox.mica(["rmi", "app:1"]);
    let by_id = sandbox.mica(["rmi", &id]);
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    let alias = sandbox.mica(["rmi", "app:2"]);
    let forced = sandbox.mica(["rmi", "-f", "app:1"]);
    user.kill().and_then(|()| user.wait()).expect("kill");
    assert_eq!(
        by_name.code(1).stderr(),
        format!(
            "Error response from daemon: conflict: unable to remove repository reference \"app:1\" (must force) - {who} is using its referenced image {id}\n"
        )
    );
    assert_eq!(
        by_id.code(1).stderr(),
        format!(
            "Error response from daemon: conflict: unable to delete {id} (must be forced) - image is being used by {who}\n"
        )
    );
    assert_eq!(alias.ok().stdout(), "Untagged: app:2\n");
    assert!(
        forced
            .ok()
            .stdout()
            .starts_with("Untagged: app:1\nDeleted: sha256:")
    );
    mount.unmount();
}

#[test]
fn regression_rmi_of_all_that_images_q_lists() {
    let sandbox = store(&["app:1", "web:1", "old:1"]);
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    sandbox.mica(["tag", "app:1", "localhost/app:1"]).ok();
    sandbox.mica(["tag", "web:1", "old:1"]).ok();
    let mica = env!("CARGO_BIN_EXE_mica");
    sandbox
        .sh(&format!("{mica} rmi $({mica} images app -q)"))
        .ok();
    assert_eq!(
        sandbox
            .mica(["images", "app"])
            .ok()
            .stdout()
            .lines()
            .count(),
        1
    );
    sandbox.sh(&format!("{mica} rmi $({mica} images -aq)")).ok();
    assert_eq!(sandbox.mica(["images", "-aq"]).ok().stdout(), "");
    // With docker's rows, which repeat an ID, what is gone is gone.
    sandbox.load(&image("app:1"));
    sandbox.mica(["pin", "app:1"]).ok();
    sandbox.mica(["tag", "app:1", "other/app:1"]).ok();
    let run = sandbox.sh(&format!("{mica} rmi $({mica} images -q)"));
    assert!(
        !run.status.success() && run.stderr().contains("pinned"),
        "{}",
        run.describe()
    );
    assert_eq!(sandbox.mica(["images"]).ok().stdout().lines().count(), 3);
}

/// A glob takes its names in one step, and the answer is as if they had gone one by one.
#[test]
fn regression_a_glob_removes_in_one_step_what_names_remove_one_by_one() {
    let ends: Vec<_> = [true, false]
        .into_iter()
        .map(|glob| {
            let sandbox = Sandbox::new();
            for (name, below) in [("app:1", "shared"), ("app:2", "shared"), ("app:3", "own")] {
                let image = ImageBuilder::new(name)
                    .layer(|l| l.file("below", below))
                    .layer(|l| l.file("above", name));
                sandbox.load(&image);
            }
            for n in 10..40 {
                sandbox.mica(["tag", "app:1", &format!("app:{n}")]).ok();
            }
            sandbox.mica(["tag", "app:2", "stays:1"]).ok();
            sandbox.mica(["tag", "app:3", "app:pinned"]).ok();
            sandbox.mica(["pin", "app:pinned"]).ok();
            let listed = sandbox.mica(["images", "-a", "--format", "{{.Repository}}:{{.Tag}}"]);
            let listed = listed.ok().stdout();
            let mut names: Vec<&str> = listed.lines().filter(|n| n.starts_with("app:")).collect();
            names.sort_unstable();
            let arguments = if glob { vec!["app:*"] } else { names };
            let dry = sandbox
                .mica([&["rmi", "--dry-run"], &arguments[..]].concat())
                .fails();
            let run = sandbox.mica([&["rmi"], &arguments[..]].concat()).fails();
            let sorted = |text: String| {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let (said, dry) = (sorted(run.stdout()), sorted(dry.stdout()));
            assert!(
                said.iter().all(|line| dry.contains(line)),
                "{said:?} {dry:?}"
            );
            let left = sandbox.mica(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
            let files = blobs(&sandbox);
            (
                said,
                sorted(run.stderr()),
                sorted(left.ok().stdout()),
                files,
            )
        })
        .collect();
    assert_eq!(ends[0], ends[1]);
    assert_eq!(ends[0].2, ["app:pinned", "stays:1"]);
}

/// A glob for registries' names took every image of Docker Hub.
#[test]
fn regression_a_glob_for_registries_takes_nothing_of_docker_hub() {
    let sandbox = store(&["postgres:16", "fenollp/app:1", "reg.example.com/team/app:1"]);
    let listed = |words: &[&str]| {
        let text = sandbox.mica(words).ok().stdout();
        let names = text.lines().filter_map(|line| {
            let (what, name) = line.split_once(": ")?;
            what.eq_ignore_ascii_case("untagged")
                .then(|| name.to_owned())
        });
        names.collect::<Vec<_>>()
    };
    for words in [
        &["rmi", "--dry-run", "*/*/*"][..],
        &["rmi", "--dry-run", "--filter", "reference=*/*/*"],
        &[
            "image",
            "prune",
            "-a",
            "--dry-run",
            "--filter",
            "reference=*/*/*",
        ],
        &[
            "system",
            "prune",
            "-a",
            "--dry-run",
            "--filter",
            "reference=*/*/*",
        ],
        &["rmi", "*/*/*"],
    ] {
        assert_eq!(listed(words), ["reg.example.com/team/app:1"], "{words:?}");
    }
    assert_eq!(
        listed(&["rmi", "--dry-run", "docker.io/*/*"]),
        ["fenollp/app:1", "postgres:16"]
    );
}
