//! What is read whole: documents, templates, Dockerfiles, tables of the kernel.

use mica::oci::change;
use mica::oci::dockerfile::Dockerfile;
use mica::oci::{ImageConfig, ManifestOrIndex, MediaType, Reference, RunConfig};
use mica::sys::mountinfo;
use mica::text::glob::Glob;
use mica::text::template::{Template, Value};

use crate::Target;

pub const TARGETS: &[Target] = &[
    Target {
        name: "manifest",
        specimens: manifests,
        words: &[
            "null",
            "[[[[",
            "{\"",
            "1e99",
            "-1",
            "sha512:",
            "\"urls\":[",
            "\\u0000",
        ],
        read: manifest,
    },
    Target {
        name: "template",
        specimens: templates,
        words: &[
            "{{", "}}", "range", "end", "if", "else", "with", "printf", "json", "$x :=", "|", ".",
        ],
        read: template,
    },
    Target {
        name: "dockerfile",
        specimens: dockerfiles,
        words: &[
            "FROM ",
            "ARG ",
            "<<EOF\n",
            "EOF\n",
            "${x:-",
            "}",
            "\\\n",
            "# escape=`\n",
            "--mount=",
            "AS ",
        ],
        read: dockerfile,
    },
    Target {
        name: "change",
        specimens: changes,
        words: &[
            "CMD ",
            "ENV ",
            "HEALTHCHECK ",
            "EXPOSE ",
            "[\"",
            "${x%",
            "${x/",
            "\\",
        ],
        read: change_lines,
    },
    Target {
        name: "mountinfo",
        specimens: mounts,
        words: &["\\040", "\\1", " - ", "shared:1 "],
        read: mountinfo_lines,
    },
    Target {
        name: "reference",
        specimens: references,
        words: &["@sha256:", ":", "/", "*", "[a-", "\\", "docker.io/"],
        read: reference,
    },
];

fn of(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn manifests() -> Vec<Vec<u8>> {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let text = |text: &str| text.replace("D1", digest).into_bytes();
    vec![
        text(
            r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"D1","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"D1","size":3}]}"#,
        ),
        text(
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"D1","size":9,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}}]}"#,
        ),
        text(
            r#"{"architecture":"amd64","os":"linux","created":"2024-05-06T07:08:09Z","config":{"Env":["A=b"],"Cmd":["x"],"Labels":{"k":"v"},"Volumes":{"/v":{}}},"history":[{"created_by":"x","empty_layer":true}],"rootfs":{"type":"layers","diff_ids":["D1"]}}"#,
        ),
    ]
}

fn manifest(bytes: &[u8]) {
    let _ = ManifestOrIndex::parse(bytes, None);
    let _ = ManifestOrIndex::parse(bytes, Some(&MediaType::oci_index()));
    let _ = ImageConfig::parse(bytes);
}

fn templates() -> Vec<Vec<u8>> {
    of(&[
        "{{.Repository}}:{{.Tag}} {{printf \"%-10s|%5d\" .Size 3}}",
        "{{range $i, $x := .List}}{{if gt $i 0}}, {{end}}{{$x | json}}{{else}}none{{end}}",
        "table {{.ID}}\t{{upper .Name}}",
        "{{with .List}}{{index . 0}}{{end}}{{/* c */}}{{- len .Name -}}",
    ])
}

fn template(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(template) = Template::parse(&text) {
        let value = Value::record(&[
            ("ID", "abc".to_owned()),
            ("Name", "n".to_owned()),
            ("Repository", "app".to_owned()),
            ("Size", "1kB".to_owned()),
            ("Tag", "1".to_owned()),
        ]);
        let _ = template.render(&value);
        let _ = template.header(&value);
    }
}

fn dockerfiles() -> Vec<Vec<u8>> {
    of(&[
        "# syntax=docker/dockerfile:1\nARG V=1\nFROM alpine:${V} AS base\nRUN --mount=type=cache,target=/c echo a && \\\n  echo b\nCOPY --from=base --chown=1:2 /a /b\nENTRYPOINT [\"x\", \"y\"]\n",
        "FROM scratch\nCOPY <<EOF /f\nhello $x\nEOF\nENV A=b C=\"d e\"\nONBUILD RUN x\nHEALTHCHECK --interval=5s CMD x\n",
    ])
}

fn dockerfile(bytes: &[u8]) {
    let _ = Dockerfile::parse(bytes);
}

fn changes() -> Vec<Vec<u8>> {
    of(&[
        "CMD [\"a\", \"b\"]\nENV A=b C=${A:-x} D=${A%%b}\nEXPOSE 80/tcp",
        "LABEL a=\"b c\" d=e\nUSER 1:2\nWORKDIR /x\nHEALTHCHECK NONE\nONBUILD RUN x\nSTOPSIGNAL 9",
    ])
}

fn change_lines(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    if let Ok(changes) = change::parse(&lines) {
        let _ = change::apply(&changes, &mut RunConfig::default());
    }
}

fn mounts() -> Vec<Vec<u8>> {
    of(&[
        "36 35 0:98 /images/a /mnt/a\\040b rw,nosuid shared:1 master:2 - fuse.mica mica rw,user_id=1000\n40 36 8:1 / / rw - ext4 /dev/sda1 rw\n",
        "23 20 0:43 / /o rw - overlay none rw,lowerdir=/m/a\\:b:/c,upperdir=/u,workdir=/w\n",
    ])
}

fn mountinfo_lines(bytes: &[u8]) {
    let mounts = mountinfo::parse(bytes);
    let _ = mica::sys::overlays::among(&mounts);
    for mount in &mounts {
        let _ = mount.fuse_owner();
        let _ = mica::mount_paths::inside(&mount.root);
        let _ = mica::mount_paths::volume(&mount.root);
    }
}

fn references() -> Vec<Vec<u8>> {
    of(&[
        "registry.example:5000/org/app:1.0@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "app",
        "app*[a-z]?:\\*",
    ])
}

fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<Reference>();
    if let Ok(glob) = Glob::parse(&text) {
        let _ = glob.matches("registry.example:5000/org/app:1.0");
    }
}
