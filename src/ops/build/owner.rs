//! `--chown`, and whose a WORKDIR is: names are those of the stage.

use super::BuildError;
use super::fetched;
use super::source::Source;

/// More of a list of users or groups is not read.
const MAX_LIST: u64 = 16 << 20;

/// `user[:group]` as docker reads it: without a group, the group of the same name or number.
pub(super) fn parse(stage: &Source, text: &str) -> Result<(u32, u32), BuildError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, text),
    };
    let failed = |why: String| BuildError::Failed(format!("invalid --chown {text:?}: {why}"));
    let uid = match number(user) {
        Some(uid) => uid.map_err(failed)?,
        None => {
            let found =
                lines(stage, b"etc/passwd", user)?.and_then(|fields| fields.first()?.parse().ok());
            found.ok_or_else(|| {
                failed(format!(
                    "can't find uid for user {user}: no such user: {user}"
                ))
            })?
        }
    };
    let gid = match number(group) {
        Some(gid) => gid.map_err(failed)?,
        None => {
            let found =
                lines(stage, b"etc/group", group)?.and_then(|fields| fields.first()?.parse().ok());
            // A user whose group has another name.
            let own = match text.contains(':') {
                true => None,
                false => lines(stage, b"etc/passwd", user)?
                    .and_then(|fields| fields.get(1)?.parse().ok()),
            };
            found.or(own).ok_or_else(|| {
                failed(format!(
                    "can't find gid for group {group}: no such group: {group}"
                ))
            })?
        }
    };
    Ok((uid, gid))
}

/// Whom USER means.
pub(super) fn of_user(stage: &Source, text: &str) -> Result<(u32, u32), BuildError> {
    let list = |path: &[u8]| -> Result<String, BuildError> {
        let bytes = fetched::read(stage, path, MAX_LIST)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let user = crate::ops::container::run::user::resolve(
        text,
        &list(b"etc/passwd")?,
        &list(b"etc/group")?,
    );
    let user = user.map_err(BuildError::Failed)?;
    Ok((user.uid, user.gid))
}

/// A text of digits is a number and never a name.
fn number(text: &str) -> Option<Result<u32, String>> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| match text.parse::<u32>() {
        Ok(id) if id < u32::MAX => Ok(id),
        _ => Err(format!("{text} is no user id")),
    })
}

/// What stands behind the password of the line that is named `name`.
fn lines(stage: &Source, path: &[u8], name: &str) -> Result<Option<Vec<String>>, BuildError> {
    let bytes = fetched::read(stage, path, MAX_LIST)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.skip(1).map(str::to_owned).collect())
    });
    Ok(found)
}
