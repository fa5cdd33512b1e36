//! Steps and their table.

use crate::oci::HistoryEntry;
use crate::ops::fixtures::id;
use crate::ops::image::history::*;

fn entry(created: &str, by: &str, empty: bool) -> HistoryEntry {
    HistoryEntry {
        created: (!created.is_empty()).then(|| created.to_owned()),
        created_by: by.to_owned(),
        empty_layer: empty,
        ..HistoryEntry::default()
    }
}

fn history() -> Vec<HistoryEntry> {
    vec![
        entry(
            "1970-01-01T00:00:00Z",
            "/bin/sh -c #(nop) ADD file:x in / ",
            false,
        ),
        entry(
            "2026-07-01T00:00:00Z",
            "/bin/sh -c #(nop)  CMD [\"bash\"]",
            true,
        ),
        HistoryEntry {
            comment: "buildkit.dockerfile.v0".to_owned(),
            ..entry(
                "2026-07-31T12:00:00Z",
                "RUN\tapt-get update && apt-get install -y --no-install-recommends curl",
                false,
            )
        },
    ]
}

fn shown(steps: &[Step], no_trunc: bool, human: bool) -> String {
    let now = "2026-08-01T12:00:00Z".parse().unwrap();
    table(steps, Style { no_trunc, human }, now, str::to_owned)
}

#[test]
fn newest_first_with_layer_sizes() {
    let id = id("a");
    let steps = steps(&id, &history(), &[77_800_000, 1_234]);
    let short = id.short();
    assert_eq!(
        shown(&steps, false, true),
        format!(
            "IMAGE          CREATED        CREATED BY                                      SIZE      COMMENT\n\
             {short}   24 hours ago   RUN apt-get update && apt-get install -y --n…   1.23kB    buildkit.dockerfile.v0\n\
             <missing>      4 weeks ago    /bin/sh -c #(nop)  CMD [\"bash\"]                 0B        \n\
             <missing>      N/A            /bin/sh -c #(nop) ADD file:x in /               77.8MB    \n"
        )
    );
    let bytes = shown(&steps, true, false);
    assert!(bytes.starts_with("IMAGE "), "{bytes}");
    assert!(
        bytes.contains("CREATED AT")
            && bytes.contains(" 77800000 ")
            && bytes.contains(&id.to_string())
    );
    assert!(bytes.contains("--no-install-recommends curl"));
    assert_eq!(
        ids(&steps, false),
        [short.as_str(), "<missing>", "<missing>"]
    );
}

#[test]
fn every_layer_has_a_row() {
    let id = id("a");
    let sizes = |history: &[HistoryEntry], layers: &[u64]| {
        steps(&id, history, layers)
            .iter()
            .map(|s| s.size)
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(&[], &[1, 2]), [2, 1]);
    assert_eq!(sizes(&history(), &[1, 2, 3]), [3, 2, 0, 1]);
    // More steps than layers: the steps stand, without sizes.
    assert_eq!(sizes(&history(), &[1]), [0, 0, 1]);
    assert_eq!(sizes(&[], &[]), [0; 0]);
    assert_eq!(steps(&id, &[], &[1])[0].id, Some(id));
}

#[test]
fn foreign_text_is_made_safe_before_it_is_cut() {
    let steps = steps(&id("a"), &[entry("", "a\nb", false)], &[]);
    let text = table(
        &steps,
        Style {
            no_trunc: false,
            human: true,
        },
        jiff::Timestamp::UNIX_EPOCH,
        |s| s.replace('\n', "\\n"),
    );
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("a\\nb"));
}
