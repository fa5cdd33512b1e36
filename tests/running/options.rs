//! Options of `run` as docker 28's client takes them.

use super::*;

#[test]
fn root_regression_mounts_are_taken_as_docker_spells_them() {
    let s = sandbox();
    for dir in ["data", "com,ma"] {
        s.mkdir(dir);
        fs::write(s.path(format!("{dir}/f")), "x").expect("write");
    }
    let here = s.dir().display().to_string();
    let mut spellings: Vec<Vec<String>> = Vec::new();
    let mut add =
        |words: &[&str]| spellings.push(words.iter().map(|word| (*word).to_owned()).collect());
    let name = s
        .dir()
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    for source in [
        "./data",
        "././data",
        &format!("../{name}/data"),
        &format!("{here}/data"),
    ] {
        add(&["-v", &format!("{source}:/x")]);
        add(&["--mount", &format!("type=bind,src={source},dst=/x")]);
    }
    for mode in [
        "cached",
        "delegated",
        "consistent",
        "z",
        "Z",
        "rslave",
        "slave",
        "rshared",
        "shared",
        "private",
        "rprivate",
        "rw,z",
        "ro,cached",
    ] {
        add(&["-v", &format!("./data:/x:{mode}")]);
    }
    for more in [
        "bind-propagation=rslave",
        "bind-propagation=rprivate",
        "consistency=cached",
        "readonly,consistency=delegated",
    ] {
        add(&[
            "--mount",
            &format!("type=bind,source={here}/data,target=/x,{more}"),
        ]);
    }
    add(&[
        "--mount",
        &format!("type=bind,\"src={here}/com,ma\",dst=/x"),
    ]);
    add(&[
        "--mount",
        "type=volume,src=vol,dst=/y,volume-driver=local",
        "-v",
        "./com,ma/../com,ma:/w",
        "-v",
        "./data:/x",
    ]);
    for words in spellings {
        let mut args = vec!["run".to_owned(), "--rm".to_owned()];
        args.extend(words);
        args.extend(["app:1", "cat", "/x/f"].map(str::to_owned));
        assert_eq!(s.mica(&args).ok().stdout(), "x", "{args:?}");
    }
    for (words, why) in [
        ("-v ./data:/x:foo", "invalid mode: foo"),
        ("-v named:/x:rslave", "invalid mode: rslave"),
        ("--mount type=bind,\"src=./data,dst=/x", "quoted field"),
        (
            "--mount type=bind,src=./data,dst=/x,bind-propagation=foo",
            "unexpected key",
        ),
        ("--mount type=bind,src=data,dst=/x", "must be absolute"),
        ("-v ./none:/x", "does not exist"),
        ("--tmpfs /x:uid=me", "invalid tmpfs option: uid=me"),
    ] {
        let run = mica(&s, &format!("run --rm {words} app:1 true")).code(125);
        assert!(run.stderr().contains(why), "{}", run.describe());
    }
    assert!(left(&s).is_empty());
}

#[test]
fn root_regression_a_tmpfs_takes_the_kernels_options() {
    let s = sandbox();
    let stat = |options: &str| {
        shown(
            &s,
            &format!(
                "run --rm --tmpfs /x:{options} app:1 -- stat -c '%a %u %g' /x; grep ' /x ' /proc/mounts"
            ),
        )
    };
    let text = stat("uid=1000,gid=1001,mode=700,size=64k,nr_inodes=100");
    assert!(text.starts_with("700 1000 1001\n"), "{text}");
    assert!(
        text.contains("size=64k,nr_inodes=100")
            && text.contains("noexec")
            && text.contains("nosuid"),
        "{text}"
    );
    // So a user who is not root can write where nobody else can.
    mica(
        &s,
        "run --rm -u 1000 --tmpfs /x:uid=1000,mode=700 app:1 touch /x/f",
    )
    .ok();
    let text = stat("nr_blocks=64,inode64,nodiratime,strictatime,rw,nosuid,nodev,noexec");
    assert!(
        text.contains("size=256k") && text.contains("inode64") && text.contains("nodiratime"),
        "{text}"
    );
    let text = stat("size=10%,exec,noatime");
    assert!(
        !text.contains("noexec") && text.contains("noatime"),
        "{text}"
    );
}

#[test]
fn root_regression_hosts_limits_labels_and_the_id_file() {
    let s = sandbox();
    let hosts = shown(
        &s,
        "run --rm --add-host h1:host-gateway --add-host h2:[::1] --add-host h3=10.0.0.1 app:1 grep -E h[123] /etc/hosts",
    );
    assert_eq!(hosts, "127.0.0.1\th1\n::1\th2\n10.0.0.1\th3\n");
    let wrong = mica(&s, "run --rm --add-host foo:garbage app:1 true").code(125);
    assert_eq!(
        wrong.stderr(),
        "mica: invalid argument \"foo:garbage\" for \"--add-host\" flag: invalid IP address in add-host: \"garbage\"\n"
    );
    let limits = "run --rm --ulimit nofile=100:200 --ulimit core=0 app:1 -- ulimit -n; ulimit -Hn; ulimit -c";
    assert_eq!(shown(&s, limits), "100\n200\n0\n");
    let shm = shown(
        &s,
        "run --rm --shm-size 1m app:1 -- df -k /dev/shm | grep -c ' 1024 '",
    );
    assert_eq!(shm, "1\n");
    mica(&s, "run --rm --shm-size x app:1 true").code(125);

    fs::write(s.path("labels"), "# none\na=1\nb\n\n").expect("write");
    let line = "run --name one --cidfile id --label-file labels -l a=2 --net host --restart no --platform linux/amd64 -p 80:80 app:1 true";
    let line = line.replace("amd64", crate::common::image::host_architecture());
    let run = mica(&s, &line).ok();
    assert_eq!(
        run.stderr(),
        "mica: -p changes nothing: containers use the host's network\n"
    );
    let id = shown(&s, "ps -aq --no-trunc");
    assert_eq!(fs::read_to_string(s.path("id")).expect("the ID"), id.trim());
    assert_eq!(shown(&s, "ps -a --format {{.Labels}}"), "a=2,b=\n");
    let again = mica(&s, "run --cidfile id app:1 true").code(125);
    assert!(
        again.stderr().starts_with("mica: container ID file found"),
        "{}",
        again.describe()
    );
    // One that is not made leaves no file.
    mica(&s, "run --cidfile other --name one app:1 true").code(125);
    assert!(!s.path("other").exists());
    let other = mica(&s, "run --pull never --platform linux/s390x app:1 true").code(125);
    assert!(
        other
            .stderr()
            .contains("does not match the specified platform"),
        "{}",
        other.describe()
    );
}

#[test]
fn root_create_makes_and_start_runs() {
    let s = sandbox();
    s.load(&image("data:1").layer(|l| l.dir("data", 0o755).file("data/f", "of the image")));
    let id = shown(
        &s,
        "create --name made -v named:/data -e A=1 -p 80:80 data:1 -- echo $A; cat /data/f",
    );
    assert_eq!(id.trim().len(), 64);
    assert_eq!(
        shown(&s, "ps -a --format {{.Names}}={{.Status}}"),
        "made=Created\n"
    );
    assert_eq!(shown(&s, "start -a made"), "1\nof the image");
    assert!(shown(&s, "ps -a --format {{.Status}}").starts_with("Exited (0)"));
    let taken = mica(&s, "create --name made data:1 true").code(1);
    assert!(
        taken.stderr().contains("already in use"),
        "{}",
        taken.describe()
    );
    mica(&s, "container create --rm --name short data:1 true").ok();
    shown(&s, "start short");
    wait_until("it has gone", || left(&s).len() == 1);
}

#[test]
fn root_regression_exec_takes_variables_as_run_does() {
    let s = sandbox();
    shown(&s, "run -d --name one -e KEPT=1 -e GONE=1 app:1 sleep 1000");
    let env = shown(&s, "exec -e GONE -e NEW=2 -e KEPT=3 one env");
    assert!(
        env.contains("KEPT=3\n") && env.contains("NEW=2\n") && !env.contains("GONE"),
        "{env}"
    );
    fs::write(s.path("vars"), "FILE=4\nNEW=0\n").expect("write");
    let env = shown(&s, "exec --env-file vars -e NEW=5 one env");
    assert!(env.contains("FILE=4\n") && env.contains("NEW=5\n"), "{env}");
    shown(&s, "rm -f one");
}

/// They were taken for the image.
#[test]
fn root_regression_values_stand_at_their_letters() {
    let s = sandbox();
    s.mkdir("data");
    fs::write(s.path("data/f"), "bound\n").expect("write");
    let volume = format!("-v{}:/x", s.path("data").display());
    let script = "echo $A $B; id -un; pwd; hostname; cat /x/f";
    let words = [
        "run", "--rm", "-eA=1", "-ieB=2", "-ubob", "-w/tmp", "-hbox", &volume, "-lx=y", "-p80:80",
        "app:1", "sh", "-c", script,
    ];
    assert_eq!(s.mica(words).ok().stdout(), "1 2\nbob\n/tmp\nbox\nbound\n");
    mica(&s, "create --name made -eA=1 -lx=y app:1 true").ok();
    assert_eq!(shown(&s, "ps -a --format {{.Labels}}"), "x=y\n");
    shown(&s, "run -d --init --name one app:1 sleep 1000");
    let env = shown(&s, "exec -eA=1 -w/tmp -ubob one -- echo $A; pwd; id -un");
    assert_eq!(env, "1\n/tmp\nbob\n");
    shown(&s, "rm -f one made");
}

/// docker's client takes the last of what is given again, and a truth value after a switch's `=`.
#[test]
fn root_regression_what_is_given_again_counts_as_given_last() {
    let s = sandbox();
    let line = "run --rm --rm=false -it=false --tty=0 --name no --name one --hostname no -h box -u 0 --user bob -w / --workdir /tmp \
                --entrypoint no --entrypoint sh --pull always --pull never --shm-size 2m --shm-size 1m --restart always --restart no \
                --platform linux/s390x --platform linux/HERE --stop-signal KILL --stop-signal TERM --read-only --read-only=F app:1 -c";
    let line = line.replace("HERE", crate::common::image::host_architecture());
    let script =
        "hostname; id -un; pwd; tty; echo x > f && cat f; df -k /dev/shm | grep -c ' 1024 '";
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.push(script);
    let run = s.mica(&words).ok();
    assert_eq!(run.stdout(), "box\nbob\n/tmp\nnot a tty\nx\n1\n");
    let listed = shown(
        &s,
        "ps -aq=false --no-trunc=1 --format no --format {{.Names}}",
    );
    assert_eq!(listed, "one\n");
    shown(&s, "rm -f=false --force=true one");
    // docker's words; networks are a list there, and mica has one.
    for (options, said) in [
        (
            "--network host --net host",
            "network \"host\" is specified multiple times",
        ),
        (
            "--network other --network host",
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            "--rm=x",
            "invalid argument \"x\" for \"--rm\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
    ] {
        let run = mica(&s, &format!("run {options} app:1 true")).code(125);
        let first = run.stderr().lines().next().unwrap_or_default().to_owned();
        assert_eq!(first, format!("mica: {said}"), "{}", run.describe());
    }
    let other = mica(&s, "run --network other app:1 true").code(125);
    assert_eq!(
        other.stderr(),
        "Error response from daemon: network other not found: containers use the host's network\n"
    );
}
