//! The runtime on an engine that other clients use too, and that is killed and started again.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod engines;

use std::time::{Duration, Instant};

use arpanet_core::runtime::{
    Container, ContainerSpec, ContainerState, EngineHealth, ExecInput, ExecOutput, ExecSpec,
    LogOptions, Output, OutputStream, RestartPolicy, Runtime,
};
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{ContainerName, ErrorKind};
use arpanet_docker::{DockerConfig, DockerRuntime};
use arpanet_lab::{Ending, Engine, IMAGE};
use bytes::Bytes;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use self::engines::have;

const BOUND: Duration = Duration::from_secs(20);

struct Scene {
    engine: Engine,
    runtime: DockerRuntime,
}

/// An engine of its own; `None` where there can be none, unless one is promised.
async fn scene() -> Option<Scene> {
    if !have("docker", "/usr/sbin/dockerd") {
        return None;
    }
    let engine = Engine::start().await.unwrap();
    let config = DockerConfig::default().socket(engine.socket());
    let runtime = DockerRuntime::connect(config).await.unwrap();
    Some(Scene { engine, runtime })
}

impl Scene {
    /// As another client of the engine.
    fn docker(&self, line: &[&str]) -> String {
        let done = self
            .engine
            .command("/usr/bin/docker")
            .args(line)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "docker {line:?}: {told}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Runs `sleep` with these options, as another client.
    fn sleeping(&self, name: &str, options: &[&str]) -> String {
        let begin = ["run", "-d", "--name", name];
        self.docker(&[&begin, options, &[IMAGE, "sleep", "600"]].concat())
    }

    async fn run(&self, name: &str, script: &str) -> ContainerName {
        let spec = shell(name, script);
        let made = self.runtime.create(&spec).await.unwrap();
        self.runtime.start(&made.name).await.unwrap();
        made.name
    }
}

fn shell(name: &str, script: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::image(IMAGE).named(name.parse().unwrap());
    spec.command = ["sh", "-c", script].map(str::to_owned).to_vec();
    spec
}

type Containers = Watch<ContainerName, Container>;

/// Waits until a watch tells what is wanted.
async fn told(watch: &mut Containers, wanted: impl Fn(&Change<ContainerName, Container>) -> bool) {
    timeout(BOUND, async {
        loop {
            if wanted(&watch.next().await.unwrap()) {
                return;
            }
        }
    })
    .await
    .expect("it was not told");
}

fn is(change: &Change<ContainerName, Container>, name: &str, state: ContainerState) -> bool {
    match change {
        Change::Upsert(at, container) => at.as_str() == name && container.state == state,
        Change::Snapshot(set) => set
            .iter()
            .any(|(at, container)| at.as_str() == name && container.state == state),
        _ => false,
    }
}

async fn all(mut from: Receiver<Output>) -> String {
    let mut out = String::new();
    timeout(BOUND, async {
        while let Some(piece) = from.recv().await {
            assert_eq!(piece.stream, OutputStream::Stdout);
            out.push_str(&String::from_utf8_lossy(&piece.bytes));
        }
    })
    .await
    .expect("the output does not end");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_any_client_are_listed_with_what_they_want() {
    let Some(scene) = scene().await else { return };
    let runtime = &scene.runtime;
    let mut watch = runtime.watch().await.unwrap();
    scene.sleeping("plain", &[]);
    scene.sleeping(
        "shop_web_1",
        &[
            "--label",
            "arpanet.ip=10.1.0.5/16",
            "--label",
            "arpanet.service=web", //
            "--label",
            "arpanet.port=80",
            "--label",
            "arpanet.check=http:/health",
        ],
    );
    scene.sleeping(
        "weaver",
        &["-e", "WEAVE_CIDR=net:10.2.0.0/16 ip:10.3.0.7/16"],
    );
    scene.sleeping("wrong", &["--label", "arpanet.net=nonsense/99"]);
    scene.sleeping(
        "shared",
        &["--net", "host", "--label", "arpanet.net=10.1.0.0/16"],
    );
    told(&mut watch, |change| {
        is(change, "shared", ContainerState::Running)
    })
    .await;

    let listed = runtime.list().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["shared", "shop_web_1", "weaver", "wrong"]);
    let [shared, web, weaver, wrong] = &listed[..] else {
        unreachable!()
    };
    assert_eq!(shared.namespace, None, "it is the host's");
    assert_eq!(web.spec.nets, ["10.1.0.5/16".parse().unwrap()]);
    assert_eq!(web.spec.service.as_ref().unwrap().port, 80);
    assert_eq!(web.spec.checks.len(), 1);
    assert!(web.namespace.is_some() && web.problems.is_empty());
    let nets = ["10.2.0.0/16", "10.3.0.7/16"].map(|net| net.parse().unwrap());
    assert_eq!(weaver.spec.nets, nets);
    assert!(wrong.spec.nets.is_empty() && !wrong.problems.is_empty());

    // One that wants nothing is found when somebody gives it something, and is looked after from then on.
    let plain = "plain".parse().unwrap();
    runtime.inspect(&plain).await.unwrap();
    runtime
        .set_label(&plain, "arpanet.given", Some("+10.1.0.9/16@1".to_owned()))
        .await
        .unwrap();
    told(&mut watch, |change| {
        is(change, "plain", ContainerState::Running)
    })
    .await;

    scene.docker(&["rename", "weaver", "weaver2"]);
    told(&mut watch, |change| {
        is(change, "weaver2", ContainerState::Running)
    })
    .await;
    scene.docker(&["rm", "-f", "shop_web_1"]);
    let gone = |change: &Change<ContainerName, Container>| matches!(change, Change::Removed(name) if name.as_str() == "shop_web_1");
    told(&mut watch, gone).await;
    let taken = shell("plain", "true");
    let error = runtime.create(&taken).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_an_id_is_no_name_and_the_bridge_has_its_address() {
    let Some(scene) = scene().await else { return };
    let id = scene.sleeping("plain", &[]);
    for length in [2, 12, 64] {
        let name: ContainerName = id[..length].parse().unwrap();
        let error = scene.runtime.inspect(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        scene.runtime.remove(&name).await.unwrap();
    }
    let state = ["inspect", "-f", "{{.State.Running}}", "plain"];
    assert_eq!(scene.docker(&state), "true");
    let bridge = scene.runtime.bridge_address().await.unwrap();
    let route = ["exec", "plain", "ip", "route", "show", "default"];
    let wanted = format!("via {} ", bridge.unwrap());
    assert!(scene.docker(&route).contains(&wanted), "{wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_the_truth_within_a_second_of_an_engine_that_was_killed() {
    let Some(mut scene) = scene().await else {
        return;
    };
    let mut always = shell("always", "exec sleep 600");
    always.restart = RestartPolicy::Always;
    let mut watch = scene.runtime.watch().await.unwrap();
    told(&mut watch, |change| matches!(change, Change::Snapshot(_))).await;
    for spec in [&always, &shell("once", "exec sleep 600")] {
        let made = scene.runtime.create(spec).await.unwrap();
        scene.runtime.start(&made.name).await.unwrap();
    }
    for name in ["always", "once"] {
        told(&mut watch, |change| {
            is(change, name, ContainerState::Running)
        })
        .await;
    }
    for ending in [Ending::InOrder, Ending::AtOnce] {
        scene.engine.end(ending).await.unwrap();
        told(&mut watch, |change| *change == Change::Stale).await;
        let error = scene.runtime.list().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        scene.engine.start_again().await.unwrap();
        let back = Instant::now();
        told(&mut watch, |change| *change == Change::Fresh).await;
        assert!(
            back.elapsed() < Duration::from_secs(1),
            "{:?}",
            back.elapsed()
        );
    }
    // No new object, no new watch; and what comes is told as before.
    let always: ContainerName = "always".parse().unwrap();
    let listed = scene.runtime.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    scene.runtime.remove(&always).await.unwrap();
    told(&mut watch, |change| {
        *change == Change::Removed(always.clone())
    })
    .await;
    scene.docker(&["rm", "-f", "once"]);
    let once: ContainerName = "once".parse().unwrap();
    told(&mut watch, |change| {
        *change == Change::Removed(once.clone())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_run_always_is_back_with_an_engine_that_was_killed_and_what_was_stopped_is_not()
{
    let Some(mut scene) = scene().await else {
        return;
    };
    let mut names = Vec::new();
    for name in ["runs", "stopped", "started"] {
        let mut spec = shell(name, "exec sleep 600");
        spec.restart = RestartPolicy::Always;
        spec.stop_grace = Some(Duration::ZERO);
        names.push(scene.runtime.create(&spec).await.unwrap().name);
        scene.runtime.start(names.last().unwrap()).await.unwrap();
    }
    for name in &names[1..] {
        scene.runtime.stop(name).await.unwrap();
        // Once more is fine.
        scene.runtime.stop(name).await.unwrap();
    }
    scene.runtime.start(&names[2]).await.unwrap();
    for ending in [Ending::AtOnce, Ending::InOrder, Ending::AtOnce] {
        scene.engine.end(ending).await.unwrap();
        scene.engine.start_again().await.unwrap();
        let mut watch = scene.runtime.watch().await.unwrap();
        let mut running = std::collections::BTreeSet::new();
        let wanted = [names[0].clone(), names[2].clone()].into();
        while running != wanted {
            let change = timeout(BOUND, watch.next()).await;
            match change
                .unwrap_or_else(|_| panic!("{ending:?}: {running:?}"))
                .unwrap()
            {
                Change::Snapshot(all) => {
                    let all = all.into_values();
                    let all = all.filter(|one| one.state == ContainerState::Running);
                    running = all.map(|one| one.name).collect();
                }
                Change::Upsert(name, one) if one.state == ContainerState::Running => {
                    running.insert(name);
                }
                Change::Upsert(name, _) | Change::Removed(name) => {
                    running.remove(&name);
                }
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_come_and_go_by_the_dozen_leave_the_watch_as_the_list_is() {
    let Some(scene) = scene().await else { return };
    let mut watch = scene.runtime.watch().await.unwrap();
    let script = "for i in $(seq 1 20); do docker run -d --name a$i --label arpanet.net=10.1.0.0/16 IMAGE true; done; \
                  for i in $(seq 1 2 20); do docker rm -f a$i; done; docker run -d --name last --label arpanet.net=10.1.0.0/16 IMAGE sleep 600";
    let script = script
        .replace("docker", "/usr/bin/docker")
        .replace("IMAGE", IMAGE);
    let done = scene.engine.command("sh").args(["-c", &script]).output();
    assert!(done.unwrap().status.success());
    let mut set = std::collections::BTreeMap::new();
    let listed = scene.runtime.list().await.unwrap();
    assert_eq!(listed.len(), 11);
    let follow = async {
        while set.values().cloned().collect::<Vec<Container>>() != listed {
            match watch.next().await.unwrap() {
                Change::Snapshot(all) => set = all,
                Change::Upsert(name, container) => drop(set.insert(name, container)),
                Change::Removed(name) => drop(set.remove(&name)),
                _ => {}
            }
        }
    };
    let followed = timeout(BOUND, follow).await;
    assert!(
        followed.is_ok(),
        "the watch does not come to what is listed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_whole_over_a_restart_of_the_container() {
    let Some(scene) = scene().await else { return };
    let runtime = &scene.runtime;
    let name = scene
        .run(
            "w1",
            "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo line $i; done",
        )
        .await;
    let mut following = runtime
        .logs(&name, LogOptions::all().follow())
        .await
        .unwrap();
    let wanted: String = (1..=1000).map(|line| format!("line {line}\n")).collect();
    let mut read = String::new();
    timeout(BOUND, async {
        while read.len() < wanted.len() {
            read.push_str(&String::from_utf8_lossy(
                &following.recv().await.unwrap().bytes,
            ));
        }
    })
    .await
    .unwrap();
    assert_eq!(read, wanted);
    assert_eq!(
        all(runtime.logs(&name, LogOptions::all()).await.unwrap()).await,
        wanted
    );
    let tail = runtime
        .logs(&name, LogOptions::all().tail(2))
        .await
        .unwrap();
    assert_eq!(all(tail).await, "line 999\nline 1000\n");

    runtime.stop(&name).await.unwrap();
    runtime.start(&name).await.unwrap();
    read.clear();
    timeout(BOUND, async {
        while read.len() < wanted.len() {
            read.push_str(&String::from_utf8_lossy(
                &following.recv().await.unwrap().bytes,
            ));
        }
    })
    .await
    .unwrap();
    assert_eq!(
        read, wanted,
        "the second run, and nothing of the first again"
    );
    runtime.remove(&name).await.unwrap();
    assert_eq!(all(following).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_carries_megabytes_both_ways() {
    let Some(scene) = scene().await else { return };
    let name = scene.run("w1", "exec sleep 600").await;
    let exec = scene
        .runtime
        .exec(&name, &ExecSpec::new(["cat"]))
        .await
        .unwrap();
    let (input, mut output) = (exec.input, exec.output);
    let sent: Vec<u8> = (0..10_000_000_u32).map(|at| (at % 251) as u8).collect();
    let data = Bytes::from(sent.clone());
    let sending = tokio::spawn(async move {
        for piece in data.chunks(100_000) {
            let piece = Bytes::copy_from_slice(piece);
            input.send(ExecInput::Data(piece)).await.unwrap();
        }
    });
    let mut received = Vec::new();
    let code = timeout(3 * BOUND, async {
        loop {
            match output.recv().await.unwrap() {
                ExecOutput::Output(piece) => received.extend_from_slice(&piece.bytes),
                ExecOutput::Exited(code) => return code,
                _ => {}
            }
        }
    })
    .await
    .unwrap();
    sending.await.unwrap();
    assert_eq!(code, 0);
    assert!(
        received == sent,
        "{} of {} bytes",
        received.len(),
        sent.len()
    );

    // A terminal has the size that it was given.
    let mut spec = ExecSpec::new(["sh", "-c", "sleep 0.2; stty size"]);
    spec.terminal = Some((97, 31));
    let mut exec = scene.runtime.exec(&name, &spec).await.unwrap();
    let mut seen = String::new();
    timeout(BOUND, async {
        while let Some(ExecOutput::Output(piece)) = exec.output.recv().await {
            seen.push_str(&String::from_utf8_lossy(&piece.bytes));
        }
    })
    .await
    .unwrap();
    assert_eq!(seen.trim(), "31 97");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_own_check_is_told() {
    let Some(scene) = scene().await else { return };
    let mut watch = scene.runtime.watch().await.unwrap();
    let check = [
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
    ];
    let options = [&check[..], &["--label", "arpanet.net=10.1.0.0/16"]].concat();
    scene.sleeping("w1", &options);
    let health = |change: &Change<ContainerName, Container>| match change {
        Change::Upsert(_, container) => container.health,
        _ => None,
    };
    told(&mut watch, |change| {
        health(change) == Some(EngineHealth::Unhealthy)
    })
    .await;
    scene.docker(&["exec", "w1", "touch", "/tmp/well"]);
    told(&mut watch, |change| {
        health(change) == Some(EngineHealth::Healthy)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_nowhere_is_an_honest_refusal() {
    let Some(scene) = scene().await else { return };
    let spec = ContainerSpec::image("nowhere.invalid/web:1").named("w1".parse().unwrap());
    let error = scene.runtime.create(&spec).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotFound),
        "{error}"
    );
    assert!(error.to_string().contains("nowhere.invalid/web:1") && error.hint().is_some());
    assert!(scene.runtime.list().await.unwrap().is_empty());
}
