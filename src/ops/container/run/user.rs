//! `USER` and `-u`: who a process runs as, by the container's own `/etc/passwd` and `/etc/group`.

/// A user, resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// The largest id that docker takes.
const MAX_ID: u32 = 2_147_483_647;

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

/// A number, and then never a name: what Go's `Atoi` takes, of any length. Beyond the range it is `Some(None)`.
fn number(text: &str) -> Option<Option<u32>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value = text.parse::<i64>().ok();
    let id = value.and_then(|value| u32::try_from(value).ok());
    Some(id.filter(|id| *id <= MAX_ID))
}

fn out_of_range() -> String {
    format!("uids and gids must be in range 0-{MAX_ID}")
}

/// Resolves `user`, `uid`, `user:group`, ... (empty: root) as docker does. The error is docker's text.
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, group_name) = match spec.split_once(':') {
        Some((user, group)) => (user, group),
        None => (spec, ""),
    };
    let users = || {
        passwd.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or_default();
            Some(PasswdLine {
                name,
                uid,
                gid,
                home,
            })
        })
    };
    let groups = || {
        group.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or_default();
            let members = members.split(',').filter(|m| !m.is_empty()).collect();
            Some(GroupLine { name, gid, members })
        })
    };
    let uid = number(user).map(|id| id.ok_or_else(out_of_range));
    let uid = uid.transpose()?;
    let found = match (user, uid) {
        ("", _) => users().find(|line| line.uid == 0),
        (_, Some(uid)) => users().find(|line| line.uid == uid),
        (_, None) => users().find(|line| line.name == user),
    };
    let mut result = User {
        home: "/".to_owned(),
        ..User::default()
    };
    let mut name = None;
    match (&found, uid) {
        (Some(line), _) => {
            (result.uid, result.gid) = (line.uid, line.gid);
            result.home = line.home.to_owned();
            name = Some(line.name);
        }
        (None, Some(uid)) => result.uid = uid,
        (None, None) if user.is_empty() => {}
        (None, None) => {
            return Err(format!(
                "unable to find user {user}: no matching entries in passwd file"
            ));
        }
    }
    if group_name.is_empty() {
        let member = |line: &GroupLine| name.is_some_and(|name| line.members.contains(&name));
        result.groups = groups().filter(member).map(|line| line.gid).collect();
    } else {
        let gid = number(group_name).map(|id| id.ok_or_else(out_of_range));
        let gid = gid.transpose()?;
        let found = groups().find(|line| line.name == group_name);
        result.gid = match (gid, found) {
            (Some(gid), _) => gid,
            (None, Some(line)) => line.gid,
            (None, None) => {
                return Err(format!(
                    "unable to find group {group_name}: no matching entries in group file"
                ));
            }
        };
    }
    if result.home.is_empty() {
        result.home = "/".to_owned();
    }
    if result.uid > MAX_ID || result.gid > MAX_ID {
        return Err(out_of_range());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:\nbad\n";
    const GROUP: &str = "root:x:0:\nbobs:x:1001:\nwheel:x:10:root,bob\n";

    #[test]
    fn users_are_found_as_docker_finds_them() {
        let table = [
            ("", (0, 0, vec![10], "/root")),
            ("0", (0, 0, vec![10], "/root")),
            ("bob", (1000, 1001, vec![10], "/home/bob")),
            ("1000", (1000, 1001, vec![10], "/home/bob")),
            ("bob:wheel", (1000, 10, vec![], "/home/bob")),
            ("bob:77", (1000, 77, vec![], "/home/bob")),
            ("77", (77, 0, vec![], "/")),
            ("77:bobs", (77, 1001, vec![], "/")),
        ];
        for (spec, (uid, gid, groups, home)) in table {
            let home = home.to_owned();
            let expected = User {
                uid,
                gid,
                groups,
                home,
            };
            assert_eq!(resolve(spec, PASSWD, GROUP), Ok(expected), "{spec}");
        }
    }

    /// CVE-2016-3697, CVE-2024-40635, CVE-2026-46680: an image gives root a number for a name.
    #[test]
    fn regression_a_number_is_never_a_name() {
        let passwd = "1000:x:0:0::/evil:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n01:x:0:0::/:/bin/sh\n+7:x:0:0::/:/bin/sh\n";
        let group = "44:x:0:\n+44:x:0:\n4294967296:x:0:\n";
        for (spec, uid, gid) in [
            ("1000", 1000, 0),
            ("01", 1, 0),
            ("+7", 7, 0),
            ("7:44", 7, 44),
            ("7:+44", 7, 44),
            (":44", 0, 44),
        ] {
            let user = resolve(spec, passwd, group).unwrap();
            assert_eq!((user.uid, user.gid), (uid, gid), "{spec}");
        }
        assert!(resolve("4294967296", passwd, group).is_err());
        assert!(resolve("0:4294967296", passwd, group).is_err());
    }

    #[test]
    fn who_is_not_there_is_named() {
        let error = resolve("eve", PASSWD, GROUP).unwrap_err();
        assert_eq!(
            error,
            "unable to find user eve: no matching entries in passwd file"
        );
        let error = resolve("bob:eves", PASSWD, GROUP).unwrap_err();
        assert_eq!(
            error,
            "unable to find group eves: no matching entries in group file"
        );
        for far in [
            "4294967294",
            "2147483648",
            "4294967296",
            "99999999999999999999",
            "-1",
            "0:-1",
            "0:4294967296",
        ] {
            let error = resolve(far, PASSWD, GROUP).unwrap_err();
            assert_eq!(
                error, "uids and gids must be in range 0-2147483647",
                "{far}"
            );
        }
        for name in [" 1", "1 ", "0x1", "+", "-", "1_0", "\u{661}"] {
            assert!(
                resolve(name, PASSWD, GROUP)
                    .unwrap_err()
                    .starts_with("unable to find user")
            );
        }
        assert_eq!(resolve("", "", "").unwrap().home, "/");
    }
}
