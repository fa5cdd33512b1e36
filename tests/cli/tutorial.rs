//! The image commands of a Docker tutorial, as it has them, with `alias docker=mica`.

use super::{chains, image, short, store};

#[test]
fn a_tutorial_runs_word_for_word() {
    let sandbox = store(&["nginx:latest", "busybox:1.36"]);
    let (nginx, busybox) = (image("nginx:latest"), image("busybox:1.36"));
    let script = r#"
docker images -q nginx
docker image ls --format '{{.Repository}}:{{.Tag}}' nginx
docker tag nginx:latest nginx:my_blog_stable
docker image tag nginx registry.example.com:5000/org/nginx:1.0
docker images --filter reference='nginx:my*' --format '{{.Tag}}'
docker rmi nginx:my_blog_stable
docker inspect -f '{{.Architecture}}' nginx
docker image inspect --format '{{.Os}}/{{.Architecture}} {{json .Config.Cmd}}' nginx busybox:1.36
docker history --format '{{.ID}}: {{.CreatedBy}}' nginx
docker history -q --no-trunc nginx
docker save -o saved.tar nginx:latest
docker image rm registry.example.com:5000/org/nginx:1.0
docker rmi nginx
docker load -i saved.tar
docker load < saved.tar
docker tag busybox:1.36 nginx:latest
docker images -q --filter dangling=true
docker rmi $(docker images -q -f dangling=true)
docker image prune -f
docker image prune -a --force --filter until=24h
docker system df --format '{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}'
docker system prune -a -f
docker images
"#;
    let alias = format!("alias docker={}\n", env!("CARGO_BIN_EXE_mica"));
    let run = sandbox.sh(&format!("{alias}{script}")).ok();
    let (id, other) = (nginx.id(), busybox.id());
    let layers = |image| -> String {
        let chains = chains(image);
        chains
            .iter()
            .map(|chain| format!("Deleted: {chain}\n"))
            .collect()
    };
    // The lowest layer is busybox's too.
    let top = format!("Deleted: {}\n", chains(&nginx)[0]);
    let arch = nginx.config["architecture"].as_str().unwrap_or_default();
    let mut expected = format!(
        "{short}\nnginx:latest\nmy_blog_stable\nUntagged: nginx:my_blog_stable\n{arch}\n\
         linux/{arch} [\"/bin/sh\"]\nlinux/{arch} [\"/bin/sh\"]\n\
         {short}: layer 2\n<missing>: layer 1\n{id}\n<missing>\n\
         Untagged: registry.example.com:5000/org/nginx:1.0\nUntagged: nginx:latest\nDeleted: {id}\n{top}\
         Loaded image: nginx:latest\nLoaded image: nginx:latest\n{short}\nDeleted: {id}\n{top}\
         Total reclaimed space: 0B\n\
         Deleted Images:\nuntagged: busybox:1.36\nuntagged: nginx:latest\ndeleted: {other}\n",
        short = short(&id),
    );
    expected.push_str(&layers(&busybox).replace("Deleted", "deleted"));
    let output = run.stdout();
    let rest = output.strip_prefix(&expected).unwrap_or_else(|| {
        panic!("expected:\n{expected}\ngot:\n{output}");
    });
    let rest: Vec<&str> = rest.lines().collect();
    assert!(rest[1].starts_with("Total reclaimed space: "), "{output}");
    assert_eq!(
        (rest[0], &rest[2..]),
        (
            "",
            &[
                "Images 0 0 0B",
                "Containers 0 0 0B",
                "Local Volumes 0 0 0B",
                "Build Cache 0 0 0B",
                "Total reclaimed space: 0B",
                "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE"
            ][..]
        ),
        "{output}"
    );
    // Only the progress of loading.
    let stderr = run.stderr();
    let progress = |line: &str| line.ends_with(": Loaded") || line.ends_with(": Already exists");
    assert!(stderr.lines().all(progress), "{stderr}");
}
