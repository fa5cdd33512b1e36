//! Names that change, registries, and the API service, which stays.

use super::*;

/// A process of the test's own, killed at the end.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn service(engines: &Engines<'_>) -> (Service, PathBuf) {
    let socket = engines.runroot.join("s");
    let mut service = engines.command("podman");
    service
        .args(["system", "service", "-t", "0"])
        .arg(format!("unix://{}", socket.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let service = Service(service.spawn().expect("podman"));
    wait_until("the service listens", || socket.exists());
    (service, socket)
}

/// docker's own client, docker-py and compose by way of podman's service: nothing is copied or fetched.
#[test]
fn root_engines_docker_s_clients() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let (_service, socket) = service(&engines);
    let host = format!("unix://{}", socket.display());
    let client = |program: &str, arguments: &[&str]| {
        let mut command = engines.command(program);
        command.env("DOCKER_HOST", &host).args(arguments);
        sandbox.run(command).ok().stdout()
    };
    let id = image("app:1").id();
    let format = "{{.Repository}}:{{.Tag}} {{.ID}}";
    let listed = client("docker", &["images", "--no-trunc", "--format", format]);
    assert_eq!(listed, format!("app:1 {id}\n"));
    let history = client("docker", &["history", "-q", "app:1"]);
    assert_eq!(history.lines().count(), 3, "{history}");
    let limits = [
        "--network=none",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1024:1024",
    ];
    let script = ["app:1", "sh", "-c", "cat /data/old"];
    let run = [&["run", "--rm"][..], &limits, &script].concat();
    assert_eq!(client("docker", &run), "new");
    client("docker", &["save", "-o", "saved.tar", "app:1"]);
    let python = "import docker\n\
        c = docker.from_env()\n\
        print(*[i.id for i in c.images.list()])\n\
        limits = [docker.types.Ulimit(name=n, soft=1024, hard=1024) for n in ('nofile', 'nproc')]\n\
        print(c.containers.run('app:1', ['cat', '/data/old'], remove=True, network_mode='none', ulimits=limits).decode())";
    assert_eq!(
        client("/usr/bin/python3", &["-c", python]),
        format!("{id}\nnew\n")
    );
    fs::write(
        sandbox.path("compose.yaml"),
        "services:\n  web:\n    image: app:1\n    network_mode: none\n    command: cat /data/old\n    \
         ulimits: {nofile: 1024, nproc: 1024}\n",
    )
    .unwrap();
    let compose = |words: &[&str]| {
        let all = [&["-p", "mica", "-f", "compose.yaml"], words].concat();
        client("docker-compose", &all)
    };
    let up = compose(&["up", "--no-color"]);
    assert!(up.contains("| new"), "{up}");
    compose(&["down"]);
    // Every layer is still M's alone.
    assert_eq!(
        engines.shown("podman images -q --filter readonly=false"),
        ""
    );
    sandbox.mica(["rmi", "app:1"]).ok();
    sandbox.load_file(&sandbox.path("saved.tar"));
    assert!(
        sandbox
            .mica(["images", "-q", "--no-trunc"])
            .ok()
            .stdout()
            .contains(&id)
    );
}

/// Tags that are made, moved and removed show in a service that runs, as docker's interface tells them.
#[test]
fn root_engines_a_running_service_sees_every_change() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let (_service, socket) = service(&engines);
    let names = || -> BTreeMap<String, String> {
        let script = "python3 - \"$1\" <<'END'\nimport http.client, json, socket, sys\n\
            c = http.client.HTTPConnection('d'); c.sock = socket.socket(socket.AF_UNIX); c.sock.connect(sys.argv[1])\n\
            c.request('GET', '/v1.40/images/json'); r = c.getresponse()\n\
            for i in json.load(r):\n  for t in i['RepoTags'] or []: print(t, i['Id'])\nEND";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&socket);
        let shown = sandbox.run(command).ok().stdout();
        shown
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect()
    };
    let id = image("app:1").id();
    let only = |tags: &[&str]| -> BTreeMap<String, String> {
        tags.iter()
            .map(|tag| (format!("docker.io/library/{tag}"), id.clone()))
            .collect()
    };
    assert_eq!(names(), only(&["app:1"]));
    sandbox.mica(["tag", "app:1", "app:2"]).ok();
    assert_eq!(names(), only(&["app:1", "app:2"]));
    fs::rename(mount.image("app/1"), mount.image("app/3")).unwrap();
    assert_eq!(names(), only(&["app:2", "app:3"]));
    sandbox.mica(["rmi", "app:2"]).ok();
    assert_eq!(names(), only(&["app:3"]));
    sandbox.sh("rm -r \"$(echo */images/app/3)\"").ok();
    assert_eq!(names(), only(&[]));
}

/// What the kernel knows of the store it answers alone: an engine asks for the same files a hundred times in one command.
#[test]
fn root_engines_ask_the_daemon_once() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let asked = || -> u64 {
        let requests = mount.requests();
        let kinds = ["lookup", "getattr", "read", "readlink"];
        let count = |kind| requests.get(&format!("stores.{kind}")).copied();
        kinds.into_iter().filter_map(count).sum()
    };
    assert_eq!(engines.container("", "app:1", "cat /data/old"), "new");
    let before = asked();
    assert_eq!(engines.container("", "app:1", "cat /data/old"), "new");
    let more = asked() - before;
    assert!(more < 100, "{more} requests");
    // And it is told what changes: the same names, made anew of something else.
    let layers = mount.path("stores/containers/overlay-layers");
    let list = || fs::read_to_string(layers.join("layers.json")).unwrap();
    let (first, lock) = (list(), fs::read(layers.join("layers.lock")).unwrap());
    sandbox.mica(["rmi", "app:1"]).ok();
    assert_eq!(list(), "[]");
    assert_ne!(fs::read(layers.join("layers.lock")).unwrap(), lock);
    sandbox.load(&image("app:1"));
    assert_eq!(json(&list()), json(&first));
    assert_eq!(engines.container("", "app:1", "cat /data/old"), "new");
    mount.unmount();
}

/// A pull of what mica has pulled fetches no layer, and a push from the store arrives as the image it is.
#[test]
fn net_root_engines_know_the_layers_that_are_here() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let from = format!("127.0.0.1:{}/team/app:1", registry.port);
    sandbox.load(&image("app:1"));
    sandbox.mica(["tag", "app:1", &from]).ok();
    sandbox.mica(["push", "-q", &from]).ok();
    // Pulled, so that the registry's own blobs are known to be the layers.
    sandbox.mica(["rmi", "-f", "app:1", &from]).ok();
    sandbox.mica(["pull", "-q", &from]).ok();
    let mount = sandbox.mount();
    let engines = Engines::new(&sandbox, &mount);
    let manifest = mount.path(format!(
        "info/images/{}/team/app/1/manifest.json",
        registry.host()
    ));
    let manifest = json(&fs::read_to_string(manifest).unwrap());
    for layer in manifest["layers"].as_array().unwrap() {
        registry.lose_blob(layer["digest"].as_str().unwrap());
    }
    engines.shown(&format!("podman pull -q --tls-verify=false {from}"));
    assert_eq!(engines.container("", &from, "cat /data/old"), "new");
    let to = format!("127.0.0.1:{}/other/app:1", registry.port);
    engines.shown(&format!("podman push -q --tls-verify=false {from} {to}"));
    sandbox.mica(["pull", "-q", &to]).ok();
    let ids = sandbox.mica(["images", "-q", "--no-trunc"]).ok().stdout();
    assert!(ids.lines().all(|id| id == image("app:1").id()), "{ids}");
}
