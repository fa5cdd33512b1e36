//! The options of `mica mount -o`.

use std::time::Duration;

use crate::fs::RmPolicy;
use crate::ops::volume::ephemeral::Times;
use crate::text::time;

/// The mount options, as the user gave them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountOptions {
    /// Nothing can be changed through the mount.
    pub read_only: bool,
    /// Answer each open, so that opening for writing fails at once.
    pub strict: bool,
    /// Honour set-user-id bits and file capabilities of image files.
    pub suid: bool,
    /// Honour device nodes of images.
    pub dev: bool,
    /// Each file of an image has one link more than in the image, so that `du` of one directory counts shared ones once.
    pub shared_links: bool,
    /// Let other users in. `None`: as usual, which is yes for root and no for an ordinary user.
    pub allow_other: Option<bool>,
    /// Who may remove, rename and tag through the mount.
    pub rm: RmPolicy,
    /// How long ephemeral volumes live unused.
    pub times: Times,
    /// Let the kernel keep names and attributes of volumes that only this mount uses.
    pub volume_cache: bool,
    /// The mount goes on when its daemon dies.
    pub survive: bool,
    /// Owners are shown as those of the mounting user's user namespace.
    pub shift_owners: bool,
    /// What `findmnt` and `df` show as the source.
    pub source: Option<String>,
    /// How long what is removed through the mount can be brought back; `None`: as the store says.
    pub trash: Option<Duration>,
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            read_only: false,
            strict: false,
            suid: false,
            dev: false,
            shared_links: false,
            allow_other: None,
            rm: RmPolicy::Own,
            times: Times::default(),
            volume_cache: true,
            survive: false,
            shift_owners: false,
            source: None,
            trash: None,
        }
    }
}

/// A word after `-o` that is no option, or may not be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OptionError {
    /// Not an option.
    #[error(
        "unknown mount option {0:?}; known are ro, strict, suid, dev, allow_other, rm=off|own|all, nlink=image|shared, trash=DURATION|off, volume_wait=SECONDS, volume_linger=SECONDS, volume_cache=on|off, survive=on|off, idmap=subid, fsname=NAME"
    )]
    Unknown(String),
    /// An option with a wrong value.
    #[error("mount option {option}: {value:?} is not one of {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// An option for root only.
    #[error("mount option {0} needs root")]
    NeedsRoot(&'static str),
    /// An option that is not for root.
    #[error(
        "mount option idmap=subid is for an ordinary user's own mount; root's engines shift owners themselves: `podman run --userns`"
    )]
    NotForRoot,
    /// Two that do not go together.
    #[error("mount option idmap=subid does not go with survive=on")]
    Together,
}

impl MountOptions {
    /// Parses the arguments of all `-o`, each a comma-separated list; the last word on a subject counts.
    ///
    /// Options that `fstab` lines carry and that change nothing here are accepted.
    pub fn parse<S: AsRef<str>>(lists: impl IntoIterator<Item = S>) -> Result<Self, OptionError> {
        let mut options = MountOptions::default();
        for list in lists {
            let words = list.as_ref().split(',').map(str::trim);
            for word in words.filter(|word| !word.is_empty()) {
                options.apply(word)?;
            }
        }
        Ok(options)
    }

    fn apply(&mut self, word: &str) -> Result<(), OptionError> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        match (name, value) {
            ("ro", None) => self.read_only = true,
            ("rw", None) => self.read_only = false,
            ("strict", None) => self.strict = true,
            ("suid", None) => self.suid = true,
            ("nosuid", None) => self.suid = false,
            ("dev", None) => self.dev = true,
            ("nodev", None) => self.dev = false,
            ("allow_other", None) => self.allow_other = Some(true),
            ("noallow_other", None) => self.allow_other = Some(false),
            ("rm", value) => {
                self.rm = match value {
                    Some("off") => RmPolicy::Off,
                    Some("own") => RmPolicy::Own,
                    Some("all") => RmPolicy::All,
                    other => {
                        return Err(OptionError::Value {
                            option: "rm",
                            value: other.unwrap_or_default().to_owned(),
                            expected: "off, own, all",
                        });
                    }
                }
            }
            ("nlink", Some("image")) => self.shared_links = false,
            ("nlink", Some("shared")) => self.shared_links = true,
            ("nlink", value) => {
                return Err(OptionError::Value {
                    option: "nlink",
                    value: value.unwrap_or_default().to_owned(),
                    expected: "image, shared",
                });
            }
            ("trash", Some("off")) => self.trash = Some(Duration::ZERO),
            ("trash", value) => {
                let value = value.unwrap_or_default();
                self.trash = Some(time::span(value).ok_or_else(|| OptionError::Value {
                    option: "trash",
                    value: value.to_owned(),
                    expected: "durations such as 30m, 12h, 7d, or off",
                })?);
            }
            ("volume_wait", value) => self.times.wait = seconds("volume_wait", value)?,
            ("volume_linger", value) => self.times.linger = seconds("volume_linger", value)?,
            ("volume_cache", value) => {
                self.volume_cache = match value {
                    Some("on") => true,
                    Some("off") => false,
                    other => {
                        return Err(OptionError::Value {
                            option: "volume_cache",
                            value: other.unwrap_or_default().to_owned(),
                            expected: "on, off",
                        });
                    }
                }
            }
            ("survive", Some("on")) => self.survive = true,
            ("survive", Some("off")) => self.survive = false,
            ("survive", value) => {
                return Err(OptionError::Value {
                    option: "survive",
                    value: value.unwrap_or_default().to_owned(),
                    expected: "on, off",
                });
            }
            ("idmap", Some("subid")) => self.shift_owners = true,
            ("idmap", value) => {
                return Err(OptionError::Value {
                    option: "idmap",
                    value: value.unwrap_or_default().to_owned(),
                    expected: "subid",
                });
            }
            // fusermount3 takes a backslash for the start of an escape.
            ("fsname", Some(value)) if value.is_empty() || value.contains('\\') => {
                return Err(OptionError::Value {
                    option: "fsname",
                    value: value.to_owned(),
                    expected: "names without a backslash",
                });
            }
            ("fsname", Some(value)) => self.source = Some(value.to_owned()),
            ("defaults" | "exec" | "async" | "atime" | "noatime" | "relatime", None)
            | ("auto" | "noauto" | "nofail" | "_netdev" | "user" | "users", None)
            | ("default_permissions", None)
            | ("subtype", Some(_)) => {}
            (name, _) if name.starts_with("x-") => {}
            _ => return Err(OptionError::Unknown(word.to_owned())),
        }
        Ok(())
    }

    /// Refuses what an ordinary user may not ask for, in words clearer than the helper's.
    pub fn check_privileges(&self, root: bool) -> Result<(), OptionError> {
        match self {
            MountOptions {
                shift_owners: true,
                survive: true,
                ..
            } => Err(OptionError::Together),
            MountOptions {
                shift_owners: true, ..
            } if root => Err(OptionError::NotForRoot),
            _ if root => Ok(()),
            MountOptions { suid: true, .. } => Err(OptionError::NeedsRoot("suid")),
            MountOptions { dev: true, .. } => Err(OptionError::NeedsRoot("dev")),
            _ => Ok(()),
        }
    }
}

/// Seconds, with a fraction if need be.
fn seconds(option: &'static str, value: Option<&str>) -> Result<Duration, OptionError> {
    let value = value.unwrap_or_default();
    let seconds = value.parse().ok();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // Longer than any machine runs, and still to be added to a point in time.
    let sensible = duration.filter(|duration| duration.as_secs() < 1 << 32);
    sensible.ok_or_else(|| OptionError::Value {
        option,
        value: value.to_owned(),
        expected: "a number of seconds",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_collected_from_all_lists() {
        let options = MountOptions::parse([
            "ro,strict",
            "",
            "rm=all, suid,dev,allow_other,nlink=image,nlink=shared,volume_linger=0.5,survive=on,idmap=subid",
        ])
        .unwrap();
        assert_eq!(
            options,
            MountOptions {
                read_only: true,
                strict: true,
                suid: true,
                dev: true,
                shared_links: true,
                allow_other: Some(true),
                rm: RmPolicy::All,
                times: Times {
                    linger: Duration::from_millis(500),
                    ..Times::default()
                },
                volume_cache: true,
                survive: true,
                shift_owners: true,
                source: None,
                trash: None,
            }
        );
        assert_eq!(
            MountOptions::parse(["ro,rw,defaults,x-systemd.automount"]).unwrap(),
            MountOptions::default()
        );
        let named = MountOptions::parse(["fsname=a=b"]).unwrap();
        assert_eq!(named.source.as_deref(), Some("a=b"));
    }

    #[test]
    fn wrong_words_are_named() {
        let trash = |text| MountOptions::parse([text]).unwrap().trash;
        assert_eq!(trash("trash=1h"), Some(Duration::from_secs(3600)));
        assert_eq!(trash("trash=off"), Some(Duration::ZERO));
        for wrong in [
            "trash",
            "trash=x",
            "trash=-1h",
            "rmm",
            "rm",
            "rm=",
            "rm=no",
            "nlink",
            "nlink=2",
            "ro=1",
            "fsname",
            "survive",
            "survive=yes",
            "idmap",
            "idmap=all",
            "volume_wait",
            "volume_wait=-1",
            "volume_wait=1e30",
        ] {
            let error = MountOptions::parse([wrong]).unwrap_err().to_string();
            assert!(error.contains(wrong.split('=').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn some_are_for_root() {
        let options = MountOptions::parse(["dev"]).unwrap();
        assert_eq!(
            options.check_privileges(false),
            Err(OptionError::NeedsRoot("dev"))
        );
        assert_eq!(options.check_privileges(true), Ok(()));
        assert_eq!(MountOptions::default().check_privileges(false), Ok(()));
        let shifted = MountOptions::parse(["idmap=subid"]).unwrap();
        assert_eq!(shifted.check_privileges(true), Err(OptionError::NotForRoot));
        assert_eq!(shifted.check_privileges(false), Ok(()));
        let both = MountOptions::parse(["idmap=subid,survive=on"]).unwrap();
        assert_eq!(both.check_privileges(false), Err(OptionError::Together));
    }
}
