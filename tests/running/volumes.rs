//! What a process sees besides its image.

use super::*;

#[test]
fn root_host_directories_and_files_are_mounted() {
    let s = sandbox();
    let dir = s.mkdir("demo");
    fs::write(dir.join("f"), "host\n").unwrap();
    let at = dir.display();
    assert_eq!(
        shown(
            &s,
            &format!("run --rm -v {at}:/shared app:1 -- cat /shared/f; echo back > /shared/g")
        ),
        "host\n"
    );
    assert_eq!(fs::read_to_string(dir.join("g")).unwrap(), "back\n");
    mica(
        &s,
        &format!("run --rm -v {at}:/shared:ro app:1 touch /shared/h"),
    )
    .code(1);
    assert_eq!(
        shown(
            &s,
            &format!("run --rm -v {at}/f:/etc/one:ro app:1 cat /etc/one")
        ),
        "host\n"
    );
    let mount = format!("run --rm --mount type=bind,source={at},target=/m,readonly app:1");
    mica(&s, &format!("{mount} touch /m/h")).code(1);
    // A volume may cover a file that every container has.
    assert_eq!(
        shown(
            &s,
            &format!("run --rm -v {at}/f:/etc/hosts app:1 cat /etc/hosts")
        ),
        "host\n"
    );
}

#[test]
fn root_wrong_mounts_get_docker_s_words() {
    let s = sandbox();
    let table = [
        (
            "-v /no/such:/x",
            "bind source path does not exist: /no/such",
        ),
        (
            "--mount type=bind,src=/no/such,dst=/x",
            "bind source path does not exist: /no/such",
        ),
        ("-v ./rel:/x", "bind source path does not exist: /"),
        ("-v /etc:/x -v /tmp:/x", "Duplicate mount point: /x"),
        (
            "-v /etc:rel",
            "invalid mount path: 'rel' mount path must be absolute",
        ),
        ("-v /etc:/", "destination can't be '/'"),
        ("-v /etc:/x:foo", "invalid mode: foo"),
        ("-v a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
        ("--mount type=nfs,dst=/x", "mount type unknown"),
        ("--volumes-from nobody", "No such container: nobody"),
    ];
    for (options, words) in table {
        let run = mica(&s, &format!("run --rm {options} app:1 true")).code(125);
        assert!(run.stderr().contains(words), "{}", run.describe());
    }
    assert!(left(&s).is_empty());
    assert_eq!(volumes(&s), 0);
}

#[test]
fn root_a_named_volume_gets_the_image_s_content_once_and_stays() {
    let s = sandbox();
    s.load(&image("site:1").layer(|l| {
        l.dir("srv", 0o755)
            .owner(33, 44)
            .mode(0o751)
            .file("srv/index", "from the image\n")
            .owner(5, 6)
            .symlink("srv/link", "index")
            .hardlink("srv/again", "srv/index")
            .owner(5, 6)
    }));
    let first = shown(
        &s,
        "run --rm -v web:/srv site:1 -- cat /srv/link; stat -c '%u:%g %a' /srv; stat -c '%u:%g %h' /srv/index",
    );
    assert_eq!(first, "from the image\n33:44 751\n5:6 2\n");
    shown(&s, "run --rm -v web:/srv site:1 rm /srv/again");
    assert_eq!(
        shown(&s, "run --rm -v web:/other app:1 ls /other"),
        "index\nlink\n"
    );
    assert_eq!(shown(&s, "run --rm -v bare:/srv:nocopy site:1 ls /srv"), "");
    assert_eq!(volumes(&s), 2);
}

/// The story of the tutorials: one makes a volume, the next inherits it, the first is gone, a third inherits it from the second,
/// and with the last it evaporates.
#[test]
fn root_volumes_from_chains_and_the_last_one_turns_off_the_light() {
    let s = sandbox();
    shown(
        &s,
        "run -d --rm --name one -v /shared app:1 -- echo hello > /shared/f; sleep 600",
    );
    shown(&s, "run -d --name two --volumes-from one app:1 sleep 600");
    assert_eq!(shown(&s, "exec two cat /shared/f"), "hello\n");
    shown(&s, "kill one");
    wait_until("one is gone", || left(&s).len() == 1);
    shown(
        &s,
        "run -d --name three --volumes-from two:ro app:1 sleep 600",
    );
    shown(&s, "rm -f two");
    assert_eq!(shown(&s, "exec three cat /shared/f"), "hello\n");
    mica(&s, "exec three touch /shared/g").code(1);
    assert_eq!(volumes(&s), 1);
    shown(&s, "kill three");
    wait_until("the volume has gone", || volumes(&s) == 0);
    // A container that has ended still says what it had; the volume is made anew.
    assert_eq!(
        shown(&s, "run --rm --volumes-from three app:1 -- echo ok")
            .lines()
            .count(),
        1
    );
}

#[test]
fn root_an_image_s_volumes_are_anonymous_and_go() {
    let s = sandbox();
    s.load(&image("vol:1").config(|c| c["config"]["Volumes"] = serde_json::json!({"/data": {}})));
    let mounts = shown(&s, "run --rm vol:1 -- grep -c ' /data ' /proc/self/mounts");
    assert_eq!(mounts, "1\n");
    assert_eq!(volumes(&s), 0);
    shown(&s, "run --rm -v keep:/data vol:1 true");
    assert_eq!(volumes(&s), 1);
}

#[test]
fn root_memory_and_other_images_are_mounted() {
    let s = sandbox();
    s.load(&image("data:1").layer(|l| l.dir("set", 0o755).file("set/one", "1\n")));
    let run = shown(
        &s,
        "run --rm --mount type=image,source=data:1,target=/i --mount type=image,source=data:1,target=/j,image-subpath=set app:1 -- cat /i/set/one /j/one; touch /i/x 2>/dev/null || echo no",
    );
    assert_eq!(run, "1\n1\nno\n");
    let size = shown(
        &s,
        "run --rm --mount type=tmpfs,target=/t,tmpfs-size=1m app:1 -- df /t | grep -c 1024",
    );
    assert_eq!(size, "1\n");
}

/// What the kernel keeps of a volume for a mount is forgotten before a container gets at the volume.
#[test]
fn root_a_container_and_the_mount_see_each_other_at_once() {
    let s = sandbox();
    let mount = s.mount();
    let data = mount.path("volumes/data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("f"), "x").unwrap();
    for round in 0..3 {
        for _ in 0..3 {
            assert_eq!(fs::read_dir(&data).unwrap().count(), 1 + round);
            assert!(fs::metadata(data.join(format!("new{round}"))).is_err());
            assert_eq!(
                fs::metadata(data.join("f")).unwrap().len(),
                1 + round as u64
            );
        }
        let change = format!("run --rm -v data:/d app:1 -- echo > /d/new{round}; printf y >> /d/f");
        mica(&s, &change).code(0);
        assert!(fs::metadata(data.join(format!("new{round}"))).is_ok());
        assert_eq!(
            fs::metadata(data.join("f")).unwrap().len(),
            2 + round as u64
        );
        assert_eq!(fs::read_dir(&data).unwrap().count(), 2 + round);
    }
}
