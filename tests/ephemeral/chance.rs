//! Users that come and are killed at random, against a model: which volumes must be there, which must go.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::random::Random;

use super::{Mount, PATIENCE, Sandbox, User, ephemeral, is_there, number, until};

/// How many volumes and users there are at most.
const MAX_VOLUMES: usize = 6;
const MAX_USERS: usize = 4;

struct Life {
    data: PathBuf,
    users: Vec<User>,
}

fn script(sandbox: &Sandbox, mount: &Mount, name: &str, way: usize) -> String {
    let volume = mount.path("volumes").join(name);
    let volume = volume.display();
    let mica = env!("CARGO_BIN_EXE_mica");
    let store = sandbox.store();
    match way {
        0 => format!("exec 3<{volume}/file; READY; sleep 1000"),
        1 => format!("cd {volume}; READY; exec sleep 1000"),
        2 => format!("exec unshare -m sh -c 'mount --bind {volume} at; READY; exec sleep 1000'"),
        3 => format!(
            "exec {mica} --store {} hold {name} -- sh -c 'READY; exec sleep 1000'",
            store.display()
        ),
        // One that changes its way, all the time.
        _ => format!(
            "cd {volume}; READY; while :; do exec 3<file; cd /; cat <&3 >/dev/null; cd {volume}; exec 3<&-; echo x >>other; done"
        ),
    }
}

/// Never does a volume go while it is used, always soon afterwards, and nothing is left.
#[test]
fn fuse_ephemeral_at_random() {
    let seconds = number("MICA_EPHEMERAL_SECONDS", 15);
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let seed = number("MICA_EPHEMERAL_SEED", clock);
    eprintln!("MICA_EPHEMERAL_SEED={seed}");
    let mut random = Random(seed);
    let sandbox = Sandbox::new();
    sandbox.mkdir("at");
    let mount = sandbox.mount_with(&["-o", "volume_wait=20,volume_linger=0.5"]);
    let mut lives: BTreeMap<String, Life> = BTreeMap::new();
    let mut ending: Vec<(String, PathBuf, Instant)> = Vec::new();
    let (mut made, mut uses, mut kills) = (0, 0, 0);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(seconds) || made < 10 {
        match random.below(3) {
            0 if lives.len() < MAX_VOLUMES => {
                let name = format!("volume-{made}");
                made += 1;
                let data = ephemeral(&sandbox, &name);
                // Its first user comes at once, while it waits for one.
                let started = Instant::now();
                let user = User::shell(&sandbox, &script(&sandbox, &mount, &name, random.below(5)));
                assert!(started.elapsed() < PATIENCE);
                uses += 1;
                let users = vec![user];
                lives.insert(name, Life { data, users });
            }
            1 if !lives.is_empty() => {
                let at = random.below(lives.len());
                let (name, life) = lives.iter_mut().nth(at).unwrap();
                if life.users.len() < MAX_USERS {
                    let script = script(&sandbox, &mount, name, random.below(5));
                    life.users.push(User::shell(&sandbox, &script));
                    uses += 1;
                }
            }
            2 if !lives.is_empty() => {
                let at = random.below(lives.len());
                let (name, life) = lives.iter_mut().nth(at).unwrap();
                let name = name.clone();
                life.users.swap_remove(random.below(life.users.len()));
                kills += 1;
                if life.users.is_empty() {
                    let life = lives.remove(&name).unwrap();
                    ending.push((name, life.data, Instant::now()));
                }
            }
            _ => thread::sleep(Duration::from_millis(50)),
        }
        for (name, life) in &lives {
            let file = mount.path("volumes").join(name).join("file");
            assert!(
                is_there(&sandbox, name),
                "{name} has gone with {} users",
                life.users.len()
            );
            // Not opened: that would be a use.
            fs::metadata(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(
                life.data.join("file").exists(),
                "the data of {name} has gone"
            );
        }
        ending.retain(|(name, data, since)| {
            let gone = !is_there(&sandbox, name) && !data.exists();
            assert!(
                gone || since.elapsed() < Duration::from_secs(20) + PATIENCE,
                "{name} lives on"
            );
            !gone
        });
    }
    eprintln!(
        "{made} volumes, {uses} users, {kills} killed in {:?}",
        begin.elapsed()
    );
    drop(lives);
    until("all have evaporated", || {
        !fs::read_to_string(sandbox.store().join("volumes.json"))
            .unwrap()
            .contains("\"name\": \"volume-")
    });
    until("their data is deleted", || {
        fs::read_dir(sandbox.store().join("volumes"))
            .unwrap()
            .count()
            == 0
    });
}
