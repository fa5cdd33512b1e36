//! Texts: what knows nothing of images and volumes. Go templates, tables and sizes as docker prints them, times and durations as
//! it reads them, globs as Go matches them, numbers inside names.

pub mod format;
pub mod glob;
pub mod rows;
pub mod template;
pub mod time;
pub mod version;

/// A name from a hostile place, fit for a terminal.
pub(crate) fn shown(name: &str) -> String {
    name.chars()
        .flat_map(|c| match c {
            '"' | '\'' | '\\' => vec![c],
            _ => c.escape_debug().collect(),
        })
        .collect()
}
