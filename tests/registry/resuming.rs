//! Downloads that break off and are gone on with: after kill -9, with servers that can, cannot, and lie.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::liar::{Answer, Liar, Request, layer_digest};
use crate::common::image::{ImageBuilder, Pack};
use crate::common::sandbox::Sandbox;
use crate::common::tier;

/// Bytes that come of the large layer before the server stops.
const PART: usize = 2_500_000;

/// Bytes that no compression makes fewer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A small layer and one of four megabytes.
fn big() -> ImageBuilder {
    ImageBuilder::new("app:1")
        .layer(|l| l.file("small", "small"))
        .layer(|l| l.file("big", noise(4_000_000)))
}

fn partial(sandbox: &Sandbox, image: &ImageBuilder) -> PathBuf {
    let digest = layer_digest(image, 1).replace("sha256:", "");
    sandbox.store().join("partial").join(digest)
}

fn partials(sandbox: &Sandbox) -> usize {
    fs::read_dir(sandbox.store().join("partial")).map_or(0, Iterator::count)
}

/// Starts a pull and waits until so many bytes of the large layer are there.
fn start(sandbox: &Sandbox, image: &ImageBuilder, name: &str) -> Child {
    let mut command = sandbox.command();
    command
        .args(["pull", "-q", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let child = command.spawn().expect("mica");
    let start = Instant::now();
    let path = partial(sandbox, image);
    while path.metadata().map_or(0, |m| m.len()) < PART as u64 {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing came");
        thread::sleep(Duration::from_millis(5));
    }
    child
}

fn is_big(request: &Request, image: &ImageBuilder) -> bool {
    request.method == "GET" && request.path.ends_with(&layer_digest(image, 1))
}

/// A server that stops in the middle of the large layer until it is told to go on; then it answers with `lie`.
fn stopping(
    image: &ImageBuilder,
    lie: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
) -> (Liar, Arc<AtomicBool>) {
    let going = Arc::new(AtomicBool::new(false));
    let (flag, inner) = (going.clone(), image.clone());
    let liar = Liar::start(image, move |request, mut answer| {
        if !is_big(request, &inner) {
            return answer;
        }
        if flag.load(Ordering::SeqCst) {
            return lie(request, answer);
        }
        answer.stall = Some(PART);
        answer
    });
    (liar, going)
}

/// Kills a pull in the middle of the large layer.
#[track_caller]
fn killed(sandbox: &Sandbox, image: &ImageBuilder, liar: &Liar, going: &AtomicBool) {
    let mut child = start(sandbox, image, &liar.name());
    child.kill().and_then(|()| child.wait()).expect("kill");
    assert_eq!(sandbox.mica(["images", "-a", "-q"]).ok().stdout(), "");
    going.store(true, Ordering::SeqCst);
    liar.seen.lock().expect("the log").clear();
}

#[track_caller]
fn pulled(sandbox: &Sandbox, image: &ImageBuilder, liar: &Liar) {
    sandbox
        .mica(["pull", "-q", "--retry-for", "1", &liar.name()])
        .ok();
    let id = sandbox.mica(["images", "-q", "--no-trunc"]).ok().stdout();
    assert_eq!(id.trim(), image.id());
    assert_eq!(partials(sandbox), 0);
    assert_eq!(sandbox.mica(["check"]).ok().stderr(), "");
}

fn ranges(liar: &Liar, image: &ImageBuilder) -> Vec<Option<String>> {
    let seen = liar.seen.lock().expect("the log");
    let asked = seen.iter().filter(|request| is_big(request, image));
    asked
        .map(|request| request.headers.get("range").cloned())
        .collect()
}

#[test]
fn net_a_killed_pull_is_gone_on_with() {
    for pack in [Pack::Gzip, Pack::Zstd, Pack::None] {
        let (sandbox, image) = (Sandbox::new(), big().pack(pack));
        let (liar, going) = stopping(&image, |_, answer| answer);
        killed(&sandbox, &image, &liar, &going);
        let kept = partial(&sandbox, &image)
            .metadata()
            .expect("what is kept")
            .len();
        pulled(&sandbox, &image, &liar);
        assert_eq!(ranges(&liar, &image), [Some(format!("bytes={kept}-"))]);
    }
}

/// Other registries' names for the same blob: it is the blob that counts. Verbs in between leave it alone.
#[test]
fn net_what_is_kept_survives_other_verbs() {
    let (sandbox, image) = (Sandbox::new(), big());
    let (liar, going) = stopping(&image, |_, answer| answer);
    killed(&sandbox, &image, &liar, &going);
    sandbox.load(&super::pulling::app("other:1"));
    sandbox.mica(["rmi", "other:1"]).ok();
    let honest = Liar::start(&image, |_, answer| answer);
    pulled(&sandbox, &image, &honest);
    assert!(ranges(&honest, &image)[0].is_some());
}

#[test]
fn net_servers_without_ranges_start_at_the_beginning() {
    let image = big();
    let whole = image.pack.apply(&image.layers[1]);
    let plain = move |_: &Request, _: Answer| Answer::new(200, whole.clone());
    let refusing = |request: &Request, answer: Answer| match request.headers.contains_key("range") {
        true => Answer::new(416, ""),
        false => answer,
    };
    let sandbox = Sandbox::new();
    let (liar, going) = stopping(&image, plain);
    killed(&sandbox, &image, &liar, &going);
    pulled(&sandbox, &image, &liar);
    let sandbox = Sandbox::new();
    let (liar, going) = stopping(&image, refusing);
    killed(&sandbox, &image, &liar, &going);
    pulled(&sandbox, &image, &liar);
    assert_eq!(ranges(&liar, &image).len(), 2);
}

/// A rest that is not the rest is found out by the digest, and everything is fetched anew, once.
#[test]
fn net_a_rest_that_lies_is_found_out() {
    let image = big();
    let total = image.pack.apply(&image.layers[1]).len();
    let flip = |request: &Request, mut answer: Answer| {
        if request.headers.contains_key("range") {
            answer.body[10] ^= 1;
        }
        answer
    };
    // From another place, and says so; or does not say it.
    let shifted = move |request: &Request, mut answer: Answer| {
        if request.headers.contains_key("range") {
            answer.headers[0].1 = format!("bytes {}-{}/{total}", PART + 700_000, total - 1);
            answer.body.truncate(total - PART - 700_000);
            answer.length = Some(answer.body.len());
        }
        answer
    };
    let silent = |request: &Request, mut answer: Answer| {
        if request.headers.contains_key("range") {
            answer.headers.clear();
            answer.body.rotate_left(1000);
        }
        answer
    };
    type Lie = Box<dyn Fn(&Request, Answer) -> Answer + Send + Sync>;
    let lies: Vec<Lie> = vec![Box::new(flip), Box::new(shifted), Box::new(silent)];
    for lie in lies {
        let sandbox = Sandbox::new();
        let (liar, going) = stopping(&image, lie);
        killed(&sandbox, &image, &liar, &going);
        pulled(&sandbox, &image, &liar);
        let asked = ranges(&liar, &image);
        assert!(
            asked.len() == 2 && asked[0].is_some() && asked[1].is_none(),
            "{asked:?}"
        );
    }
    // One that lies about the whole too: an error, and nothing is kept of it.
    let sandbox = Sandbox::new();
    let (liar, going) = stopping(&image, |_, mut answer| {
        let last = answer.body.len() - 100_000;
        answer.body[last] ^= 1;
        answer
    });
    killed(&sandbox, &image, &liar, &going);
    sandbox
        .mica(["pull", "-q", "--retry-for", "1", &liar.name()])
        .code(1);
    assert_eq!(partials(&sandbox), 0);
}

#[test]
fn net_what_is_kept_may_be_damaged() {
    let image = big();
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 4] = [
        |bytes| bytes[1_000_000] ^= 1,
        |bytes| bytes.fill(0),
        |bytes| bytes.resize(9_000_000, 7),
        |bytes| bytes.clear(),
    ];
    for damage in damages {
        let sandbox = Sandbox::new();
        let (liar, going) = stopping(&image, |_, answer| answer);
        killed(&sandbox, &image, &liar, &going);
        let path = partial(&sandbox, &image);
        let mut bytes = fs::read(&path).expect("what is kept");
        damage(&mut bytes);
        fs::write(&path, bytes).expect("write");
        pulled(&sandbox, &image, &liar);
    }
}

#[test]
fn net_a_lost_connection_keeps_and_a_lie_does_not() {
    let image = big();
    let sandbox = Sandbox::new();
    let inner = image.clone();
    let liar = Liar::start(&image, move |request, mut answer| {
        if is_big(request, &inner) {
            // The rest never comes.
            answer.cut = Some(if request.headers.contains_key("range") {
                0
            } else {
                PART
            });
        }
        answer
    });
    let run = sandbox
        .mica(["pull", "--retry-for", "1", &liar.name()])
        .code(1);
    assert!(
        run.stderr().contains("the connection broke after"),
        "{}",
        run.stderr()
    );
    assert_eq!(partials(&sandbox), 1);
    // It goes with `gc`, which says so before.
    let gc = ["gc", "--dry-run"];
    let said = sandbox.mica(gc).ok().stdout();
    assert!(
        said.contains(&partial(&sandbox, &image).display().to_string()),
        "{said}"
    );
    assert_eq!(partials(&sandbox), 1);
    let freed = sandbox.mica(["gc"]).ok().stdout();
    assert_eq!(said.replace("reclaimable", "reclaimed"), freed);
    assert_eq!(partials(&sandbox), 0);
    // What trying again cannot mend keeps nothing, not even of the layers that were right.
    let wrong = image.clone().config(|c| {
        c["rootfs"]["diff_ids"][0] = serde_json::json!(format!("sha256:{}", "0".repeat(64)));
    });
    let sandbox = Sandbox::new();
    let liar = Liar::start(&wrong, |_, answer| answer);
    sandbox
        .mica(["pull", "--retry-for", "1", &liar.name()])
        .code(1);
    assert_eq!(partials(&sandbox), 0);
}

/// After a day any change removes it; one that a pull is at work on stays.
#[test]
fn net_what_is_kept_ages() {
    let (sandbox, image) = (Sandbox::new(), big());
    let (liar, going) = stopping(&image, |_, answer| answer);
    let mut child = start(&sandbox, &image, &liar.name());
    let old = |hours: u64| {
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        let file = File::options()
            .write(true)
            .open(partial(&sandbox, &image))
            .expect("open");
        file.set_modified(time).expect("utimes");
    };
    old(30);
    sandbox.load(&super::pulling::app("other:1"));
    sandbox.mica(["gc"]).ok();
    assert_eq!(partials(&sandbox), 1);
    child.kill().and_then(|()| child.wait()).expect("kill");
    old(23);
    sandbox.mica(["tag", "other:1", "other:2"]).ok();
    assert_eq!(partials(&sandbox), 1);
    old(25);
    sandbox.mica(["tag", "other:1", "other:3"]).ok();
    assert_eq!(partials(&sandbox), 0);
    going.store(true, Ordering::SeqCst);
    sandbox.mica(["pull", "-q", &liar.name()]).ok();
}

fn four_at_once(sandbox: &Sandbox, name: &str) {
    let pull = |_| {
        let mut command = sandbox.command();
        command
            .args(["pull", "-q", name])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.spawn().expect("mica")
    };
    let together: Vec<Child> = (0..4).map(pull).collect();
    for mut child in together {
        assert!(child.wait().expect("wait").success());
    }
}

#[test]
fn net_two_pulls_of_one_blob() {
    let (sandbox, image) = (Sandbox::new(), big());
    let (liar, going) = stopping(&image, |_, answer| answer);
    let mut first = start(&sandbox, &image, &liar.name());
    going.store(true, Ordering::SeqCst);
    // The second one does not wait for the first, and takes nothing from it.
    sandbox.mica(["pull", "-q", &liar.name()]).ok();
    first.kill().and_then(|()| first.wait()).expect("kill");
    four_at_once(&sandbox, &liar.name());
    sandbox.mica(["rmi", &liar.name()]).ok();
    four_at_once(&sandbox, &liar.name());
    pulled(&sandbox, &image, &liar);
}

#[test]
fn root_a_pull_onto_a_full_disk_leaves_nothing() {
    tier::root();
    let (sandbox, image) = (Sandbox::new(), big());
    let liar = Liar::start(&image, |_, answer| answer);
    let store = sandbox.mkdir("store");
    // Room for the layer alone, for neither it and what is kept of it, nor for nothing at all.
    for (size, fits) in [("size=7m", true), ("size=3m", false)] {
        let options = std::ffi::CString::new(size).expect("options");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &store, "tmpfs", flags, options.as_c_str()).expect("tmpfs");
        let run = sandbox.mica(["pull", "-q", &liar.name()]);
        match fits {
            true => {
                run.ok();
                assert_eq!(partials(&sandbox), 0);
            }
            false => {
                let run = run.code(1);
                assert!(run.stderr().contains("No space left"), "{}", run.stderr());
                let left = sandbox.store_files();
                let blobs = left.iter().filter(|(path, _)| {
                    let path = path.to_string_lossy();
                    path.contains("/store/blobs/")
                        || path.contains("/store/partial/")
                        || path.contains("/store/tmp/")
                });
                assert_eq!(blobs.count(), 0, "{left:?}");
            }
        }
        sandbox.mica(["check"]).ok();
        rustix::mount::unmount(&store, rustix::mount::UnmountFlags::DETACH).expect("umount");
    }
}

#[test]
fn net_regression_nothing_is_kept_of_what_came_another_way() {
    let (sandbox, image) = (Sandbox::new(), big());
    let (liar, going) = stopping(&image, |_, answer| answer);
    killed(&sandbox, &image, &liar, &going);
    // Its layers come from an archive meanwhile.
    sandbox.load(&image);
    assert_eq!(partials(&sandbox), 1);
    sandbox.mica(["pull", "-q", &liar.name()]).ok();
    assert_eq!(partials(&sandbox), 0);
}
