//! RUN --mount.

use super::*;

#[test]
fn root_build_mounts_are_seen_by_the_step_and_no_layer_has_them() {
    let s = sandbox();
    context(
        &s,
        "c",
        &[
            ("src/a", "A"),
            ("src/b", "B"),
            ("secret", "tOp9"),
            (".dockerignore", "src/b\n"),
        ],
    );
    let file = "FROM app:1 AS tools\nRUN echo tool > /tool\nFROM app:1\n\
        RUN --mount=type=bind,target=/src,source=src cat /src/a > /bound; ls /src > /names; ! touch /src/x\n\
        RUN --mount=from=tools,source=/tool,target=/opt/tool cat /opt/tool > /tooled\n\
        RUN --mount=type=tmpfs,target=/scratch,size=1m touch /scratch/x; df /scratch | grep -c tmpfs > /tmpfs\n\
        RUN --mount=type=secret,id=token cat /run/secrets/token | wc -c > /length; stat -c %a:%u /run/secrets/token > /mode\n\
        RUN --mount=type=secret,id=token,env=TOKEN,target=/etc/token,mode=0444 test \"${#TOKEN}\" = 4 && test -e /etc/token\n\
        RUN --mount=type=secret,id=other test ! -e /run/secrets/other\n";
    fs::write(s.path("c/Dockerfile"), file).unwrap();
    let secret = format!("id=token,src={}", s.path("c/secret").display());
    build(&s, "c", &["-t", "m:1", "--secret", &secret]).ok();
    for (path, expected) in [
        ("/bound", "A"),
        ("/names", "a\n"),
        ("/tooled", "tool\n"),
        ("/tmpfs", "1\n"),
        ("/length", "4\n"),
        ("/mode", "400:0\n"),
    ] {
        assert_eq!(content(&s, "m:1", path), expected, "{path}");
    }
    // Neither mount points nor the secret are anywhere in the image or the store.
    let all = listing(&s, "m:1", "").join("\n");
    for path in [
        " src",
        " opt",
        " scratch",
        " run",
        " etc/token",
        " etc/resolv.conf",
        " etc/hosts",
    ] {
        assert!(!all.contains(path), "{path}\n{all}");
    }
    let found = s.sh("! grep -rl tOp9 \"$MICA_STORE\"");
    found.ok();
    // A secret that is not given: refused if it must be.
    let required = "FROM app:1\nRUN --mount=type=secret,id=x,required=true true\n";
    let error = build_text(&s, required, &[]).code(1).stderr();
    assert!(error.contains("secret x: not found"), "{error}");
}

#[test]
fn root_build_cache_mounts_last_from_build_to_build() {
    let s = sandbox();
    let file = |word: &str| {
        format!(
            "FROM app:1\nRUN --mount=type=cache,target=/cache,id=one,mode=0700,uid=7 echo {word} >> /cache/log; cat /cache/log > /log; stat -c %a:%u /cache > /mode\n"
        )
    };
    build_text(&s, &file("first"), &["-t", "k:1"]).ok();
    assert_eq!(content(&s, "k:1", "/log"), "first\n");
    assert_eq!(content(&s, "k:1", "/mode"), "700:7\n");
    build_text(&s, &file("second"), &["-t", "k:1"]).ok();
    assert_eq!(content(&s, "k:1", "/log"), "first\nsecond\n");
    assert!(
        !listing(&s, "k:1", "")
            .iter()
            .any(|line| line.contains("cache"))
    );
    // Pruning takes it only with everything.
    shown(&s, "builder prune -f");
    build_text(&s, &file("third"), &["-t", "k:1"]).ok();
    assert_eq!(content(&s, "k:1", "/log"), "first\nsecond\nthird\n");
    shown(&s, "builder prune -af");
    build_text(&s, &file("fourth"), &["-t", "k:1"]).ok();
    assert_eq!(content(&s, "k:1", "/log"), "fourth\n");
}

/// What a bind shows is part of what its step depends on.
#[test]
fn root_build_binds_count_for_the_cache() {
    let s = sandbox();
    context(
        &s,
        "c",
        &[
            (
                "Dockerfile",
                "FROM app:1\nRUN --mount=target=/src cat /src/a > /a\n",
            ),
            ("a", "1"),
        ],
    );
    build(&s, "c", &["-t", "b:1"]).ok();
    assert_eq!(cached(&build(&s, "c", &[]).ok()), 1);
    fs::write(s.path("c/a"), "2").unwrap();
    assert_eq!(cached(&build(&s, "c", &["-t", "b:1"]).ok()), 0);
    assert_eq!(content(&s, "b:1", "/a"), "2");
}
