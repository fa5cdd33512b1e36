//! The EXAMPLES of the manual pages: by page, what to type and what it is for. A test parses every line.

/// By the words of the verb; a noun form (`image ls`) has those of its verb.
pub(super) const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "pull",
        &[
            ("mica pull debian:12", "from Docker Hub"),
            ("mica pull -a registry.example.com/team/app", "every tag"),
        ],
    ),
    (
        "push",
        &[(
            "mica push registry.example.com/team/app:1.0",
            "what the registry lacks",
        )],
    ),
    (
        "login",
        &[(
            "mica login -u me --password-stdin registry.example.com",
            "the password is read from standard input",
        )],
    ),
    (
        "logout",
        &[("mica logout registry.example.com", "forget it")],
    ),
    (
        "load",
        &[(
            "mica load -i app.tar",
            "an archive of docker save, or an OCI layout",
        )],
    ),
    (
        "save",
        &[(
            "mica save -o app.tar app:1.0 app:1.1",
            "layers that both have once",
        )],
    ),
    (
        "import",
        &[("mica import tree.tar app:1.0", "an image of one layer")],
    ),
    (
        "export",
        &[
            ("mica export -o tree.tar web", "the files of a container"),
            ("mica export app:1.0 | tar -x -C DIR", "of an image"),
        ],
    ),
    ("build", &[("mica build -t app:1.0 .", "by ./Dockerfile")]),
    (
        "run",
        &[
            (
                "mica run --rm -it debian:12 bash",
                "a shell; ctrl-p ctrl-q leaves it running",
            ),
            (
                "mica run -d --name web -v data:/data web:1",
                "in the background, with a volume",
            ),
        ],
    ),
    (
        "create",
        &[("mica create --name web web:1", "not started yet")],
    ),
    ("exec", &[("mica exec -it web sh", "a shell beside")]),
    (
        "attach",
        &[
            ("mica attach web", "ctrl-p ctrl-q leaves"),
            ("mica attach --no-stdin --sig-proxy=false web", "only look"),
        ],
    ),
    (
        "cp",
        &[
            ("mica cp web:/etc/web.conf .", "out of it"),
            ("mica cp site/. web:/srv/www", "what is in site"),
            ("mica cp web:/var/log - | tar -t", "as a tar"),
        ],
    ),
    (
        "ps",
        &[("mica ps -a --filter status=exited", "those that have ended")],
    ),
    (
        "logs",
        &[
            ("mica logs -f -n 20 web", "the last lines, and what follows"),
            ("mica logs --since 10m web", "of the last ten minutes"),
        ],
    ),
    ("start", &[("mica start -ai web", "and stay with it")]),
    ("stop", &[("mica stop -t 30 web", "it has half a minute")]),
    ("kill", &[("mica kill -s HUP web", "another signal")]),
    ("pause", &[("mica pause web", "until mica unpause web")]),
    ("unpause", &[("mica unpause web", "go on")]),
    ("wait", &[("mica wait web", "prints its exit code")]),
    (
        "restart",
        &[("mica restart web", "stopped, and started again")],
    ),
    ("rename", &[("mica rename web old-web", "another name")]),
    ("top", &[("mica top web -o pid,rss,comm", "columns of ps")]),
    (
        "port",
        &[("mica port web", "none: the network is the host's")],
    ),
    (
        "rm",
        &[(
            "mica rm -f -v web",
            "whether it runs or not, with its volumes without a name",
        )],
    ),
    (
        "images",
        &[
            ("mica images --filter dangling=true", "those without a name"),
            ("mica images --sort size", "the largest first"),
        ],
    ),
    (
        "tag",
        &[
            ("mica tag app:1.0 app:latest", "one more name"),
            ("mica tag --log app:latest", "what it was on before"),
        ],
    ),
    (
        "rmi",
        &[
            ("mica rmi app:1.0", "the name, and what nobody else needs"),
            ("mica rmi --dry-run app:*", "what that would be"),
        ],
    ),
    (
        "inspect",
        &[("mica inspect -f {{.Config.Cmd}} app:1.0", "one fact")],
    ),
    (
        "history",
        &[("mica history --no-trunc app:1.0", "every step")],
    ),
    (
        "diff",
        &[
            ("mica diff web", "what the container changed"),
            ("mica diff app:1.0 app:1.1", "from one image to another"),
        ],
    ),
    (
        "commit",
        &[("mica commit -m fixed web app:1.1", "an image of it")],
    ),
    ("tree", &[("mica tree", "shared layers once")]),
    (
        "pin",
        &[
            ("mica pin app:1.0", "keep it"),
            ("mica pin", "which are pinned"),
        ],
    ),
    ("unpin", &[("mica unpin app:1.0", "let it go")]),
    (
        "trash",
        &[
            ("mica trash --keep 7d", "switch it on"),
            ("mica trash", "what is in it"),
        ],
    ),
    ("restore", &[("mica restore app:1.0", "bring it back")]),
    (
        "events",
        &[
            ("mica events --since 1h --until 0s", "of the last hour"),
            ("mica events -f type=image", "follow"),
        ],
    ),
    (
        "bundle",
        &[("mica bundle app:1.0 DIR", "then runc run -b DIR NAME")],
    ),
    ("gc", &[("mica gc --dry-run", "what there is")]),
    ("check", &[("mica check --repair", "indexes are made anew")]),
    (
        "mount",
        &[("mica mount mnt", "a directory for every image")],
    ),
    ("umount", &[("mica umount mnt", "and its volumes")]),
    ("users", &[("mica users data", "who uses the volume")]),
    ("info", &[("mica info", "the store and the machine")]),
    ("version", &[("mica version", "which mica")]),
    (
        "hold",
        &[(
            "mica hold -v data:/mnt -- ls /mnt",
            "a command of the host that sees a volume",
        )],
    ),
    (
        "volume",
        &[
            ("mica volume create data", "one that stays"),
            ("mica volume ls -l", "who uses them"),
        ],
    ),
    (
        "volume create",
        &[(
            "mica volume create --ephemeral scratch",
            "gone with its last user",
        )],
    ),
    (
        "volume ls",
        &[("mica volume ls -l", "kind, size and users")],
    ),
    (
        "volume inspect",
        &[("mica volume inspect data", "where it is")],
    ),
    (
        "volume rm",
        &[("mica volume rm data", "with what is in it")],
    ),
    (
        "volume keep",
        &[("mica volume keep scratch", "it does not go any more")],
    ),
    (
        "volume prune",
        &[("mica volume prune -a --dry-run", "what nobody uses")],
    ),
    (
        "volume plugin",
        &[("mica volume plugin", "serves docker and podman")],
    ),
    ("image", &[("mica image ls", "as mica images")]),
    (
        "image prune",
        &[
            (
                "mica image prune -a --filter until=30d",
                "unused for its age",
            ),
            ("mica image prune --keep 3", "the newest of each"),
        ],
    ),
    ("container", &[("mica container ls -a", "as mica ps -a")]),
    (
        "container prune",
        &[(
            "mica container prune --filter until=24h",
            "ended and older than a day",
        )],
    ),
    ("system", &[("mica system df", "where the space is")]),
    (
        "system df",
        &[("mica system df -v", "by image, container and volume")],
    ),
    (
        "system prune",
        &[("mica system prune -a --dry-run", "what nobody needs")],
    ),
    (
        "system connect",
        &[(
            "mica system connect podman --write",
            "its images are podman's",
        )],
    ),
    (
        "system disconnect",
        &[("mica system disconnect podman", "no more")],
    ),
    ("builder", &[("mica builder prune", "what builds keep")]),
    (
        "builder prune",
        &[("mica builder prune -a -f", "all of it")],
    ),
    (
        "completion",
        &[("mica completion bash", "make install puts it in its place")],
    ),
];

/// Those of a page.
pub(super) fn of(words: &str) -> &'static [(&'static str, &'static str)] {
    let find = |words: &str| EXAMPLES.iter().find(|(of, _)| *of == words);
    let noun = |words: &str| -> Option<String> {
        let (noun, verb) = words.split_once(' ')?;
        Some(match (noun, verb) {
            ("image", "ls") => "images".to_owned(),
            ("image", "rm") => "rmi".to_owned(),
            ("container", "ls") => "ps".to_owned(),
            (_, verb) => verb.to_owned(),
        })
    };
    let found = find(words).or_else(|| find(&noun(words)?));
    found.map(|(_, lines)| *lines).unwrap_or_default()
}
