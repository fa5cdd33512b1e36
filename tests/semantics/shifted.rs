//! `-o idmap=subid`.

use std::ffi::OsStr;

use super::*;
use crate::engines::rootless::{FIRST, Rootless, USER, world};

/// With `-o idmap=subid`, for an ordinary user, what belongs to root in an image belongs to the user, and ids from 1 on to his subordinate ids in their order, as in his podman's own storage; whatever he has no id for belongs to 65534.
#[test]
fn root_shifted_owners_are_the_users_ids() {
    let (sandbox, mount) = world();
    let user = Rootless::new(&sandbox);
    let files = mount.image("app/1/ids").display().to_string();
    let seen = user.shown(&format!(
        "stat -c %u:%g {files} {files}/root {files}/last {files}/beyond {files}/user {files}/setuid"
    ));
    let (last, setuid, number) = (FIRST + 65_535, FIRST + 32, FIRST + USER - 1);
    assert_eq!(
        seen,
        format!(
            "{USER}:{USER}\n{USER}:{USER}\n{last}:{last}\n65534:65534\n{number}:65534\n{setuid}:{setuid}\n"
        )
    );
    let modes = user.shown(&format!("stat -c %a {files}/setuid {files}/../tmp"));
    assert_eq!(modes, "6755\n1777\n");
    // The rest of M is his as it was.
    let layers = mount
        .path("stores/containers/overlay-layers")
        .display()
        .to_string();
    let rest = user.shown(&format!("stat -c %u {layers} {layers}/layers.json"));
    assert_eq!(rest, format!("{USER}\n{USER}\n"));
    drop(user);
    mount.unmount();
}

/// Capabilities of files count, with `-o idmap=subid`, in the user's own user namespaces only, and access lists name his ids; what cannot be told in his ids is not shown.
#[test]
fn root_shifted_capabilities_and_access_lists() {
    let (sandbox, mount) = world();
    let user = Rootless::new(&sandbox);
    let files = mount.image("app/1/ids").display().to_string();
    let value = |name: &str, file: &str| {
        user.run(&format!(
            "getfattr --only-values --absolute-names -n {name} {files}/{file}"
        ))
    };
    let rootid: String = USER
        .to_le_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let able = value("security.capability", "able").ok().stdout;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(hex(&able), format!("01000003{}{rootid}", "00".repeat(16)));
    value("security.capability", "stranger").fails();
    let names = user.shown(&format!("getfattr --absolute-names -m - {files}/stranger"));
    assert!(!names.contains("capability"), "{names}");
    drop(user);
    mount.unmount();
}

/// `-o idmap=subid` is refused for root, with `survive=on`, and for a user whose subordinate ids are none, or have root, himself or 65534 among them.
#[test]
fn root_shifted_ids_that_will_not_do() {
    let refused = |sandbox: &Sandbox, options: &str, why: &str| {
        let at = sandbox.mkdir("refused");
        let words: [&OsStr; 4] = [
            "mount".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            at.as_ref(),
        ];
        let run = sandbox.mica(words).fails();
        assert!(run.stderr().contains(why), "{}", run.describe());
    };
    refused(&Sandbox::new(), "idmap=subid", "ordinary user");
    let sandbox = Sandbox::as_user(USER);
    for (line, why) in [
        ("1:100000:65536", "has no line for"),
        ("54340:54300:100", "your own"),
        ("54340:60000:10000", "65534"),
        ("54340:4294967290:100", "root"),
    ] {
        crate::common::tier::subordinate_ids_by(line);
        refused(&sandbox, "idmap=subid", why);
    }
    crate::common::tier::subordinate_ids(USER);
    refused(&sandbox, "idmap=subid,survive=on", "survive=on");
}
