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
    let number: Option<u32> = user.parse().ok();
    let found = match user {
        "" => users().find(|line| line.uid == 0),
        _ => users().find(|line| line.name == user || number == Some(line.uid)),
    };
    let mut result = User {
        home: "/".to_owned(),
        ..User::default()
    };
    let mut name = None;
    match (&found, number) {
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
        let number: Option<u32> = group_name.parse().ok();
        let found = groups().find(|line| line.name == group_name || number == Some(line.gid));
        result.gid = match (found, number) {
            (Some(line), _) => line.gid,
            (None, Some(gid)) => gid,
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
        return Err("uids and gids must be in range 0-2147483647".to_owned());
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
        assert!(resolve("4294967294", PASSWD, GROUP).is_err());
        assert_eq!(resolve("", "", "").unwrap().home, "/");
    }
}
