//! `USER` of an image as numbers, by the image's own `/etc/passwd` and `/etc/group`.

/// Who a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups, sorted.
    pub groups: Vec<u32>,
}

/// Resolves `USER`, `USER:GROUP`, names or numbers; empty is root. The error is docker's text.
pub(super) fn resolve(text: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, group_name) = text.split_once(':').unwrap_or((text, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    let known = passwd.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        let gid: u32 = fields.next()?.parse().ok()?;
        // A number may be somebody's name.
        (name == user || number == Some(uid)).then_some((name, uid, gid))
    });
    let mut who = Identity::default();
    let name = match (known, number) {
        (Some((name, uid, gid)), _) => {
            (who.uid, who.gid) = (uid, gid);
            Some(name)
        }
        (None, Some(uid)) => {
            who.uid = uid;
            None
        }
        (None, None) => {
            return Err(format!(
                "unable to find user {user}: no matching entries in passwd file"
            ));
        }
    };
    let groups = group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid: u32 = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    });
    if !group_name.is_empty() {
        let wanted: Option<u32> = group_name.parse().ok();
        let found = groups
            .clone()
            .find(|(name, gid, _)| *name == group_name || wanted == Some(*gid));
        who.gid = match (found, wanted) {
            (Some((_, gid, _)), _) | (None, Some(gid)) => gid,
            (None, None) => {
                return Err(format!(
                    "unable to find group {group_name}: no matching entries in group file"
                ));
            }
        };
        // docker: a group that was asked for is the only one.
        return Ok(who);
    }
    if let Some(name) = name {
        let mut of_user: Vec<u32> = groups
            .filter(|(_, _, members)| members.split(',').any(|member| member == name))
            .map(|(_, gid, _)| gid)
            .collect();
        of_user.sort_unstable();
        of_user.dedup();
        who.groups = of_user;
    }
    Ok(who)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let passwd = "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/var/www:/bin/false\n# no line\n";
        let group = "root:x:0:\nwww:x:34:\nlogs:x:40:root,www\nmore:x:39:www\n";
        let who = |uid, gid, groups: &[u32]| Identity {
            uid,
            gid,
            groups: groups.to_vec(),
        };
        for (text, expected) in [
            ("", who(0, 0, &[40])),
            ("www", who(33, 34, &[39, 40])),
            ("33", who(33, 34, &[39, 40])),
            ("www:logs", who(33, 40, &[])),
            ("5000", who(5000, 0, &[])),
            ("5000:6000", who(5000, 6000, &[])),
            (":logs", who(0, 40, &[])),
        ] {
            assert_eq!(resolve(text, passwd, group), Ok(expected), "{text:?}");
        }
        assert!(resolve("nobody", passwd, group).is_err());
        assert!(resolve("www:none", passwd, group).is_err());
    }
}
