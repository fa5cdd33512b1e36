//! Becoming the program: where it is looked for, and what to say if the kernel does not execute it.

use std::ffi::CString;
use std::io;

use crate::ops::container::run::security;
use crate::runtime::failure::{Fails as _, Failure};
use crate::sys::container::exec;

/// The directories a program without a slash is looked for in.
pub(super) fn lookup_path(env: &[String]) -> String {
    let set = env.iter().find_map(|v| v.strip_prefix("PATH="));
    set.unwrap_or(crate::ops::container::run::DEFAULT_PATH)
        .to_owned()
}

/// Replaces this process by the program.
pub(super) fn execute(args: &[CString], env: &[CString], path: &str, kept: &[u32]) -> Failure {
    let Some(name) = args.first() else {
        return Failure {
            code: 127,
            text: "no command specified".to_owned(),
        };
    };
    let shown = name.to_string_lossy();
    if shown.contains('/') {
        let error = exec(name, args, env);
        return refusal(&error, name, kept, &shown, &format!("stat {shown}: "));
    }
    let mut denied = None;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let Ok(candidate) = CString::new(format!("{dir}/{shown}")) else {
            continue;
        };
        let error = exec(&candidate, args, env);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            _ => {
                denied.get_or_insert((error, candidate));
            }
        }
    }
    match denied {
        Some((error, file)) => refusal(&error, &file, kept, &shown, ""),
        None => Failure {
            code: 127,
            text: format!(
                "unable to start container process: exec: {shown:?}: executable file not found in $PATH"
            ),
        },
    }
}

fn refusal(error: &io::Error, file: &CString, kept: &[u32], shown: &str, missing: &str) -> Failure {
    let (code, text) = match error.raw_os_error() {
        Some(libc::ENOENT) => (127, format!("{missing}no such file or directory")),
        Some(libc::ENOTDIR) => (127, format!("{missing}not a directory")),
        Some(libc::ENOEXEC) => (126, "exec format error".to_owned()),
        Some(libc::EACCES) => (126, "permission denied".to_owned()),
        Some(libc::EPERM) => (
            126,
            format!("operation not permitted{}", wanted(file, kept)),
        ),
        _ => (126, error.to_string()),
    };
    Failure {
        code,
        text: format!("unable to start container process: exec: {shown:?}: {text}"),
    }
}

/// What to say about a file that wants capabilities which the container has not: the kernel then does not execute it.
fn wanted(file: &CString, kept: &[u32]) -> String {
    let mut value = [0u8; 24];
    let Ok(length) = rustix::fs::getxattr(file.as_c_str(), c"security.capability", &mut value[..])
    else {
        return String::new();
    };
    // A header, then permitted and inheritable of 32 capabilities, then those of the next 32.
    let word = |at: usize| {
        let bytes = value.get(..length)?.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let words = [word(4).unwrap_or(0), word(12).unwrap_or(0)];
    let bits = (0u32..).zip(words).flat_map(|(at, word)| {
        let numbers = (0..32).filter(move |bit| word & (1 << bit) != 0);
        numbers.map(move |bit| at * 32 + bit)
    });
    let names = bits.filter(|number| !kept.contains(number));
    let names: Vec<String> = names.filter_map(security::capability_name).collect();
    match names.as_slice() {
        [] => String::new(),
        names => {
            let options = names.iter().map(|name| {
                let short = name.strip_prefix("CAP_").unwrap_or(name);
                format!("--cap-add {short}")
            });
            let options: Vec<String> = options.collect();
            format!(
                "; the file wants a capability that the container has not: {}",
                options.join(" ")
            )
        }
    }
}

pub(super) fn strings(texts: &[String]) -> Result<Vec<CString>, Failure> {
    let texts = texts.iter().map(|text| CString::new(text.as_str()));
    texts
        .collect::<Result<_, _>>()
        .fails("an argument or variable contains a NUL byte")
}
