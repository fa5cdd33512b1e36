//! Real and hostile configs as texts.

use super::*;

const D1: &str = "sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

fn config(text: &str) -> Result<ImageConfig, DocumentError> {
    ImageConfig::parse(text.replace("D1", D1).as_bytes())
}

#[test]
fn a_docker_config_is_read_whole() {
    let text = r#"{
      "architecture": "arm64", "variant": "v8", "os": "linux", "os.version": "1.2", "author": "me", "comment": "c",
      "created": "2024-05-06T07:08:09.123456789Z", "container": "abc", "docker_version": "18.06",
      "container_config": {"Cmd": ["x"]},
      "config": {
        "Hostname": "", "User": "1000:1000", "ExposedPorts": {"80/tcp": {}, "443/tcp": null}, "Tty": false,
        "Env": ["PATH=/bin", "A=b=c"], "Cmd": ["nginx", "-g"], "Entrypoint": ["/e.sh"], "Volumes": {"/v": {}},
        "WorkingDir": "/w", "Labels": {"k": "v", "e": ""}, "StopSignal": "SIGQUIT", "OnBuild": ["RUN x"],
        "Shell": ["/bin/bash", "-c"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000, "Retries": 3}
      },
      "history": [{"created": "2024-05-06T07:08:09Z", "created_by": "ADD x"}, {"created_by": "CMD", "empty_layer": true, "comment": "buildkit"}],
      "rootfs": {"type": "layers", "diff_ids": ["D1"]}
    }"#;
    let c = config(text).unwrap();
    assert_eq!(c.platform.to_string(), "linux/arm64/v8");
    assert_eq!(
        (c.os_version.as_str(), c.author.as_str(), c.comment.as_str()),
        ("1.2", "me", "c")
    );
    assert_eq!(c.created.as_deref(), Some("2024-05-06T07:08:09.123456789Z"));
    assert_eq!(c.created_at().unwrap().subsec_nanosecond(), 123_456_789);
    let run = &c.run;
    assert_eq!(run.user, "1000:1000");
    assert_eq!(run.exposed_ports, ["443/tcp", "80/tcp"]);
    assert_eq!(run.env, ["PATH=/bin", "A=b=c"]);
    assert_eq!(run.cmd.as_deref().unwrap(), ["nginx", "-g"]);
    assert_eq!(run.entrypoint.as_deref().unwrap(), ["/e.sh"]);
    assert_eq!(run.volumes, ["/v"]);
    assert_eq!(run.working_dir, "/w");
    assert_eq!(run.labels.get("k").map(String::as_str), Some("v"));
    assert_eq!(run.stop_signal, "SIGQUIT");
    assert_eq!(run.on_build, ["RUN x"]);
    assert_eq!(run.shell.as_deref().unwrap(), ["/bin/bash", "-c"]);
    let health = run.healthcheck.as_ref().unwrap();
    assert_eq!((health.interval, health.retries), (30_000_000_000, 3));
    assert_eq!(c.diff_ids, [D1.parse().unwrap()]);
    assert_eq!(c.history.len(), 2);
    assert!(c.history[1].empty_layer && !c.history[0].empty_layer);
    assert_eq!(c.history[1].created_at(), None);
}

#[test]
fn the_id_is_of_the_exact_bytes() {
    let (a, b) = (r#"{"rootfs":{}}"#, r#"{"rootfs": {}}"#);
    let (ca, cb) = (config(a).unwrap(), config(b).unwrap());
    assert_ne!(ca.id, cb.id);
    assert_eq!(ca.id.0, Digest::of(a.as_bytes()));
    assert_eq!(cb.bytes, b.as_bytes());
}

#[test]
fn null_is_empty_everywhere() {
    let c = config(
        r#"{"architecture": null, "os": null, "os.version": null, "variant": null, "author": null, "comment": null,
        "created": null, "config": {"User": null, "ExposedPorts": null, "Env": null, "Cmd": null, "Entrypoint": null,
        "Volumes": null, "WorkingDir": null, "Labels": null, "StopSignal": null, "OnBuild": null, "Shell": null,
        "Healthcheck": null, "ArgsEscaped": null}, "history": null, "rootfs": {"type": null, "diff_ids": null}}"#,
    )
    .unwrap();
    assert_eq!(c.run, RunConfig::default());
    assert_eq!(
        c.platform,
        Platform {
            variant: None,
            ..Platform::host()
        }
    );
    assert_eq!(c.created_at(), None);
    let c = config(
        r#"{"config": null, "history": [null, {"created_by": null, "empty_layer": null}], "rootfs": {"type": "layers"}}"#,
    );
    assert_eq!(c.unwrap().history, vec![HistoryEntry::default(); 2]);
    let c = config(r#"{"config": {"Env": [null, "A=b"], "Labels": {"k": null}, "Cmd": "ls -l"}, "rootfs": {}}"#).unwrap();
    assert_eq!(c.run.env, ["", "A=b"]);
    assert_eq!(c.run.labels.get("k").map(String::as_str), Some(""));
    assert_eq!(c.run.cmd.as_deref().unwrap(), ["ls -l"]);
}

#[test]
fn times_that_are_none() {
    for time in [
        "",
        "0001-01-01T00:00:00Z",
        "yesterday",
        "2024-13-01T00:00:00Z",
        "999999-01-01T00:00:00Z",
    ] {
        let c = config(&format!(r#"{{"created": "{time}", "rootfs": {{}}}}"#)).unwrap();
        assert_eq!(c.created_at(), None, "{time}");
    }
}

#[test]
fn bad_configs_are_refused() {
    let deep = format!(
        r#"{{"config": {{"Cmd": {}{}}}, "rootfs": {{}}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let many = format!(
        r#"{{"rootfs": {{"diff_ids": [{}]}}}}"#,
        vec![format!("\"{D1}\""); 4097].join(",")
    );
    let table: &[(&str, &str)] = &[
        ("", "invalid JSON: EOF while parsing a value"),
        ("[]", "invalid JSON: invalid"),
        ("{}", "invalid image JSON, no RootFS key"),
        (r#"{"rootfs": null}"#, "invalid image JSON, no RootFS key"),
        (r#"{"rootfs": {}} x"#, "invalid JSON: trailing characters"),
        (r#"{"rootfs": {"#, "invalid JSON: EOF"),
        (
            r#"{"rootfs": {"type": "layers+base"}}"#,
            "unsupported rootfs type \"layers+base\"",
        ),
        (
            r#"{"rootfs": {"diff_ids": ["sha256:00"]}}"#,
            "rootfs.diff_ids: invalid checksum digest",
        ),
        (
            r#"{"rootfs": {"diff_ids": ["sha512:00"]}}"#,
            "rootfs.diff_ids: unsupported digest algorithm",
        ),
        (
            r#"{"rootfs": {"diff_ids": ["../../etc"]}}"#,
            "rootfs.diff_ids: invalid checksum digest format",
        ),
        (
            r#"{"rootfs": {}, "rootfs": {"diff_ids": ["D1"]}}"#,
            "invalid JSON: duplicate field `rootfs`",
        ),
        (
            r#"{"rootfs": {"diff_ids": [], "diff_ids": ["D1"]}}"#,
            "invalid JSON: duplicate field `diff_ids`",
        ),
        (
            r#"{"config": {"Env": "PATH"}, "rootfs": {}}"#,
            "invalid JSON: invalid type",
        ),
        (r#"{"os": 5, "rootfs": {}}"#, "invalid JSON: invalid type"),
        (&deep, "invalid JSON: recursion limit exceeded"),
        (
            r#"{"rootfs": {}, "RootFS": {"diff_ids": ["D1"]}}"#,
            "invalid JSON: field \"RootFS\": some readers take it for \"rootfs\"",
        ),
        (
            r#"{"config": {"Labels": {"user": "mine"}, "user": "root"}, "rootfs": {}}"#,
            "invalid JSON: field \"user\": some readers take it for \"User\"",
        ),
        (
            r#"{"history": [{"Empty_Layer": true}], "rootfs": {}}"#,
            "invalid JSON: field \"Empty_Layer\"",
        ),
        (&many, "image has 4097 layers"),
    ];
    for (text, error) in table {
        let message = config(text).unwrap_err().to_string();
        assert!(message.starts_with(error), "{message} for {:.60}", text);
    }
    let huge = vec![b' '; MAX_CONFIG_BYTES + 1];
    assert!(matches!(
        ImageConfig::parse(&huge),
        Err(DocumentError::TooLarge { .. })
    ));
}

proptest::proptest! {
    #[test]
    fn parse_never_panics(bytes: Vec<u8>, text in r#"[{}\[\]",:a-z0-9]{0,60}"#) {
        let _ = ImageConfig::parse(&bytes);
        let _ = ImageConfig::parse(text.as_bytes());
    }
}
