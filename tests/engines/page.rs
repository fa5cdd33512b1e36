//! doc/ENGINES.md, pasted: its blocks in order, line by line, as they stand there, by whom its headings name.
//!
//! Everything that the lines name is there and this test's alone: `/mnt`, `/run`, `/var/lib`, `/etc/containers`, `/etc/fstab`, where
//! mount(8) finds its helpers, and a user with a home. What this ground cannot do (cgroups by systemd, networks, some limits) is said in
//! `containers.conf` and to dockerd, not in the lines. Left out is what needs a running systemd.

use super::plugin::wait_for;
use super::rootless::USER;
use super::*;
use crate::common::tier;
use crate::common::user::as_user;

/// What follows a fence with this word.
fn blocks<'a>(page: &'a str, word: &str) -> Vec<&'a str> {
    let fence = format!("\n```{word}\n");
    let blocks = page.split(fence.as_str()).skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

/// Whoever pastes.
enum Who {
    Root,
    User,
}

struct Ground {
    sandbox: Sandbox,
    started: std::cell::RefCell<Vec<u32>>,
    engine: std::cell::RefCell<Option<Child>>,
}

impl Drop for Ground {
    fn drop(&mut self) {
        let engine = self.engine.get_mut().take();
        let engine_pid = engine.iter().map(Child::id);
        for pid in self.started.borrow().iter().copied().chain(engine_pid) {
            self.sandbox.sh(&format!("kill {pid}"));
        }
        if let Some(mut engine) = engine {
            engine.wait().expect("dockerd's end");
        }
        self.shell(Who::User, "podman system migrate; mica umount -l ~/mica");
        self.shell(Who::Root, "umount -R /mnt/mica");
    }
}

impl Ground {
    fn new() -> Ground {
        let sandbox = Sandbox::as_user(USER);
        tier::subordinate_ids(USER);
        let here = sandbox.dir().display().to_string();
        sandbox.mkdir("home");
        // An engine's own defaults, but for what this ground has not.
        let limits = "default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]";
        let engine = "cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"";
        let text = format!("[containers]\nnetns = \"none\"\n{limits}\n[engine]\n{engine}\n");
        sandbox
            .sh("cp -a /etc/containers etc; rm -f etc/storage.conf; cp /etc/fstab fstab; mount --bind etc /etc/containers; mount --bind fstab /etc/fstab")
            .ok();
        fs::write("/etc/containers/containers.conf", text).unwrap();
        super::system::helpers(&sandbox);
        sandbox
            .sh(&format!(
                "for at in /mnt /run /var/lib; do mount -t tmpfs -o mode=755 tmpfs $at; done; \
                 mkdir -p /run/user/{USER} /run/docker; chown {USER} /run/user/{USER}; ln -s {here}/mica /run/mica-program"
            ))
            .ok();
        let ground = Ground {
            sandbox,
            started: Default::default(),
            engine: Default::default(),
        };
        image("app:1").docker_archive(&ground.sandbox.path("app.tar"));
        for who in [Who::Root, Who::User] {
            ground.shell(who, "mica load -q -i ../app.tar").ok();
        }
        fs::write(
            ground.sandbox.path("home/Containerfile"),
            "FROM app:1\nCOPY Containerfile /\n",
        )
        .unwrap();
        ground
    }

    /// A line in a shell of somebody's in his home.
    fn shell(&self, who: Who, line: &str) -> Run {
        let home = self.sandbox.path("home");
        let mut command = match who {
            Who::Root => Command::new("bash"),
            Who::User => {
                let mut command = as_user(USER, "bash");
                command.env("XDG_RUNTIME_DIR", format!("/run/user/{USER}"));
                command
            }
        };
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["-c", line])
            .env("PATH", format!("{}:{path}", self.sandbox.dir().display()))
            .env("HOME", &home)
            .env_remove("MICA_STORE")
            .current_dir(&home);
        self.sandbox.run(command)
    }

    /// Pastes a block; what stays in the background listens before the next line is typed.
    fn paste(&self, who: fn() -> Who, block: &str) -> String {
        let mut said = String::new();
        for line in block.lines() {
            // What needs a running systemd; that the unit is right is judged elsewhere.
            if line.starts_with("systemctl ") {
                continue;
            }
            let typed = line.split(" #").next().unwrap_or_default().trim();
            let Some(background) = typed.strip_suffix('&') else {
                said.push_str(&self.shell(who(), line).ok().stdout());
                continue;
            };
            let socket = match typed.split_once("unix://") {
                Some((_, rest)) => rest.trim_end_matches(['&', ' ']).to_owned(),
                None => "/run/docker/plugins/mica.sock".to_owned(),
            };
            let run = self.shell(who(), &format!("{background} >log 2>&1 & echo $!"));
            let pid = run.ok().stdout().trim().parse().unwrap();
            self.started.borrow_mut().push(pid);
            wait_for(line, || Path::new(&socket).exists());
        }
        said
    }
}

/// Every line that doc/ENGINES.md gives for an engine works when it is pasted.
#[test]
fn root_engines_page_is_pasted_in_order() {
    let page = include_str!("../../doc/ENGINES.md");
    let lines = blocks(page, "sh");
    let [podman, rootless, client, docker, volumes, mount] = lines.as_slice() else {
        panic!("{} blocks", lines.len());
    };
    let [storage, containers] = blocks(page, "toml")[..] else {
        panic!("the configuration");
    };
    let [fstab] = blocks(page, "fstab")[..] else {
        panic!("the line of fstab");
    };
    let ground = Ground::new();
    let root = || Who::Root;

    let said = ground.paste(root, podman);
    assert!(said.contains("docker.io/library/app"), "{said}");
    assert!(said.contains("R/O") && said.contains("true"), "{said}");
    assert!(!Path::new("/etc/containers/storage.conf").exists());
    let shown = ground.shell(Who::Root, "mica system connect podman").ok();
    assert!(shown.stdout().ends_with(storage), "{}", shown.describe());
    ground
        .shell(Who::Root, "mica system disconnect podman")
        .ok();

    ground.paste(|| Who::User, rootless);
    ground.shell(Who::User, "ls ~/mica/images/app/1/bin").ok();

    let said = ground.paste(root, client);
    assert!(said.lines().any(|l| l.starts_with("app ")), "{said}");

    let log = fs::File::create(ground.sandbox.path("dockerd.log")).unwrap();
    let mut engine = Command::new("dockerd");
    engine.args(["--iptables=false", "--bridge=none"]);
    engine.args(["--default-ulimit", "nofile=1024:1024"]);
    engine.stdin(Stdio::null()).stdout(log.try_clone().unwrap());
    let engine = engine.stderr(log).spawn().expect("dockerd");
    *ground.engine.borrow_mut() = Some(engine);
    wait_for("dockerd", || {
        ground.shell(Who::Root, "docker version").status.success()
    });
    let load = "docker load -q -i ../plain.tar";
    let plain = ImageBuilder::new("app:1").layer(tools);
    plain.docker_archive(&ground.sandbox.path("plain.tar"));
    ground.shell(Who::Root, load).ok();
    ground.paste(root, docker);
    let listed = ground.shell(Who::Root, "docker volume ls -q").ok().stdout();
    assert_eq!(listed, "data\nmore\nscratch\n");

    let conf = "/etc/containers/containers.conf";
    let text = fs::read_to_string(conf).unwrap();
    fs::write(conf, text + containers).unwrap();
    ground.paste(root, volumes);
    assert!(Path::new("/mnt/mica/volumes/own").is_dir());

    ground.shell(Who::Root, "mica umount /mnt/mica").ok();
    ground.paste(root, mount);
    let text = fs::read_to_string("/etc/fstab").unwrap();
    fs::write("/etc/fstab", text + fstab).unwrap();
    let script = "mount /mnt/mica && cat /mnt/mica/images/app/1/data/old && umount /mnt/mica";
    let seen = ground.shell(Who::Root, script).ok();
    assert_eq!(seen.stdout(), "new");
}
