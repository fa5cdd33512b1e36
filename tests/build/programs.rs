//! Programs as people build them, in stages and offline, and the file of a tutorial word for word.

use super::*;
use crate::common::real;
use crate::common::tier;

/// The image of `contrib/test-images` that has compilers and node.
const TOOLS: &str = "localhost/mica-test:real";

fn with_tools() -> Sandbox {
    tier::root();
    let s = Sandbox::new();
    s.load_file(&real::docker_archive("real")).ok();
    s
}

fn files(s: &Sandbox, image: &str) -> usize {
    let lines = listing(s, image, "");
    lines.iter().filter(|line| !line.ends_with('/')).count()
}

#[test]
fn root_build_programs_in_c_rust_and_node() {
    let s = with_tools();
    let c = format!(
        "FROM {TOOLS} AS build\nWORKDIR /src\nCOPY Makefile ./\nCOPY *.c *.h ./\nRUN make\n\
         FROM scratch\nCOPY --from=build /src/greet /greet\nENTRYPOINT [\"/greet\"]\nCMD [\"world\"]\n"
    );
    let main = "#include \"greet.h\"\nint main(int argc, char **argv) { return greet(argc > 1 ? argv[1] : \"nobody\"); }\n";
    let greet = "#include <stdio.h>\n#include \"greet.h\"\nint greet(const char *who) { return printf(\"hello, %s\\n\", who) < 0; }\n";
    let make = "greet: main.o greet.o\n\t$(CC) -static -o $@ $^\n%.o: %.c greet.h\n\t$(CC) -O2 -Wall -Werror -c $<\n";
    context(
        &s,
        "c",
        &[
            ("Dockerfile", &c),
            ("Makefile", make),
            ("main.c", main),
            ("greet.c", greet),
            ("greet.h", "int greet(const char *who);\n"),
        ],
    );
    build(&s, "c", &["-t", "c:1"]).ok();
    assert_eq!(shown(&s, "run --rm c:1"), "hello, world\n");
    assert_eq!(shown(&s, "run --rm c:1 you"), "hello, you\n");
    // One layer, one file: nothing of the stage before.
    assert_eq!(files(&s, "c:1"), 1);

    let node = format!(
        "FROM {TOOLS} AS build\nWORKDIR /app\nCOPY package.json ./\nCOPY node_modules ./node_modules\nCOPY . .\nRUN node build.js\n\
         FROM {TOOLS}\nENV NODE_ENV=production\nWORKDIR /srv/app\nCOPY --from=build --chown=nobody /app/dist ./\nUSER nobody\nCMD [\"node\", \"app.js\"]\n"
    );
    let bundle = "const fs = require('fs'); fs.mkdirSync('dist');\n\
        fs.writeFileSync('dist/app.js', fs.readFileSync('node_modules/greeting/index.js') + fs.readFileSync('src/app.js'));\n";
    context(
        &s,
        "node",
        &[
            ("Dockerfile", &node),
            (".dockerignore", "dist\n*.log\n"),
            (
                "package.json",
                "{\"name\": \"app\", \"version\": \"1.0.0\"}\n",
            ),
            (
                "node_modules/greeting/index.js",
                "const greet = (who) => `hello, ${who}`;\n",
            ),
            (
                "src/app.js",
                "console.log(greet(process.env.NODE_ENV), process.getuid() > 0);\n",
            ),
            ("build.js", bundle),
            ("npm.log", "not of the context"),
            ("dist/old.js", "not of the context"),
        ],
    );
    build(&s, "node", &["-t", "node:1"]).ok();
    assert_eq!(shown(&s, "run --rm node:1"), "hello, production true\n");

    rust(&s);
}

/// With the toolchain that has built the tests, as an image of its own.
fn rust(s: &Sandbox) {
    let cargo = Path::new(env!("CARGO")).canonicalize().unwrap();
    let sysroot = cargo.ancestors().nth(2).unwrap();
    let found = s.sh(&format!(
        "ls {}/lib/librustc_driver-*.so",
        sysroot.display()
    ));
    if found.status.code() != Some(0) {
        eprintln!(
            "!! the toolchain in {sysroot:?} cannot be taken along: no Rust program was built"
        );
        return;
    }
    let pack = format!(
        "cd {}; tar -cf $OLDPWD/tool.tar bin/rustc bin/cargo lib/*.so* lib/rustlib/*-linux-*",
        sysroot.display()
    );
    s.sh(&pack).ok();
    s.mica(["import", "tool.tar", "toolchain:1"]).ok();
    let dockerfile = format!(
        "FROM {TOOLS} AS build\nENV PATH=/tool/bin:$PATH CARGO_HOME=/cargo\nWORKDIR /src\nCOPY . .\n\
         RUN --mount=type=bind,from=toolchain:1,target=/tool --mount=type=cache,target=/src/target \\\n\
         \x20   cargo build --offline && cp target/debug/greet /greet\n\
         FROM scratch\nCOPY --from=build /greet /\nENTRYPOINT [\"/greet\"]\n"
    );
    let config = "[source.crates-io]\nreplace-with = \"vendored\"\n[source.vendored]\ndirectory = \"vendor\"\n\
        [build]\nrustflags = [\"-Ctarget-feature=+crt-static\"]\n";
    let manifest = "[package]\nname = \"greet\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\ngreeting = \"1\"\n";
    let vendored = "[package]\nname = \"greeting\"\nversion = \"1.2.3\"\nedition = \"2021\"\n";
    context(
        s,
        "rust",
        &[
            ("Dockerfile", &dockerfile),
            ("Cargo.toml", manifest),
            (".cargo/config.toml", config),
            (
                "src/main.rs",
                "fn main() { println!(\"{}\", greeting::greet(\"rust\")); }\n",
            ),
            ("vendor/greeting/Cargo.toml", vendored),
            ("vendor/greeting/.cargo-checksum.json", "{\"files\":{}}\n"),
            (
                "vendor/greeting/src/lib.rs",
                "pub fn greet(who: &str) -> String { format!(\"hello, {who}\") }\n",
            ),
        ],
    );
    build(s, "rust", &["-t", "rust:1"]).ok();
    assert_eq!(shown(s, "run --rm rust:1"), "hello, rust\n");
    assert_eq!(files(s, "rust:1"), 1);
}

#[test]
fn root_build_of_twenty_steps_is_cached_whole() {
    let s = sandbox();
    let mut file = "FROM app:1\n".to_owned();
    for step in 0..19 {
        file += &match step % 4 {
            0 => format!("ENV STEP{step}={step}\n"),
            1 => format!("COPY f /t/{step}/\n"),
            2 => format!("RUN echo $STEP{} > /t/{step}.txt\n", step - 2),
            _ => format!("LABEL step={step}\n"),
        };
    }
    context(&s, "c", &[("Dockerfile", &file), ("f", "f")]);
    let first = build(&s, "c", &["-t", "t:1"]).ok();
    assert!(
        first.stdout().contains("Step 20/20 : "),
        "{}",
        first.describe()
    );
    let again = build(&s, "c", &["-t", "t:2"]).ok();
    assert_eq!(cached(&again), 19, "{}", again.describe());
    assert_eq!(id(&s, "t:1"), id(&s, "t:2"));
    assert_eq!(content(&s, "t:1", "/t/18.txt"), "16\n");
}

/// The blanks after ENV's names are tabs, as where it comes from.
const TUTORIAL: &str = "FROM debian:bookworm-slim\n\
\n\
LABEL maintainer=\"somebody@example.org\"\n\
\n\
ENV APP_NAME\t\tmy-app\n\
ENV APP_VERSION\t1.0\n\
ENV DEBIAN_FRONTEND\tnoninteractive\n\
\n\
RUN apt-get update \\\n\
\x20   && apt-get install -y nginx \\\n\
\x20   && apt-get clean\n\
\n\
RUN ln -sf /dev/stdout /var/log/nginx/access.log \\\n\
\x20   && ln -sf /dev/stderr /var/log/nginx/error.log\n\
\n\
COPY index.html /var/www/html/\n\
\n\
EXPOSE 80\n\
\n\
CMD [\"nginx\", \"-g\", \"daemon off;\"]\n";

#[test]
fn net_root_build_of_a_tutorials_nginx_serves_its_page() {
    tier::root();
    let s = Sandbox::new();
    s.load_file(&real::docker_archive("small")).ok();
    s.mica(["tag", "localhost/mica-test:small", "debian:bookworm-slim"])
        .ok();
    context(
        &s,
        "site",
        &[
            ("Dockerfile", TUTORIAL),
            ("index.html", "<h1>It is mica</h1>\n"),
        ],
    );
    let alias = format!("alias docker={}\n", env!("CARGO_BIN_EXE_mica"));
    s.sh(&format!("{alias}cd site\ndocker build -t my-app:1.0 ."))
        .ok();
    let config = config(&s, "my-app:1.0");
    let variables = config["Env"].to_string();
    assert!(
        variables.contains("APP_NAME=my-app") && variables.contains("APP_VERSION=1.0"),
        "{variables}"
    );
    // A network of its own: port 80 may be somebody's.
    let script = format!(
        "{alias}docker run -dit --name web my-app:1.0 >/dev/null\n\
         tries=0; until curl -sf http://127.0.0.1:80/; do tries=$((tries + 1)); [ $tries -lt 100 ]; sleep 0.2; done\n\
         docker logs web | grep -c 'GET / HTTP'\ndocker rm -f web >/dev/null"
    );
    fs::write(s.path("serve.sh"), script).unwrap();
    let served = s
        .sh("unshare -n sh -euc 'busybox ip link set lo up; exec sh -eu serve.sh'")
        .ok();
    assert_eq!(served.stdout(), "<h1>It is mica</h1>\n1\n");
    let history = s.mica([
        "history",
        "--format",
        "{{.CreatedBy}}",
        "--no-trunc",
        "my-app:1.0",
    ]);
    let history = history.ok().stdout();
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(
        lines[0],
        "/bin/sh -c #(nop)  CMD [\"nginx\" \"-g\" \"daemon off;\"]"
    );
    assert_eq!(lines[1], "/bin/sh -c #(nop)  EXPOSE 80");
    assert!(
        lines[2].starts_with("/bin/sh -c #(nop) COPY file:")
            && lines[2].ends_with(" in /var/www/html/ "),
        "{history}"
    );
    assert!(
        lines[4].contains("apt-get update     && apt-get install -y nginx     && apt-get clean"),
        "{history}"
    );
    assert_eq!(lines[6], "/bin/sh -c #(nop)  ENV APP_VERSION=1.0");
}
