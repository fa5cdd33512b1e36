//! What programs do that change many small files: copies, a database, a package manager; beside the host's own directory.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::ground::{FUSE_OVERLAYFS_1, Ground, HOST, MICA};
use super::trees::Tree;
use crate::bench::table::{Table, verdict};
use crate::bench::timing::{interleaved, ms, ratio, script, timed};

/// Work, what it does in `$ROOT`, and how many times as long as on the host it may take.
const WORK: [(&str, &str, f64); 3] = [
    (
        "cp -a, rm -r",
        "cp -a $ROOT/work $ROOT/copy && rm -r $ROOT/copy",
        2.5,
    ),
    ("500 sqlite transactions", SQLITE, 1.5),
    (
        "npm ci, 40 packages",
        "cd $ROOT/npm && rm -rf node_modules && npm ci --offline --silent --no-audit --no-fund",
        2.0,
    ),
];
const SQLITE: &str = r#"rm -f $ROOT/base.db*; python3 -c '
import os, sqlite3
base = sqlite3.connect(os.environ["ROOT"] + "/base.db", isolation_level=None)
base.execute("create table t (n integer primary key, x text)")
for n in range(500):
    base.execute("begin"); base.execute("insert into t values (?, ?)", (n, "x" * 200)); base.execute("commit")
'"#;
/// Makes packages in `$FROM` and a project in `$ROOT` that needs them.
const PACKAGES: &str = r#"
mkdir -p $FROM $ROOT/npm
list=
for n in $(seq 40); do
    if [ ! -e $FROM/p$n.tgz ]; then
        mkdir -p $FROM/package/lib
        printf '{"name":"p%s","version":"1.0.0"}' $n >$FROM/package/package.json
        for f in $(seq 50); do echo "module.exports = $f" >$FROM/package/lib/f$f.js; done
        tar -C $FROM -czf $FROM/p$n.tgz package
    fi
    list="$list${list:+,}\"p$n\":\"file:$FROM/p$n.tgz\""
done
printf '{"name":"x","version":"1.0.0","dependencies":{%s}}' "$list" >$ROOT/npm/package.json
cd $ROOT/npm && npm install --offline --silent --no-audit --no-fund
"#;

/// Who is measured; the last as a peer.
const PLACES: [usize; 3] = [HOST, MICA, FUSE_OVERLAYFS_1];

pub fn run(ground: &Ground, tree: &Tree, quick: bool) {
    let with_npm = has_npm();
    let packages = ground.beside("packages");
    for place in PLACES {
        let root = &ground.places[place].root;
        fs::create_dir(root.join("work")).expect("mkdir");
        timed(script("tar -C $ROOT/work -xf $TAR", root).env("TAR", tree.tar()));
        if with_npm {
            timed(at(ground, place, PACKAGES, &packages).env("FROM", packages.join("from")));
        }
    }
    let rounds = if quick { 1 } else { 3 };
    let mut rows = Vec::new();
    for (name, text, most) in WORK {
        if name.starts_with("npm") && !with_npm {
            eprintln!("bench: no npm here");
            continue;
        }
        eprintln!("bench: {name}, {}", ground.file_system);
        let times = interleaved(rounds, PLACES.len(), |place| {
            ground.renew(PLACES[place]);
            rustix::fs::sync();
            timed(&mut at(ground, PLACES[place], text, &packages))
        });
        let asked = ground.requests(|| {
            timed(&mut at(ground, MICA, text, &packages));
        });
        rows.push((name, times, most, asked));
    }
    let title = format!("ms, volume on {}", ground.file_system);
    let head = [
        &title,
        "host",
        "mica",
        "x host",
        "fuse-overlayfs 1",
        "target",
        "reached",
    ];
    let mut table = Table::new(&head);
    for (name, times, most, _) in &rows {
        table.row(row(name, times, *most));
    }
    table.print();
    println!("requests:");
    for (name, _, _, asked) in &rows {
        let kinds = asked.iter().map(|(kind, count)| format!("{count} {kind}"));
        println!("{name}: {}", kinds.collect::<Vec<_>>().join(", "));
    }
    for place in PLACES {
        ground.renew(place);
        let text = "rm -rf $ROOT/work $ROOT/npm $ROOT/base.db*";
        timed(&mut script(text, &ground.places[place].root));
    }
}

fn at(ground: &Ground, place: usize, text: &str, packages: &Path) -> Command {
    let mut command = script(text, &ground.places[place].root);
    command
        .env("HOME", packages)
        .env("npm_config_cache", packages.join("cache"));
    command
}

fn has_npm() -> bool {
    let mut npm = Command::new("npm");
    npm.arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    npm.status().is_ok_and(|status| status.success())
}

fn row(name: &str, times: &[Duration], most: f64) -> Vec<String> {
    let slower = ratio(times[1], times[0]);
    vec![
        name.to_owned(),
        ms(times[0]),
        ms(times[1]),
        format!("{slower:.2}"),
        ms(times[2]),
        format!("<= {most:.1}"),
        verdict(slower <= most),
    ]
}
