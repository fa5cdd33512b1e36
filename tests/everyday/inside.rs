//! Users, directories, programs, and a container's life.

use super::*;

#[test]
fn root_everyday_users_and_directories() {
    let s = sandbox();
    s.load(&image("work:1").config(|c| {
        c["config"] = serde_json::json!({"Cmd": ["sh", "-c", "pwd; id -u; stat -c %u:%a ."], "WorkingDir": "/srv/app", "User": "bob"});
    }));
    print(
        &s,
        &[
            ("mica run --rm -u bob app:1 id -u", "1000\n"),
            ("mica run --rm -u 1234 app:1 id -u", "1234\n"),
            (
                "mica run --rm -u 1234:5678 app:1 sh -c 'id -u; id -g'",
                "1234\n5678\n",
            ),
            ("mica run --rm -u 1234:wheel app:1 id -g", "10\n"),
            ("mica run --rm -u $(id -u):$(id -g) app:1 id -u", "0\n"),
            ("mica run --rm -w /new/dir app:1 pwd", "/new/dir\n"),
            (
                "mica run --rm -w /tmp app:1 sh -c 'touch x; ls /tmp'",
                "x\n",
            ),
            ("mica run --rm -w /proc/self app:1 cat comm", "cat\n"),
            ("mica run --rm -w /v -v work:/v app:1 pwd", "/v\n"),
            ("mica run --rm work:1", "/srv/app\n1000\n0:755\n"),
            (
                "mica run -d --name kept work:1 sleep 600 >/dev/null; mica exec kept sh -c 'pwd; id -u'",
                "/srv/app\n1000\n",
            ),
            (
                "mica exec -u 0 -w /tmp kept sh -c 'pwd; id -u'; mica rm -f kept",
                "/tmp\n0\nkept\n",
            ),
            (
                "mica run --rm --cap-drop NET_RAW --cap-drop MKNOD app:1 echo x",
                "x\n",
            ),
            ("mica run --rm --cap-drop ALL -u 1000 app:1 id -u", "1000\n"),
            (
                "mica run --rm -h box --add-host db:10.0.0.1 app:1 sh -c 'hostname; grep db /etc/hosts'",
                "box\n10.0.0.1\tdb\n",
            ),
        ],
    );
}

#[test]
fn root_everyday_lives_of_containers() {
    let s = sandbox();
    print(
        &s,
        &[
            (
                "mica run -d --name one app:1 sh -c 'echo out; echo err >&2; exit 5' >/dev/null; mica wait one; mica logs one 2>/dev/null; mica logs one 2>&1 >/dev/null",
                "5\nout\nerr\n",
            ),
            (
                "mica start -a one 2>/dev/null || echo $?; mica rm one",
                "out\n5\none\n",
            ),
            (
                "mica run -d --name two --init app:1 sh -c 'echo x >> /count; sleep 600' >/dev/null; until mica exec two test -s /count; do :; done; mica stop two",
                "two\n",
            ),
            (
                "mica start two; until mica exec two wc -l /count | grep 2; do :; done; mica stop -t 0 two; mica rm two",
                "two\n2 /count\ntwo\ntwo\n",
            ),
            ("mica run --rm --init app:1 sh -c 'echo $PPID'", "1\n"),
            (
                "mica run --rm -d --name three app:1 sleep 600 >/dev/null; mica exec -d three touch /made; until mica exec three ls /made; do :; done 2>/dev/null",
                "/made\n",
            ),
            (
                "mica exec three sh -c 'exit 4' || echo $?; mica kill three; mica wait three >/dev/null 2>&1 || true; mica ps -aq",
                "4\nthree\n",
            ),
            (
                "mica run --name four app:1 sh -c 'echo changed > /f'; mica commit four new:1 >/dev/null; mica run --rm new:1 cat /f; mica rm four",
                "changed\nfour\n",
            ),
            (
                "mica run --rm app:1 sh -c '(sleep 0.1; echo late) & wait'",
                "late\n",
            ),
            (
                "mica run --rm --read-only app:1 sh -c 'touch /x 2>/dev/null || echo no; echo y > /dev/shm/y; cat /dev/shm/y'",
                "no\ny\n",
            ),
            (
                "mica run --rm --tmpfs /t:size=1m,mode=700 app:1 stat -c %a /t",
                "700\n",
            ),
            (
                "mica run --rm app:1 sh -c 'mkdir /p; busybox mkfifo /p/f; busybox mount 2>/dev/null | grep -c \" / \"; mknod /p/n c 1 3 && ls /p'",
                "1\nf\nn\n",
            ),
        ],
    );
}

/// A 32-bit program: `write(1, "32\n", 3); _exit(0)` behind the smallest header there is.
#[cfg(target_arch = "x86_64")]
#[test]
fn root_everyday_programs_of_32_bits() {
    let code: [u8; 38] = [
        0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9, 0x77, 0x80, 4, 8, 0xba, 3, 0, 0, 0, 0xcd, 0x80,
        0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80, b'3', b'2', b'\n', 0, 0, 0, 0,
    ];
    let base = 0x0804_8000u32;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2u16, 3] {
        elf.extend(half.to_le_bytes());
    }
    for word in [1u32, base + 84, 52, 0, 0] {
        elf.extend(word.to_le_bytes());
    }
    for half in [52u16, 32, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let length = 84 + u32::try_from(code.len()).unwrap();
    for word in [1u32, 0, base, base, length, length, 5, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    let text = base + 84 + 31;
    elf.extend(code);
    let at = elf
        .windows(4)
        .position(|w| w == [0x77, 0x80, 4, 8])
        .unwrap();
    elf[at..at + 4].copy_from_slice(&text.to_le_bytes());
    let s = sandbox();
    s.load(&image("old:1").layer(|l| l.file("bin/old", &elf).mode(0o755)));
    print(
        &s,
        &[
            ("mica run --rm old:1 old", "32\n"),
            ("mica run --rm --init -u bob old:1 /bin/old", "32\n"),
        ],
    );
}
