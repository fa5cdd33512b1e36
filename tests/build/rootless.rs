//! The same for an ordinary user.

use super::*;
use crate::running::user;

const USER: u32 = 54_350;
const ALONE: u32 = 54_351;

#[test]
fn fuse_build_by_an_ordinary_user() {
    let s = user(USER, &format!("mica-test-{USER}:700000:65536\n"));
    let file = "FROM app:1\nRUN mkdir /own; echo x > /own/f; chown 7:8 /own/f; chmod 600 /own/f; rm /etc/group\nRUN cat /own/f > /again\nUSER bob\nWORKDIR /home/bob\nRUN echo me > mine\nCOPY --chown=9 f /copied\n";
    context(&s, "c", &[("Dockerfile", file), ("f", "f")]);
    build(&s, "c", &["-t", "r:1"]).ok();
    let all = listing(&s, "r:1", "");
    for line in [
        "-rw------- 7/8 2 own/f",
        "-rw-r--r-- 0/0 2 again",
        "-rw-r--r-- 1000/1001 3 home/bob/mine",
        "-rw-r--r-- 9/9 1 copied",
    ] {
        assert!(all.iter().any(|have| have == line), "{line}\n{all:#?}");
    }
    assert!(!all.iter().any(|line| line.ends_with(" etc/group")));
    assert_eq!(cached(&build(&s, "c", &[]).ok()), 6);
    let failed = "FROM app:1\nRUN touch /a; chown 33 /a; exit 5\n";
    build_text(&s, failed, &[]).code(5);
    assert_eq!(left(&s), [] as [PathBuf; 0]);
}

#[test]
fn fuse_build_by_a_user_with_one_id() {
    let s = user(ALONE, "nobody-at-all:1:1\n");
    build_text(&s, "FROM app:1\nRUN echo x > /x\n", &["-t", "r:1"]).ok();
    assert!(listing(&s, "r:1", "x").contains(&"-rw-r--r-- 0/0 2 x".to_owned()));
}
