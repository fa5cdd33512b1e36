use proptest::prelude::*;

use super::ignore::{Ignore, clean};
use super::pattern::Pattern;
use super::*;

fn parsed(text: &str) -> Dockerfile {
    Dockerfile::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refusal(text: &str) -> String {
    match Dockerfile::parse(text.as_bytes()) {
        Ok(file) => panic!("accepted: {text}\n{file:?}"),
        Err(error) => error.to_string(),
    }
}

fn texts(file: &Dockerfile) -> Vec<&str> {
    let steps = file.stages.iter().flat_map(|stage| &stage.steps);
    steps.map(|step| step.text.as_str()).collect()
}

#[test]
fn lines_are_joined_and_comments_dropped() {
    let file = parsed(
        "# syntax=docker/dockerfile:1\n# a comment\nFROM\ta\n  RUN one \\\n  # not this\n\n    && two \\  \n  three\nRUN four\\\\\nrun five",
    );
    assert_eq!(
        texts(&file),
        ["RUN one     && two   three", "RUN four\\\\", "run five"]
    );
    let lines: Vec<usize> = file.stages[0].steps.iter().map(|step| step.line).collect();
    assert_eq!((file.stages[0].line, lines), (3, vec![4, 9, 10]));
    // A directive counts at the top only; another escape frees the backslash.
    let file = parsed("# escape=`\nFROM a\nRUN dir c:\\\nRUN one `\n two");
    assert_eq!(texts(&file), ["RUN dir c:\\", "RUN one  two"]);
    let file = parsed("\u{feff}FROM a\n# escape=`\nRUN one \\\r\n two\r\n");
    assert_eq!(texts(&file), ["RUN one  two"]);
}

#[test]
fn heredocs_follow_their_instruction() {
    let file = parsed(
        "FROM a\nRUN <<EOF\none\n  two\nEOF\nCOPY <<-A <<\"B\" /x/\n\t$a\nA\n$b\nB\nRUN 3<<X cat\nX\nRUN echo \"<<EOF\" <<\nRUN last",
    );
    let steps = &file.stages[0].steps;
    let Instruction::Run(run) = &steps[0].instruction else {
        panic!()
    };
    assert_eq!(run.heredocs[0].content, "one\n  two\n");
    assert!(run.heredocs[0].expand);
    let Instruction::Copy(copy) = &steps[1].instruction else {
        panic!()
    };
    let text = |at: usize| match &copy.sources[at] {
        CopySource::Text(text) => (text.name.as_str(), text.content.as_str(), text.expand),
        CopySource::Path(path) => panic!("{path}"),
    };
    assert_eq!(text(0), ("A", "$a\n", true));
    assert_eq!(text(1), ("B", "$b\n", false));
    assert_eq!(copy.destination, "/x/");
    let Instruction::Run(run) = &steps[2].instruction else {
        panic!()
    };
    assert_eq!(run.heredocs[0].descriptor, Some(3));
    let Instruction::Run(run) = &steps[3].instruction else {
        panic!()
    };
    assert!(run.heredocs.is_empty());
    assert_eq!(steps.len(), 5);
}

#[test]
fn stages_have_names_and_numbers() {
    let file =
        parsed("ARG A=1\nFROM a AS Base\nFROM --platform=linux/arm64 b:$A\nFROM base as last\n");
    assert_eq!(file.arguments.len(), 1);
    assert_eq!(file.stages[0].name.as_deref(), Some("base"));
    assert_eq!(file.stages[1].platform.as_deref(), Some("linux/arm64"));
    assert_eq!(file.stages[1].base, "b:$A");
    assert_eq!(file.stage_before("BASE", 2), Some(0));
    assert_eq!(file.stage_before("1", 2), Some(1));
    assert_eq!(file.stage_before("2", 2), None);
    assert_eq!(file.stage_before("last", 2), None);
}

#[test]
fn flags_come_first() {
    let file = parsed(
        "FROM a\nCOPY --from=b --chown=1:2 --chmod=755 --link --parents --exclude=*.o --exclude=x c d /e/\nADD --checksum=sha256:00 http://h/f /f\nRUN --mount=type=cache,target=/c --mount=\"type=tmpfs,target=/t\" --network=host make --all\nCOPY [\"a b\", \"--c\", \"/d/\"]",
    );
    let steps = &file.stages[0].steps;
    let Instruction::Copy(copy) = &steps[0].instruction else {
        panic!()
    };
    assert_eq!(copy.from.as_deref(), Some("b"));
    assert_eq!(copy.chown.as_deref(), Some("1:2"));
    assert_eq!(copy.exclude, ["*.o", "x"]);
    assert!(copy.parents && !copy.add);
    let Instruction::Run(run) = &steps[2].instruction else {
        panic!()
    };
    assert_eq!(run.mounts, ["type=cache,target=/c", "type=tmpfs,target=/t"]);
    assert_eq!(run.line, Line::Shell("make --all".to_owned()));
    let Instruction::Copy(copy) = &steps[3].instruction else {
        panic!()
    };
    assert_eq!(
        copy.sources,
        [
            CopySource::Path("a b".to_owned()),
            CopySource::Path("--c".to_owned())
        ]
    );
}

#[test]
fn refusals_name_the_line() {
    let at = |line: usize, text: &str| format!("dockerfile parse error on line {line}: {text}");
    let long = format!("FROM a\nRUN {}", "x".repeat(1 << 20));
    for (text, line, words) in [
        ("", 1, "file with no instructions"),
        ("# only this\n\n", 1, "file with no instructions"),
        ("FROM a\n\nRUNN x", 3, "unknown instruction: RUNN"),
        ("RUN x", 1, "no build stage in current context"),
        ("ARG x", 1, "no build stage in current context"),
        ("FROM", 1, "FROM requires either one or three arguments"),
        ("FROM a b", 1, "FROM requires either one or three arguments"),
        (
            "FROM a AS 1b",
            1,
            "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        ),
        ("FROM a\nCOPY --foo=1 a b", 2, "unknown flag: --foo"),
        ("FROM a\nADD --from=x a b", 2, "unknown flag: --from"),
        (
            "FROM a\nCOPY --from a b",
            2,
            "missing a value on flag: --from",
        ),
        (
            "FROM a\nCOPY --from=a --from=b c d",
            2,
            "duplicate flag specified: --from",
        ),
        (
            "FROM a\nCOPY x",
            2,
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined.",
        ),
        ("FROM a\nRUN", 2, "RUN requires at least one argument"),
        ("FROM a\nRUN []", 2, "RUN requires at least one argument"),
        ("FROM a\nENV", 2, "ENV requires at least one argument"),
        ("FROM a\nENV A", 2, "ENV must have two arguments"),
        ("FROM a\nARG", 2, "ARG requires at least one argument"),
        ("FROM a\nARG =x", 2, "ARG names can not be blank"),
        (
            "FROM a\nSHELL bash",
            2,
            "SHELL requires the arguments to be in JSON form",
        ),
        ("FROM a\nRUN <<EOF\nx", 2, "unterminated heredoc: EOF"),
        (
            "FROM a\nRUN --security=insecure x",
            2,
            "RUN --security=insecure is not allowed: a build gives no further rights",
        ),
        (
            "FROM a\nRUN --network=none x",
            2,
            "RUN --network=none is not supported: a build uses the host's network",
        ),
        ("FROM a\nONBUILD nope", 2, "unknown instruction: nope"),
        (
            "# escape=x\nFROM a",
            1,
            "invalid escape token 'x' does not match ` or \\",
        ),
        (
            &long,
            2,
            "dockerfile line greater than maximum allowed size of 65535",
        ),
        ("FROM a\nRUN \0", 2, "the line contains a NUL byte"),
    ] {
        assert_eq!(refusal(text), at(line, words));
    }
    let error = Dockerfile::parse(b"FROM a\nRUN \xff").unwrap_err();
    assert_eq!(error.line, 2);
}

#[test]
fn values_are_cut_and_replaced() {
    let env = ["F=a/b/c.tar.gz", "E=", "P=foo.bar.baz"].map(str::to_owned);
    let expand = Expand {
        env: &env,
        ..Expand::plain('\\')
    };
    for (word, expected) in [
        ("${F#*/}", "b/c.tar.gz"),
        ("${F##*/}", "c.tar.gz"),
        ("${F%.*}", "a/b/c.tar"),
        ("${F%%.*}", "a/b/c"),
        ("${F#x}", "a/b/c.tar.gz"),
        ("${P/./-}", "foo-bar.baz"),
        ("${P//./-}", "foo-bar-baz"),
        ("${P/ba?/X}", "foo.X.baz"),
        ("${P//ba?/X}", "foo.X.X"),
        ("${P/foo.bar.baz/}", ""),
        ("${F//\\//_}", "a_b_c.tar.gz"),
        ("${E-x}", ""),
        ("${E:-x}", "x"),
        ("${U-x}", "x"),
        ("${E+x}", "x"),
        ("${E:+x}", ""),
        ("${U:-${P%%.*}}", "foo"),
        ("'${P}'\"${E}\"", "${P}"),
        ("$Px$P", "foo.bar.baz"),
    ] {
        assert_eq!(expand.word(word).as_deref(), Ok(expected), "{word}");
    }
    let raw = Expand {
        raw: true,
        ..expand
    };
    for (word, expected) in [
        ("\"$P\" 'x'\n", "\"foo.bar.baz\" 'x'\n"),
        ("\\$P \\\\ \\n", "$P \\ \\n"),
    ] {
        assert_eq!(raw.word(word).as_deref(), Ok(expected), "{word}");
    }
    let deep = "${U:-".repeat(1000);
    assert!(expand.word(&deep).is_err());
}

/// Go's `filepath.Match`.
#[test]
fn patterns_of_names() {
    for (pattern, path, expected) in [
        ("abc", "abc", true),
        ("*", "abc", true),
        ("*c", "abc", true),
        ("a*", "a", true),
        ("a*", "ab/c", false),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^b-d]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a?b", "a\u{263a}b", true),
        ("a[^a]b", "a\u{263a}b", true),
        ("a???b", "a\u{263a}b", false),
        ("[a-\u{3b6}]*", "\u{3b1}", true),
        ("*[a-\u{3b6}]", "A", false),
        ("a?b", "a/b", false),
        ("a*b", "a/b", false),
        ("[\\]a]", "]", true),
        ("[\\-]", "-", true),
        ("[x\\-]", "-", true),
        ("[\\-x]", "a", false),
        ("*x", "xxx", true),
        ("**", "a/b", false),
    ] {
        let pattern_read = Pattern::new(pattern.as_bytes()).unwrap();
        assert_eq!(
            pattern_read.matches(path.as_bytes()),
            expected,
            "{pattern} {path}"
        );
    }
    for bad in [
        "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\",
    ] {
        assert!(Pattern::new(bad.as_bytes()).is_err(), "{bad}");
    }
    let any = Pattern::new(b"a?b").unwrap();
    assert!(any.matches(b"a\xffb"));
}

/// What `.dockerignore` files say, as docker's matcher has it.
#[test]
fn ignore_files() {
    for (rules, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc?def", "abcZdef", true),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("*.log", "sub/b.log", false),
        ("/x", "x", true),
        ("x/../y", "y", true),
        ("./x", "x", true),
        ("x/", "x/y", true),
        ("  x  ", "x", true),
        (" #x", "#x", true),
        ("#x", "#x", false),
        ("docs\n!docs/README.md", "docs/README.md", false),
        ("docs/\n!docs/README.md", "docs/README.md", false),
        ("docs/*\n!docs/README.md", "docs/README.md", false),
        ("!docs/README.md\ndocs", "docs/README.md", true),
        (
            "*.md\n!README*.md\nREADME-secret.md",
            "README-secret.md",
            true,
        ),
        ("*.md\n!README*.md\nREADME-secret.md", "README.md", false),
        ("*\n!util/docker/web", "util/docker/web/foo", false),
        (
            "*\n!util/docker/web\nutil/docker/web/foo",
            "util/docker/web/foo",
            true,
        ),
        ("*\n!util/docker/web/foo", "util/docker/web", true),
        (
            "util/docker\n!util/docker/web",
            "util/docker/web/foo",
            false,
        ),
        ("**\n!b", "a/b", true),
        (
            "vendor/\n**/vendor\n!internal/vendor",
            "internal/vendor/x",
            false,
        ),
        // An exception that changes nothing for the directory changes nothing for what is in it.
        ("a/c\n!a", "a/c", true),
        // Whatever comes before, as long as nothing else is special.
        ("**b", "ab", true),
        ("**b", "a/ab", true),
        ("**b*", "ab", false),
        ("a**b", "axb", false),
        ("a[^b]c", "a/c", true),
        ("\u{feff}x", "x", true),
    ] {
        let ignore = Ignore::parse(rules.as_bytes()).unwrap();
        assert_eq!(
            ignore.excludes(path.as_bytes()),
            expected,
            "{rules:?} {path}"
        );
    }
    for (rules, line) in [("a\n[", 2), ("!", 1), ("a\\", 1), ("x\n\n! \n", 3)] {
        assert_eq!(
            Ignore::parse(rules.as_bytes()).unwrap_err().line,
            line,
            "{rules:?}"
        );
    }
    let reach = |rules: &str, dir: &str| {
        let ignore = Ignore::parse(rules.as_bytes()).unwrap();
        ignore.may_take_in_below(dir.as_bytes())
    };
    assert!(reach("*\n!a/b/c", "a"));
    assert!(!reach("*\n!a/b/c", "b"));
    assert!(reach("*\n!**/c", "b/x"));
    assert!(reach("*\n!*/c", "b"));
    assert!(!reach("*\n!*/c", "b/x"));
    assert!(!reach("*\n!a*", "abc"));
    assert_eq!(clean(b"/a//b/./../c/"), b"a/c");
}

proptest! {
    /// Whatever a file holds, it is read or refused with a line that it has.
    #[test]
    fn any_text_is_read_or_refused_with_its_line(
        lines in proptest::collection::vec(
            prop_oneof![
                "(FROM|RUN|COPY|ADD|ENV|ARG|LABEL|ONBUILD|HEALTHCHECK|SHELL|VOLUME|EXPOSE)?[ -~\t]{0,24}",
                "(RUN|COPY) <<-?['\"]?E['\"]? /?[a-z]{0,3}", Just("E".to_owned()),
                "# ?(escape|syntax)=.{0,3}", ".{0,12}\\\\",
            ], 0..12),
        tail in proptest::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut bytes = lines.join("\n").into_bytes();
        bytes.extend(tail);
        let count = bytes.split(|byte| *byte == b'\n').count();
        if let Err(error) = Dockerfile::parse(&bytes) {
            prop_assert!((1..=count).contains(&error.line), "{error}");
            prop_assert!(!error.text.is_empty());
        }
    }

    /// Expanding any text ends, with a text or a refusal.
    #[test]
    fn any_text_is_expanded_or_refused(text in "[ -~]{0,40}", raw in any::<bool>()) {
        let env = ["A=x/y".to_owned(), "B=".to_owned()];
        let expand = Expand { env: &env, escape: '\\', raw };
        let _ = expand.word(&text);
    }

    /// A pattern without special characters matches itself and nothing else.
    #[test]
    fn a_name_matches_itself(name in "[a-z./]{1,12}", other in "[a-z./]{1,12}") {
        let pattern = Pattern::deep(name.as_bytes()).unwrap();
        prop_assert_eq!(pattern.matches(other.as_bytes()), name == other);
        prop_assert!(pattern.matches(name.as_bytes()));
    }
}

/// What each of these would cost a matcher that tries is more than all machines have; here it is the pattern's length times
/// the path's, counted.
#[test]
fn regression_patterns_cost_their_length_times_the_path_s() {
    let path = "a/".repeat(100) + &"a".repeat(100);
    let patterns = [
        "*a".repeat(60) + "b",
        "**/a/".repeat(60) + "b",
        "**/**/".repeat(60) + "b",
        "**a".repeat(60) + "b",
        "a*/".repeat(100) + "b",
        "?*".repeat(60) + "b",
        "[a-z]*".repeat(60) + "!",
    ];
    for pattern in &patterns {
        let parsed = Pattern::deep(pattern.as_bytes()).unwrap();
        crate::oci::syntax::pattern::LOOKED_AT.set(0);
        assert!(!parsed.matches(path.as_bytes()), "{pattern}");
        parsed.may_match_below(path.as_bytes());
        let cost = crate::oci::syntax::pattern::LOOKED_AT.get();
        assert!(
            cost <= 2 * (pattern.len() + 1) * (path.len() + 2),
            "{pattern}: {cost}"
        );
    }
    let rules = patterns.join("\n");
    crate::oci::syntax::pattern::LOOKED_AT.set(0);
    assert!(
        !Ignore::parse(rules.as_bytes())
            .unwrap()
            .excludes(path.as_bytes())
    );
    // For each directory on the way.
    let cost = crate::oci::syntax::pattern::LOOKED_AT.get();
    assert!(cost <= 101 * rules.len() * (path.len() + 1), "{cost}");
}

#[test]
fn regression_substitutions_cost_what_is_allowed_or_are_refused() {
    let long = "a".repeat(3000);
    let env = [format!("X={long}"), format!("Y={}", "a".repeat(200))];
    let expand = Expand {
        env: &env,
        escape: '\\',
        raw: false,
    };
    for word in [
        "${Y##*a*a*a*a*a*a*a*a*a*a*a*b}",
        "${Y%%b*a*a*a*a*a*a*a*a*a*a*a*}",
        "${Y//*a*a*a*a*a*a*a*a*a*a*b/c}",
        "${Y#?*?*?*?*?*?*?*?*b}",
    ] {
        crate::oci::syntax::pattern::LOOKED_AT.set(0);
        assert_eq!(expand.word(word).unwrap(), "a".repeat(200), "{word}");
        let cost = crate::oci::syntax::pattern::LOOKED_AT.get();
        assert!(cost <= 201 * 201 * word.len(), "{word}: {cost}");
    }
    let word = format!("${{X//{}b/c}}", "*a".repeat(100));
    assert!(
        expand
            .word(&word)
            .unwrap_err()
            .to_string()
            .contains("too long")
    );
    // Thirty lines would make a gigabyte of a byte.
    let mut env = vec!["X=0123456789abcdef".to_owned()];
    let refused = (0..60).find_map(|_| {
        let expand = Expand {
            env: &env,
            escape: '\\',
            raw: false,
        };
        match expand.word("$X\"$X\"") {
            Ok(value) => {
                env = vec![format!("X={value}")];
                None
            }
            Err(error) => Some(error.to_string()),
        }
    });
    assert!(refused.unwrap().contains("too long"));
    assert!(env[0].len() <= 2 << 20);
}
