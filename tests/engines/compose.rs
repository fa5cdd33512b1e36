//! Compose files whose volumes are the store's, on docker's own engine.

use super::dockerd::Dockerd;
use super::plugin::wait_for;
use super::*;

/// A service that writes into both volumes and stays, and one that reads what is there.
const FILE: &str = "version: '2.4'
services:
  web:
    image: app:1
    network_mode: none
    stop_grace_period: 0s
    command: ['sh', '-c', 'echo from web >/data/web; echo scratch >/scratch/f; while :; do cat /dev/null; done']
    volumes: ['data:/data', 'once:/scratch', 'made:/made']
  reader:
    image: app:1
    network_mode: none
    command: ['cat', '/data/web', '/made/f']
    volumes: ['data:/data', 'made:/made']
volumes:
  data: {driver: mica}
  once: {driver: mica, driver_opts: {kind: ephemeral}}
  made: {external: true}
";

fn life(program: &[&str]) {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let dockerd = Dockerd::start(&sandbox);
    fs::write(sandbox.path("compose.yaml"), FILE).unwrap();
    let compose = |words: &str| {
        let mut command = dockerd.client(program[0]);
        command.args(&program[1..]).args(["-p", "mica"]);
        command.args(["-f", "compose.yaml"]);
        sandbox.run({
            command.args(words.split_whitespace());
            command
        })
    };
    let volumes = || sandbox.mica(["volume", "ls", "-q"]).ok().stdout();
    // One that the file does not make.
    fs::create_dir(mount.path("volumes/made")).unwrap();
    fs::write(mount.path("volumes/made/f"), "from M\n").unwrap();
    compose("up -d web").ok();
    assert_eq!(volumes(), "made\nmica_data\nmica_once\n");
    let data = mount.path("volumes/mica_data/web");
    wait_for("the service to write", || {
        fs::read_to_string(&data).is_ok_and(|text| text == "from web\n")
    });
    let kinds = sandbox
        .mica([
            "volume",
            "inspect",
            "-f",
            "{{.Kind}}",
            "mica_data",
            "mica_once",
        ])
        .ok();
    assert_eq!(kinds.stdout(), "persistent\nephemeral\n");
    sandbox.mica(["volume", "rm", "mica_data"]).fails();
    sandbox.mica(["volume", "rm", "made"]).fails();
    let read = compose("run --rm reader").ok().stdout();
    assert_eq!(read.replace('\r', ""), "from web\nfrom M\n");
    // The data stays, what was ephemeral goes with its last container.
    compose("down").ok();
    wait_for("the ephemeral volume to go", || {
        volumes() == "made\nmica_data\n"
    });
    assert_eq!(fs::read_to_string(&data).unwrap(), "from web\n");
    let seen = dockerd.docker("run --rm --network none -v mica_data:/d app:1 cat /d/web");
    assert_eq!(seen.ok().stdout(), "from web\n");
    // Up again on the same data; then everything that is the file's goes.
    compose("up -d web").ok();
    assert!(volumes().contains("mica_once"));
    compose("down -v").ok();
    wait_for("the volumes to go", || volumes() == "made\n");
    assert!(!mount.path("volumes/mica_data").exists());
    assert_eq!(
        fs::read_to_string(mount.path("volumes/made/f")).unwrap(),
        "from M\n"
    );
    drop(dockerd);
    mount.unmount();
}

/// Debian's docker-compose; `MICA_COMPOSE="docker compose"` asks for another one.
#[test]
fn root_plugin_gives_compose_volumes() {
    let program = std::env::var("MICA_COMPOSE").unwrap_or_else(|_| "docker-compose".to_owned());
    life(&program.split_whitespace().collect::<Vec<_>>());
}
