//! The same for ordinary users: with subordinate ids and without.

use super::*;
use crate::running::user;

const SOME: u32 = 54_340;
const ONE: u32 = 54_341;

#[track_caller]
fn print_as(uid: u32, s: &Sandbox, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        let run = bash_as(uid, s, line).ok();
        assert_eq!(run.stdout(), *expected, "{}", run.describe());
    }
}

/// Works alike with many ids and with one.
const ALIKE: [(&str, &str); 12] = [
    (
        "mkdir demo; echo host > demo/f; ln -s demo link; mica run --rm -v $PWD/link:/d app:1 cat /d/f",
        "host\n",
    ),
    (
        "mica run --rm -v $PWD/demo:/d app:1 sh -c 'id -u; echo new > /d/n'; stat -c %U demo/n | grep -c root || cat demo/n",
        "0\n0\nnew\n",
    ),
    (
        "mica run --rm -v $PWD/demo/f:/etc/f:ro app:1 cat /etc/f",
        "host\n",
    ),
    (
        "mica run --rm -v vol:/srv own:1 cat /srv/index; mica run --rm -v vol:/x app:1 sh -c 'cat /x/index; ls /x'",
        "i\ni\nagain\nindex\n",
    ),
    (
        "mica run --rm -v vol:/a app:1 sh -c 'mkdir /a/sub; echo s > /a/sub/f'; mica run --rm --mount type=volume,src=vol,dst=/m,volume-subpath=sub app:1 cat /m/f",
        "s\n",
    ),
    (
        "mica run --rm --mount type=image,src=own:1,dst=/i app:1 cat /i/srv/index",
        "i\n",
    ),
    ("mica run --rm -i app:1 cat <<< word", "word\n"),
    ("mica run --rm app:1 echo x >> log; cat log", "x\n"),
    (
        "umask 077; mica run --rm -w /new app:1 stat -c %a .",
        "755\n",
    ),
    (
        "mica run -d --name kept -v vol:/v app:1 sleep 600 >/dev/null; mica exec kept cat /v/index; mica stop -t 0 kept; mica start kept; mica rm -f kept",
        "i\nkept\nkept\nkept\n",
    ),
    (
        "mica run --rm --tmpfs /t --read-only app:1 sh -c 'touch /t/x; ls /t'",
        "x\n",
    ),
    (
        "mica run --rm --env-file <(echo A=1) app:1 sh -c 'echo $A'",
        "1\n",
    ),
];

fn world(uid: u32, line: &str) -> Sandbox {
    let s = user(uid, line);
    s.load(&image("own:1").layer(|l| {
        l.dir("srv", 0o755)
            .owner(33, 44)
            .file("srv/index", "i\n")
            .owner(5, 6)
            .hardlink("srv/again", "srv/index")
            .owner(5, 6)
    }));
    s
}

#[test]
fn fuse_everyday_rootless_with_subordinate_ids() {
    let s = world(SOME, &format!("{SOME}:700000:65536\n"));
    print_as(SOME, &s, &ALIKE);
    print_as(
        SOME,
        &s,
        &[
            (
                "mica run --rm -v vol:/srv app:1 stat -c %u:%g%h /srv /srv/index",
                "33:443\n5:62\n",
            ),
            ("mica run --rm -u bob app:1 id -u", "1000\n"),
            ("mica run --rm -u 1234:5678 app:1 id -g", "5678\n"),
        ],
    );
}

#[test]
fn fuse_everyday_rootless_with_one_id() {
    let s = world(ONE, "");
    print_as(ONE, &s, &ALIKE);
    print_as(
        ONE,
        &s,
        &[(
            "mica run --rm -v vol:/srv app:1 stat -c %u:%g /srv/index",
            "0:0\n",
        )],
    );
}
