//! A real engine and its real client, over the API on the overlay.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use arpanet_docker::{ContainerDns, DockerApi, DockerApiConfig, DockerConfig};
use arpanet_lab::{Engine, IMAGE};

use crate::engines::have;

const DOCKER: &str = "/usr/bin/docker";

struct World {
    engine: Engine,
    api: DockerApi,
}

impl World {
    /// `None` where there is no engine; where one is promised, that is a failure.
    async fn new() -> Option<Self> {
        if !have("docker", "/usr/sbin/dockerd") {
            return None;
        }
        let engine = Engine::start().await.unwrap();
        let address = ["addr", "add", "10.254.2.12/32", "dev", "lo"];
        assert!(
            engine
                .command("ip")
                .args(address)
                .status()
                .unwrap()
                .success()
        );
        let bind = || std::net::TcpListener::bind("10.254.2.12:2375");
        let listener = engine.namespace().unwrap().run(bind).unwrap().unwrap();
        let dns = ContainerDns::default()
            .attached(["169.254.1.1".parse().unwrap()])
            .search(["service.consul".to_owned()]);
        let config = DockerConfig::default().socket(engine.socket());
        let config = DockerApiConfig::new(&config).dns(dns);
        let api = DockerApi::serve(listener, config).unwrap();
        Some(Self { engine, api })
    }

    fn docker(&self, args: &[&str]) -> Command {
        let mut command = self.engine.command(DOCKER);
        command
            .args(["-H", "tcp://10.254.2.12:2375"])
            .args(args)
            .env("DOCKER_BUILDKIT", "0");
        command
    }

    /// What a command of the client prints; it has to succeed.
    fn says(&self, args: &[&str]) -> String {
        self.with_input(args, &[])
    }

    fn with_input(&self, args: &[&str], input: &[u8]) -> String {
        String::from_utf8(self.bytes(args, input))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn bytes(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = output(self.docker(args), input);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        output.stdout
    }
}

fn output(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The client may end without having read it all.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

/// Ten megabytes in which nothing repeats soon.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..1_310_720).flat_map(step).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_both_ways_and_come_to_their_ends() {
    let Some(world) = World::new().await else {
        return;
    };
    let noise = noise();
    let back = world.bytes(&["run", "--rm", "-i", IMAGE, "cat"], &noise);
    assert!(
        back == noise,
        "{} bytes of {} came back",
        back.len(),
        noise.len()
    );

    world.says(&[
        "run",
        "-d",
        "--name",
        "talker",
        IMAGE,
        "sh",
        "-c",
        "echo first; while [ ! -e /tmp/end ]; do sleep 0.1; done; echo last",
    ]);
    let failing = world.docker(&[
        "exec",
        "talker",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 42",
    ]);
    let failed = output(failing, &[]);
    assert_eq!(failed.status.code(), Some(42));
    assert_eq!(
        (&failed.stdout[..], &failed.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let back = world.bytes(&["exec", "-i", "talker", "cat"], &noise);
    assert!(back == noise);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("noise");
    std::fs::write(&file, &noise).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder.path()).args(["-c", "noise"]);
    let archive = output(tar, &[]);
    world.with_input(&["cp", "-", "talker:/tmp"], &archive.stdout);
    let back = world.bytes(&["cp", "talker:/tmp/noise", "-"], &[]);
    let start = noise[..4096].to_vec();
    assert!(
        back.chunks(512)
            .collect::<Vec<_>>()
            .windows(8)
            .any(|part| part.concat() == start)
    );
    assert!(back.len() > noise.len());

    let following = world.docker(&["logs", "-f", "talker"]);
    let reader = tokio::task::spawn_blocking(move || output(following, &[]));
    world.says(&["exec", "talker", "touch", "/tmp/end"]);
    assert_eq!(reader.await.unwrap().stdout, b"first\nlast\n");
    world.api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_an_image() {
    let Some(world) = World::new().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = format!(
        "FROM {IMAGE}\nCOPY noise /noise\nRUN wc -c < /noise > /count\nCMD [\"cat\", \"/count\"]\n"
    );
    std::fs::write(folder.path().join("Dockerfile"), file).unwrap();
    std::fs::write(folder.path().join("noise"), noise()).unwrap();
    let context = Command::new("tar")
        .arg("-C")
        .arg(folder.path())
        .args(["-c", "Dockerfile", "noise"])
        .output()
        .unwrap()
        .stdout;
    world.with_input(&["build", "-t", "built", "-"], &context);
    assert_eq!(world.says(&["run", "--rm", "built"]), "10485760");

    // BuildKit's session is an upgraded stream with requests of the engine in it.
    let mut session = world.docker(&["build", "--no-cache", "-t", "again", "-"]);
    session.env("DOCKER_BUILDKIT", "1");
    let built = output(session, &context);
    assert!(built.status.success(), "{built:?}");
    assert_eq!(world.says(&["run", "--rm", "again"]), "10485760");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_on_the_overlay_are_made_with_its_dns() {
    let Some(world) = World::new().await else {
        return;
    };
    let dns = "{{json .HostConfig.Dns}} {{json .HostConfig.DnsSearch}}";
    for (args, expected) in [
        (
            &["--label", "arpanet.net=10.1.0.0/16"][..],
            r#"["169.254.1.1"] ["service.consul"]"#,
        ),
        (
            &["-e", "WEAVE_CIDR=10.1.0.0/16"],
            r#"["169.254.1.1"] ["service.consul"]"#,
        ),
        (
            &["--label", "arpanet.net=shop", "--dns", "8.8.8.8"],
            r#"["8.8.8.8"] []"#,
        ),
        (&["--label", "arpanet.net=shop", "--net", "host"], "[] []"),
        (&[], "[] []"),
    ] {
        let id = world.says(&[&["create"], args, &[IMAGE, "true"]].concat());
        assert_eq!(
            world.says(&["inspect", "-f", dns, &id]),
            expected,
            "{args:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_told_that_the_engine_is_away() {
    let Some(mut world) = World::new().await else {
        return;
    };
    world
        .engine
        .end(arpanet_lab::Ending::InOrder)
        .await
        .unwrap();
    let away = output(world.docker(&["ps"]), &[]);
    let error = String::from_utf8_lossy(&away.stderr);
    assert!(
        !away.status.success() && error.contains("the docker engine of this node"),
        "{error}"
    );
    world.engine.start_again().await.unwrap();
    world.says(&["ps"]);
}
