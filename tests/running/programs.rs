//! Everyday programs below the seccomp profile, in an image of Debian's packages.

use std::path::Path;
use std::process::Command;

use crate::common::real;
use crate::common::sandbox::Sandbox;
use crate::common::tier;

/// What each prints last.
const PROGRAMS: [(&str, &str, &str); 7] = [
    (
        "python and sqlite",
        "python3 -c 'import sqlite3, subprocess, threading; c = sqlite3.connect(\"/tmp/db\"); \
         c.execute(\"pragma journal_mode=wal\"); c.execute(\"create table t(a)\"); c.execute(\"insert into t values(7)\"); c.commit(); \
         t = threading.Thread(target=lambda: None); t.start(); t.join(); \
         print(subprocess.check_output([\"echo\", \"x\"]).decode().strip(), sqlite3.connect(\"/tmp/db\").execute(\"select a from t\").fetchall())'",
        "x [(7,)]",
    ),
    (
        "node",
        "node -e 'const w = require(\"worker_threads\"); require(\"child_process\").execSync(\"true\"); \
         new w.Worker(\"\", {eval: true}).on(\"exit\", code => console.log(\"worker\", code))'",
        "worker 0",
    ),
    (
        "git",
        "cd /tmp && git init -q r && cd r && git -c user.email=a@b -c user.name=n commit -q --allow-empty -m m && git gc -q && git rev-list --count HEAD",
        "1",
    ),
    (
        "gcc",
        "cd /tmp && echo 'int main(void){return 7;}' >a.c && gcc -O2 -pthread a.c -o a; ./a; echo $?",
        "7",
    ),
    (
        "apt-get",
        "apt-get -o Acquire::http::Proxy=http://127.0.0.1:9 check >/dev/null && dpkg --audit && echo fine",
        "fine",
    ),
    (
        "dpkg",
        "mkdir -p /tmp/p/DEBIAN && printf 'Package: p\\nVersion: 1\\nArchitecture: all\\nMaintainer: n <a@b>\\nDescription: x\\n' >/tmp/p/DEBIAN/control && dpkg-deb -b /tmp/p /tmp/p.deb >/dev/null && dpkg -i /tmp/p.deb >/dev/null && dpkg -s p | grep -c 'install ok'",
        "1",
    ),
    (
        "nginx",
        "echo 'pid /tmp/n.pid; events {} http { server { listen unix:/tmp/n.sock; location / { return 200 served; } } }' >/tmp/n.conf; \
         nginx -c /tmp/n.conf && python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect(\"/tmp/n.sock\"); \
         s.send(b\"GET / HTTP/1.0\\r\\n\\r\\n\"); f = s.makefile(); print(f.read().splitlines()[-1])'",
        "served",
    ),
];

/// Programs of the host, if it has them.
const OF_THE_HOST: [(&str, &str, &str, &str); 3] = [
    // Written in Go, with threads, pipes and compression.
    (
        "skopeo",
        "/usr/bin/skopeo",
        "mkdir /tmp/d && printf '{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2},\"layers\":[]}' >/tmp/d/manifest.json && \
         printf '{}' >/tmp/d/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a && printf 'Directory Transport Version: 1.1\n' >/tmp/d/version && \
         skopeo --tmpdir /tmp --insecure-policy copy -q dir:/tmp/d oci:/tmp/o:x && ls /tmp/o/blobs/sha256 | wc -l",
        "2",
    ),
    (
        "java",
        "/usr/lib/jvm/java-17-openjdk-amd64/bin/java",
        "cd /tmp && printf 'public class A{public static void main(String[] a)throws Exception{Thread t=new Thread(()->System.out.println(42));t.start();t.join();}}' >A.java && /usr/lib/jvm/java-17-openjdk-amd64/bin/java A.java",
        "42",
    ),
    (
        "postgres",
        "/usr/lib/postgresql/15/bin/initdb",
        "mkdir /tmp/pg && chown 33 /tmp/pg && exec setpriv --reuid 33 --regid 33 --clear-groups sh -c 'cd /tmp; b=/usr/lib/postgresql/15/bin; \
         $b/initdb -D /tmp/pg >/dev/null && $b/pg_ctl -D /tmp/pg -o \"-h \\\"\\\" -k /tmp\" -w start >/dev/null; \
         $b/psql -h /tmp -d postgres -Atc \"select 6*7\"; $b/pg_ctl -D /tmp/pg -m fast stop >/dev/null'",
        "42",
    ),
];

#[test]
fn root_everyday_programs_run_below_the_profile() {
    tier::root();
    let s = Sandbox::new();
    s.load_file(&real::docker_archive("real")).ok();
    let image = "localhost/mica-test:real";
    for (name, script, last) in PROGRAMS {
        let run = s.mica(["run", "--rm", image, "sh", "-c", script]);
        let out = run.ok().stdout();
        assert_eq!(out.lines().last(), Some(last), "{name}: {out}");
    }
    for (name, needs, script, last) in OF_THE_HOST {
        if !Path::new(needs).exists() {
            eprintln!("!! {name} is not installed here and was not tried below the profile");
            continue;
        }
        let mut command: Command = s.command();
        command.args(["run", "--rm", "-v", "/usr:/usr:ro"]);
        if Path::new("/etc/java-17-openjdk").exists() {
            command.args(["-v", "/etc/java-17-openjdk:/etc/java-17-openjdk:ro"]);
        }
        command.args([image, "sh", "-c", script]);
        let out = s.run(command).ok().stdout();
        assert_eq!(out.lines().last(), Some(last), "{name}: {out}");
    }
}
