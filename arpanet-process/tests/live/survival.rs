//! Agents and shims that are killed, damaged files, a full disk, restarts.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use arpanet_core::ErrorKind;
use arpanet_core::runtime::{
    ContainerState, ExecOutput, ExecSpec, LogOptions, RestartPolicy, Runtime,
};
use arpanet_core::watch::Change;
use arpanet_process::ProcessRuntime;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::timeout;

use crate::agent::{AGENT, MAKES_AND_REMOVES, RUNS_TWO};
use crate::scene::{
    BOUND, Scene, exit_code, first_process, inspect, name, on_this_thread, own_mounts, path_of,
    processes_with, run, scene, shell, shims, until,
};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "containers_outlive_a_killed_agent",
        containers_outlive_a_killed_agent,
    ),
    (
        "an_agent_killed_at_any_moment",
        an_agent_killed_at_any_moment,
    ),
    (
        "a_killed_shim_takes_its_container_along",
        a_killed_shim_takes_its_container_along,
    ),
    (
        "a_stopped_shim_does_not_stop_a_removal",
        a_stopped_shim_does_not_stop_a_removal,
    ),
    (
        "reopening_finds_all_as_it_was",
        reopening_finds_all_as_it_was,
    ),
    (
        "what_is_to_run_always_runs_after_the_machine_was_off",
        what_is_to_run_always_runs_after_the_machine_was_off,
    ),
    (
        "a_start_right_after_a_killed_shim",
        a_start_right_after_a_killed_shim,
    ),
    ("a_reused_number_is_not_ours", a_reused_number_is_not_ours),
    (
        "a_damaged_file_is_refused_by_path",
        a_damaged_file_is_refused_by_path,
    ),
    ("a_full_disk", a_full_disk),
    ("a_folder_removed_by_hand", a_folder_removed_by_hand),
    ("restarts_keep_the_namespace", restarts_keep_the_namespace),
    ("a_watch_tells_each_change", a_watch_tells_each_change),
    (
        "a_dropped_call_leaves_a_whole",
        a_dropped_call_leaves_a_whole,
    ),
];

struct Agent(Child);

impl Agent {
    /// Starts an agent, and waits until it says that it runs.
    fn start(scene: &Scene, part: &str) -> Self {
        let mut agent = Self(
            // With a descriptor that it passes on without knowing, and a signal that it ignores.
            Command::new("sh")
                .args(["-c", "trap '' USR1; exec \"$@\" 9</dev/null", "agent"])
                .arg(std::env::current_exe().unwrap())
                .arg(AGENT)
                .arg(scene.folder())
                .arg(part)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut line = String::new();
        let stdout = agent.0.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "running\n");
        agent
    }
}

impl Drop for Agent {
    /// SIGKILL, and reaped.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn containers_outlive_a_killed_agent() {
    scene(async |scene| {
        drop(Agent::start(&scene, RUNS_TWO));
        // Ends while there is no agent.
        fs::write(scene.file("go"), "").unwrap();
        until("one has ended", async || {
            fs::read_to_string(scene.folder().join("brief/status.json"))
                .unwrap()
                .contains("exited")
        })
        .await;
        let runtime = scene.open().await;
        let brief = inspect(&runtime, "brief").await;
        assert_eq!(brief.state, ContainerState::Exited { code: 7 });
        let lasting = inspect(&runtime, "lasting").await;
        assert_eq!(lasting.state, ContainerState::Running);
        assert!(path_of(&lasting).exists());
        let shim = shims(&scene.folder()).into_iter().find(|shim| {
            let file = format!("/proc/{shim}/fd");
            fs::exists(&file).unwrap()
        });
        for process in [first_process(&lasting), shim.unwrap()] {
            let passed_on = fs::read_link(format!("/proc/{process}/fd/9")).ok();
            assert_ne!(passed_on, Some("/dev/null".into()));
        }
        // And its command does not ignore what the agent ignores.
        let exec = runtime
            .exec(
                &name("lasting"),
                &ExecSpec::new(["grep", "SigIgn", "/proc/self/status"]),
            )
            .await
            .unwrap();
        let mut output = exec.output;
        let Some(ExecOutput::Output(line)) = timeout(BOUND, output.recv()).await.unwrap() else {
            panic!("no output");
        };
        let line = std::str::from_utf8(&line.bytes).unwrap();
        let ignored = u64::from_str_radix(line.trim_start_matches("SigIgn:").trim(), 16).unwrap();
        assert_eq!(ignored & (1 << (Signal::SIGUSR1 as u64 - 1)), 0, "{line}");
        drop(exec.input);
        // And is looked after as before.
        assert_eq!(runtime.stop(&name("lasting")).await.unwrap(), 143);
        assert_eq!(runtime.list().await.unwrap().len(), 2);
    });
}

fn an_agent_killed_at_any_moment() {
    scene(async |scene| {
        for moment in [0, 3, 7, 13, 19, 26, 34, 43, 55, 70, 90, 120] {
            let agent = Agent::start(&scene, MAKES_AND_REMOVES);
            tokio::time::sleep(std::time::Duration::from_millis(moment)).await;
            drop(agent);
            let runtime = scene.open().await;
            for container in runtime.list().await.unwrap() {
                // Whatever it was doing, it can be started, or is running, and can be removed.
                runtime.start(&container.name).await.unwrap();
                let running = runtime.inspect(&container.name).await.unwrap();
                assert_eq!(running.state, ContainerState::Running, "after {moment} ms");
                runtime.remove(&container.name).await.unwrap();
            }
            drop(runtime);
            until("no shim is left", async || {
                processes_with(scene.folder().to_str().unwrap()).is_empty()
            })
            .await;
            let left: Vec<_> = fs::read_dir(scene.folder())
                .unwrap()
                .map(|file| file.unwrap().file_name())
                .collect();
            assert_eq!(left, [".lock"], "after {moment} ms");
        }
    });
}

fn a_killed_shim_takes_its_container_along() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let made = run(&runtime, &shell("w1", "sleep 1000")).await;
        let mut always = shell("always", "sleep 1000");
        let init = first_process(&made);
        let shim = shims(&scene.folder())[0];
        kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
        assert_eq!(exit_code(&runtime, "w1").await, 137);
        // Dead at once; who reaps it is the machine's own first process.
        until("its first process is gone", async || {
            !fs::exists(format!("/proc/{init}")).unwrap()
        })
        .await;
        assert_eq!(inspect(&runtime, "w1").await.namespace, None);
        runtime.start(&name("w1")).await.unwrap();
        assert_eq!(inspect(&runtime, "w1").await.state, ContainerState::Running);
        runtime.remove(&name("w1")).await.unwrap();

        always.restart = RestartPolicy::Always;
        let made = run(&runtime, &always).await;
        let shim = shims(&scene.folder())[0];
        kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
        until("it runs again", async || {
            let again = inspect(&runtime, "always").await;
            again.state == ContainerState::Running && again.namespace != made.namespace
        })
        .await;
    });
}

fn a_stopped_shim_does_not_stop_a_removal() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let made = run(&runtime, &shell("w1", "sleep 1000")).await;
        let shim = shims(&scene.folder())[0];
        kill(Pid::from_raw(shim), Signal::SIGSTOP).unwrap();
        runtime.remove(&name("w1")).await.unwrap();
        assert!(!path_of(&made).exists());
        assert_eq!(runtime.list().await.unwrap(), []);
    });
}

fn reopening_finds_all_as_it_was() {
    scene(async |scene| {
        let runtime = scene.open().await;
        runtime.create(&shell("idle", "exit 4")).await.unwrap();
        run(&runtime, &shell("busy", "sleep 1000")).await;
        run(&runtime, &shell("done", "exit 3")).await;
        assert_eq!(exit_code(&runtime, "done").await, 3);
        let before = runtime.list().await.unwrap();
        drop(runtime);
        let runtime = scene.open().await;
        assert_eq!(runtime.list().await.unwrap(), before);
        runtime.start(&name("idle")).await.unwrap();
        assert_eq!(exit_code(&runtime, "idle").await, 4);
        kill(
            Pid::from_raw(first_process(&inspect(&runtime, "busy").await)),
            Signal::SIGKILL,
        )
        .unwrap();
        assert_eq!(exit_code(&runtime, "busy").await, 137);
    });
}

fn what_is_to_run_always_runs_after_the_machine_was_off() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let mut always = shell("always", "sleep 1000");
        always.restart = RestartPolicy::Always;
        run(&runtime, &always).await;
        run(&runtime, &shell("once", "sleep 1000")).await;
        let idle = runtime.create(&shell("idle", "sleep 1000")).await.unwrap();
        let mut stopped = always.clone();
        stopped.name = Some(name("stopped"));
        run(&runtime, &stopped).await;
        assert_eq!(runtime.stop(&name("stopped")).await.unwrap(), 143);
        drop(runtime);
        for shim in shims(&scene.folder()) {
            // The one of the stopped container is gone already.
            let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
        }
        let runtime = scene.open().await;
        until("it runs again", async || {
            inspect(&runtime, "always").await.state == ContainerState::Running
        })
        .await;
        let state = async |container| inspect(&runtime, container).await.state;
        assert_eq!(state("once").await, ContainerState::Exited { code: 137 });
        assert_eq!(state("stopped").await, ContainerState::Exited { code: 143 });
        assert_eq!(state("idle").await, ContainerState::Created);
        // Its namespaces are made again by the call that made them first.
        let again = runtime.create(&idle.spec).await.unwrap();
        assert_eq!(again.id, idle.id);
        assert!(path_of(&again).exists());
    });
}

fn a_start_right_after_a_killed_shim() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let mut before = run(&runtime, &shell("w1", "sleep 1000")).await;
        for _ in 0..5 {
            kill(Pid::from_raw(shims(&scene.folder())[0]), Signal::SIGKILL).unwrap();
            // Sees it running still, or ended.
            runtime.start(&name("w1")).await.unwrap();
            until("another runs", async || {
                let now = inspect(&runtime, "w1").await;
                if now.state != ContainerState::Running {
                    runtime.start(&name("w1")).await.unwrap();
                }
                now.state == ContainerState::Running && now.namespace != before.namespace
            })
            .await;
            before = inspect(&runtime, "w1").await;
            assert!(path_of(&before).exists());
        }
        assert_eq!(runtime.stop(&name("w1")).await.unwrap(), 143);
    });
}

fn a_reused_number_is_not_ours() {
    scene(async |scene| {
        let runtime = scene.open().await;
        run(&runtime, &shell("w1", "sleep 1000")).await;
        let shim = shims(&scene.folder())[0];
        drop(runtime);
        kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
        until("the shim is gone", async || {
            !fs::exists(format!("/proc/{shim}")).unwrap()
        })
        .await;
        // As if its number, and its first process's, were those of somebody else by now.
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        for file in ["status.json", "shim.lock"] {
            let path = scene.folder().join("w1").join(file);
            let mut json: serde_json::Value =
                serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let identity = if file == "shim.lock" {
                &mut json
            } else {
                &mut json["init"]
            };
            identity["pid"] = other.id().into();
            fs::write(&path, json.to_string()).unwrap();
        }
        let runtime = scene.open().await;
        let state = inspect(&runtime, "w1").await.state;
        assert_eq!(state, ContainerState::Exited { code: 137 });
        runtime.remove(&name("w1")).await.unwrap();
        let untouched = other.try_wait().unwrap().is_none();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(untouched);
    });
}

fn a_damaged_file_is_refused_by_path() {
    scene(async |scene| {
        let runtime = scene.open().await;
        runtime.create(&shell("w1", "sleep 1000")).await.unwrap();
        drop(runtime);
        let path = scene.folder().join("w1/spec.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        let error = ProcessRuntime::open(scene.config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("w1/spec.json"), "{error}");
        // Nothing was taken away, and the way out is to mend it.
        fs::write(&path, text).unwrap();
        let runtime = scene.open().await;
        assert_eq!(runtime.list().await.unwrap().len(), 1);
    });
}

/// A disk of one megabyte, seen by this thread and what it starts only.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        own_mounts();
        let place = tempfile::tempdir().unwrap();
        let size = Some("size=1m,mode=700");
        mount(
            Some("tmpfs"),
            place.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            size,
        )
        .unwrap();
        Self(place)
    }
}

impl Drop for SmallDisk {
    /// Before the folder that it is mounted on is removed.
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn a_full_disk() {
    let disk = SmallDisk::new();
    on_this_thread(3 * BOUND, full_disk(disk.0.path()));
}

async fn full_disk(disk: &Path) {
    let folder = disk.join("containers");
    let config = crate::scene::config(&folder);
    let runtime = ProcessRuntime::open(config).await.unwrap();
    let run_on = "trap 'echo finally; exit 9' TERM; while :; do echo line; sleep 0.01; done";
    run(&runtime, &shell("w1", run_on)).await;
    let idle = shell("idle", "sleep 1000");
    runtime.create(&idle).await.unwrap();
    let state = async |container| inspect(&runtime, container).await.state;
    let ballast = disk.join("ballast");
    let fill = || {
        let mut options = fs::File::options();
        let mut file = options.create(true).append(true).open(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    };

    fill();
    let error = runtime.create(&shell("w2", "true")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    let error = runtime.start(&name("idle")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert_eq!(state("idle").await, ContainerState::Created);
    assert_eq!(runtime.list().await.unwrap().len(), 2);
    // The one that runs fills what is left of its log's last page, goes on, and tells the gap when there is room.
    until("output was lost", async || {
        let log = folder.join("w1/log");
        let before = fs::metadata(&log).unwrap().len();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        fs::metadata(&log).unwrap().len() == before
    })
    .await;
    assert_eq!(state("w1").await, ContainerState::Running);
    fs::remove_file(&ballast).unwrap();
    let follow = LogOptions::all().follow();
    let mut log = runtime.logs(&name("w1"), follow).await.unwrap();
    let mut text = String::new();
    while !text.contains("bytes of output were lost here") {
        let output = timeout(BOUND, log.recv()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&output.bytes).unwrap());
    }
    runtime.start(&name("idle")).await.unwrap();

    // An end is known although it can't be written down, and is written when there is room.
    fill();
    assert_eq!(runtime.stop(&name("w1")).await.unwrap(), 9);
    assert_eq!(state("w1").await, ContainerState::Exited { code: 9 });
    fs::remove_file(&ballast).unwrap();
    until("its end is written", async || {
        let status = fs::read_to_string(folder.join("w1/status.json"));
        status.unwrap().contains("exited")
    })
    .await;

    // And a full disk is no hindrance to making room.
    fill();
    for container in ["w1", "idle"] {
        runtime.remove(&name(container)).await.unwrap();
    }
    fs::remove_file(&ballast).unwrap();
    let made = runtime.create(&shell("w2", "true")).await.unwrap();
    runtime.remove(&made.name).await.unwrap();
}

fn a_folder_removed_by_hand() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let mut spec = shell("w1", "sleep 1000");
        spec.stop_grace = Some(std::time::Duration::MAX);
        let made = run(&runtime, &spec).await;
        let shim = shims(&scene.folder())[0];
        fs::remove_dir_all(scene.folder().join("w1")).unwrap();
        runtime.remove(&name("w1")).await.unwrap();
        until("its processes are gone", async || {
            !path_of(&made).exists() && !fs::exists(format!("/proc/{shim}")).unwrap()
        })
        .await;
        // And the name is free.
        run(&runtime, &spec).await;
        assert_eq!(runtime.stop(&name("w1")).await.unwrap(), 143);
    });
}

fn restarts_keep_the_namespace() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let count = scene.file("count");
        let mut spec = shell("w1", &format!("echo x >> {}; exit 1", count.display()));
        spec.restart = RestartPolicy::OnFailure;
        let first = run(&runtime, &spec).await;
        until("it was started three times", async || {
            fs::read_to_string(&count).is_ok_and(|text| text.lines().count() >= 3)
        })
        .await;
        assert_eq!(inspect(&runtime, "w1").await, first);
        assert_eq!(runtime.stop(&name("w1")).await.unwrap(), 1);
        let lines = fs::read_to_string(&count).unwrap();
        assert_eq!(
            inspect(&runtime, "w1").await.state,
            ContainerState::Exited { code: 1 }
        );
        assert_eq!(fs::read_to_string(&count).unwrap(), lines);

        let mut spec = shell("w2", "exit 0");
        spec.restart = RestartPolicy::OnFailure;
        run(&runtime, &spec).await;
        assert_eq!(exit_code(&runtime, "w2").await, 0);
    });
}

fn a_watch_tells_each_change() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let mut watch = runtime.watch().await.unwrap();
        let mut next = async || timeout(BOUND, watch.next()).await.unwrap().unwrap();
        assert_eq!(next().await, Change::Snapshot(Default::default()));
        let made = runtime.create(&shell("w1", "sleep 1000")).await.unwrap();
        assert_eq!(next().await, Change::Upsert(name("w1"), made));
        runtime.start(&name("w1")).await.unwrap();
        let Change::Upsert(_, running) = next().await else {
            panic!("no change");
        };
        assert_eq!(running.state, ContainerState::Running);
        // By itself, as far as this runtime knows.
        kill(Pid::from_raw(first_process(&running)), Signal::SIGKILL).unwrap();
        let Change::Upsert(_, ended) = next().await else {
            panic!("no change");
        };
        assert_eq!(ended.state, ContainerState::Exited { code: 137 });
        runtime.remove(&name("w1")).await.unwrap();
        assert_eq!(next().await, Change::Removed(name("w1")));
        drop(runtime);
        assert_eq!(timeout(BOUND, watch.next()).await.unwrap(), None);
    });
}

fn a_dropped_call_leaves_a_whole() {
    scene(async |scene| {
        let runtime = scene.open().await;
        for delay in [0, 1, 5, 10, 20] {
            let spec = shell("w1", "sleep 1000");
            let delay = std::time::Duration::from_millis(delay);
            // Dropped wherever it is by then.
            let _ = timeout(delay, runtime.create(&spec)).await;
            let made = runtime.create(&spec).await.unwrap();
            assert!(path_of(&made).exists());
            let _ = timeout(delay, runtime.start(&made.name)).await;
            runtime.start(&made.name).await.unwrap();
            let logs = runtime
                .logs(&made.name, LogOptions::all().follow())
                .await
                .unwrap();
            let _ = timeout(delay, runtime.remove(&made.name)).await;
            runtime.remove(&made.name).await.unwrap();
            drop(logs);
            assert_eq!(runtime.list().await.unwrap(), []);
        }
        assert_eq!(shims(&scene.folder()), [0; 0]);
    });
}
