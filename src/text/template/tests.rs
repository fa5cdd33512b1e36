//! Templates that docker's documentation and users write, and those that they get wrong.

use crate::text::template::*;

fn data() -> Value {
    let json = serde_json::json!({
        "Id": "sha256:abc",
        "Architecture": "amd64",
        "Size": 4613,
        "Parent": "",
        "Nothing": null,
        "RepoTags": ["app:1", "app:latest"],
        "Config": {
            "Env": ["PATH=/bin", "A=b"],
            "Labels": {"b.c": "two", "a": "one"},
            "Volumes": {},
            "Cmd": ["sh", "-c", "echo <&>"],
        },
    });
    Value::of(&json, &["Labels", "Volumes"]).unwrap()
}

fn render(template: &str) -> Result<String, TemplateError> {
    Template::parse(template)?.render(&data())
}

#[test]
fn what_templates_print() {
    let table = [
        ("", ""),
        ("text }} only", "text }} only"),
        ("{{.Architecture}}", "amd64"),
        ("{{ .Id }} {{.Size}}", "sha256:abc 4613"),
        ("{{.RepoTags}}", "[app:1 app:latest]"),
        ("{{.Config.Labels}}", "map[a:one b.c:two]"),
        ("{{.Config.Labels.a}}", "one"),
        ("{{.Config.Labels.nothing}}", "<no value>"),
        ("{{.Nothing}}", "<no value>"),
        ("{{index .Config.Labels \"b.c\"}}", "two"),
        ("{{index .Config.Labels \"x\"}}", ""),
        ("{{index .RepoTags 0}}", "app:1"),
        ("{{(index .RepoTags 1)}}", "app:latest"),
        ("{{json .RepoTags}}", "[\"app:1\",\"app:latest\"]"),
        ("{{json .Config.Labels}}", "{\"a\":\"one\",\"b.c\":\"two\"}"),
        ("{{.Config.Cmd | json}}", "[\"sh\",\"-c\",\"echo <&>\"]"),
        ("{{json .Nothing}}", "null"),
        ("{{join .RepoTags \", \"}}", "app:1, app:latest"),
        ("{{range .RepoTags}}{{.}};{{end}}", "app:1;app:latest;"),
        (
            "{{range $i, $t := .RepoTags}}{{$i}}={{$t}} {{end}}",
            "0=app:1 1=app:latest ",
        ),
        (
            "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}},{{end}}",
            "a=one,b.c=two,",
        ),
        ("{{range .Config.Volumes}}x{{else}}none{{end}}", "none"),
        (
            "{{range .RepoTags}}{{.}}{{else}}none{{end}}",
            "app:1app:latest",
        ),
        ("{{range .RepoTags}}{{.}}{{break}}{{end}}", "app:1"),
        (
            "{{range .RepoTags}}{{if eq . \"app:1\"}}{{continue}}{{end}}{{.}}{{end}}",
            "app:latest",
        ),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{if .Parent}}p{{else if .Size}}s{{else}}n{{end}}", "s"),
        ("{{if not .Parent}}none{{end}}", "none"),
        (
            "{{with .Config}}{{len .Env}} {{$.Architecture}}{{end}}",
            "2 amd64",
        ),
        ("{{with .Parent}}x{{else}}y{{end}}", "y"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{end}}{{$x}}", "1"),
        ("a {{- /* comment */ -}} b", "ab"),
        ("a\n{{- .Architecture -}}\n b", "aamd64b"),
        ("{{/* c */}}x{{/* d\n */}}", "x"),
        (
            "{{upper \"abc\"}} {{lower \"ABC\"}} {{title \"a nice image\"}}",
            "ABC abc A Nice Image",
        ),
        ("{{pad .Architecture 1 2}}|", " amd64  |"),
        (
            "{{truncate .Id 6}} {{truncate .Id 100}} {{truncate \"ä\" 1}}|",
            "sha256 sha256:abc |",
        ),
        ("{{index (split .Id \":\") 1}}", "abc"),
        (
            "{{.Id | printf \"%s|%5d|%-5d|%05d|%q\" \"x\" 7 7 7}}",
            "x|    7|7    |00007|\"sha256:abc\"",
        ),
        (
            "{{printf \"%v %t %x %.3s %5.1f%%\" .Size true 255 \"abcdef\" 2.25}}",
            "4613 true ff abc   2.2%",
        ),
        (
            "{{printf \"%d\" \"x\"}}{{printf \"%s\"}}",
            "%!d(string=x)%!s(MISSING)",
        ),
        ("{{print 1 2 \"a\" 3}}{{println \"b\" 4}}", "1 2a3b 4\n"),
        (
            "{{eq .Size 4613}} {{eq .Architecture \"arm64\" \"amd64\"}} {{ne 1 2}} {{lt 1 2}} {{ge \"b\" \"a\"}}",
            "true true true true true",
        ),
        (
            "{{and .Size .Parent}}|{{or .Parent .Architecture}}|{{and true (not false)}}",
            "|amd64|true",
        ),
        (
            "{{len .Id}} {{slice .Id 7}} {{slice .RepoTags 0 1}}",
            "10 abc [app:1]",
        ),
        (
            "{{\"a\\tb\\u00e9\\x41\"}}{{`raw\\n`}}{{'x'}}",
            "a\tbéAraw\\n120",
        ),
        ("{{-3}} {{0x10}} {{1_000}} {{1.5}}", "-3 16 1000 1.5"),
        (
            "{{.}}",
            "{amd64 {[sh -c echo <&>] [PATH=/bin A=b] map[a:one b.c:two] map[]} sha256:abc <nil>  [app:1 app:latest] 4613}",
        ),
    ];
    for (template, expected) in table {
        assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn templates_that_do_not_parse() {
    let table = [
        ("{{", "unclosed action"),
        ("{{.Id", "unclosed action"),
        ("{{.Id}", "unexpected \"}\" in command"),
        ("{{nope .Id}}", "function \"nope\" not defined"),
        ("{{if .Id}}", "unexpected EOF"),
        ("{{range .Id}}{{else}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{}}", "missing value for command"),
        ("{{if}}{{end}}", "missing value for command"),
        ("{{.Id |}}", "missing value for command"),
        ("{{.Id | 3}}", "non executable command in pipeline stage"),
        ("{{(.Id}}", "unclosed left paren"),
        ("{{.Id)}}", "unexpected right paren"),
        ("{{$x}}", "undefined variable \"$x\""),
        (
            "{{if true}}{{$x := 1}}{{end}}{{$x}}",
            "undefined variable \"$x\"",
        ),
        ("{{\"abc}}", "unterminated quoted string"),
        ("{{'ab'}}", "malformed character constant"),
        ("{{1z}}", "bad number syntax: \"1z\""),
        (
            "{{.Id # 1}}",
            "unexpected bad character U+0023 '#' in command",
        ),
        ("{{/* x}}", "unclosed comment"),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{template \"x\"}}", "{{template}} is not supported"),
    ];
    for (template, reason) in table {
        let error = Template::parse(template).map(drop).unwrap_err();
        let reason = reason.to_owned();
        assert_eq!(
            error,
            TemplateError::Parse { line: 1, reason },
            "{template}"
        );
    }
    let error = Template::parse("a\nb\n{{x}}").unwrap_err().to_string();
    assert_eq!(
        error,
        "template parsing error: template: :3: function \"x\" not defined"
    );
}

#[test]
fn templates_that_fail_on_a_value() {
    let table = [
        (
            "{{.Nope}}",
            "1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "x\n{{.Config.Nope}}",
            "2:2: executing \"\" at <.Config.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{.Id.Nope}}",
            "1:2: executing \"\" at <.Id.Nope>: can't evaluate field Nope in type string",
        ),
        (
            "{{range .Size}}{{end}}{{range .Id}}{{end}}",
            "1:30: executing \"\" at <.Id>: range can't iterate over sha256:abc",
        ),
        (
            "{{index .RepoTags 7}}",
            "1:2: executing \"\" at <index>: error calling index: index out of range: 7",
        ),
        (
            "{{upper .Size}}",
            "1:2: executing \"\" at <upper>: error calling upper: wrong type for value; expected string; got int",
        ),
        (
            "{{lt 1 \"a\"}}",
            "1:2: executing \"\" at <lt>: error calling lt: incompatible types for comparison",
        ),
        (
            "{{.Id 3}}",
            "1:2: executing \"\" at <.Id>: can't give argument to non-function .Id",
        ),
        (
            "{{slice .Id 5 3}}",
            "1:2: executing \"\" at <slice>: error calling slice: invalid slice index: 5 > 3",
        ),
    ];
    for (template, expected) in table {
        let error = render(template).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("template parsing error: template: :{expected}"),
            "{template}"
        );
    }
    // Nothing a template says makes it run on and on, or nest beyond the stack.
    assert!(render("{{range 9999999}}{{range 9999999}}{{end}}{{end}}").is_err());
    assert!(
        render(&format!(
            "{}{}",
            "{{if true}}".repeat(5000),
            "{{end}}".repeat(5000)
        ))
        .is_err()
    );
    assert!(
        render(&format!(
            "{{{{{}1{}}}}}",
            "(".repeat(5000),
            ")".repeat(5000)
        ))
        .is_err()
    );
}

/// A few words of a template, or a large value behind an innocent one, cost no more than so many bytes that are moved.
#[test]
fn regression_templates_end() {
    let text = r#"{{$x := "0123456789abcdef"}}{{range 60}}{{$x = print $x $x}}{{end}}{{len $x}}"#;
    let error = render(text).unwrap_err().to_string();
    assert!(error.contains("it looks at too much"), "{error}");
    // Each label is looked up in all of them.
    let labels = (0..30_000).map(|n| (format!("label{n}"), Value::Text("x".repeat(100))));
    let value = Value::Record(vec![("Labels".to_owned(), Value::Map(labels.collect()))].into());
    let template =
        Template::parse("{{range $k, $v := .Labels}}{{index $.Labels $k}}{{end}}").unwrap();
    let error = template.render(&value).unwrap_err().to_string();
    assert!(error.contains("it looks at too much"), "{error}");
    let template =
        Template::parse("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}{{json .}}").unwrap();
    assert!(template.render(&value).unwrap().len() > 30_000 * 200);
}

proptest::proptest! {
    /// Any text parses or is refused; what parses renders or fails. Nothing panics.
    #[test]
    fn nothing_panics(parts in proptest::collection::vec(proptest::sample::select(vec![
        "{{", "}}", "{{-", "-}}", " ", ".", ".Id", ".RepoTags", "$", "$x", ":=", "=", ",", "|", "(", ")", "if", "else", "end",
        "range", "with", "break", "json", "index", "printf", "slice", "truncate", "pad", "len", "eq", "\"ä%5\"", "\"", "'", "`",
        "1", "-", "9e9", "0x", "/*", "*/", "é", "\n", "\\",
    ]), 0..20)) {
        let _ = render(&parts.concat());
    }
}
