//! A runtime on a folder of its own, and what the tests look at.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arpanet_core::overlay::NetNamespace;
use arpanet_core::runtime::{Container, ContainerSpec, ContainerState, Runtime};
use arpanet_core::{ContainerName, ErrorKind};
use arpanet_process::{ProcessConfig, ProcessRuntime, ShimCommand};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep, timeout};

/// The argument that makes this binary a shim.
pub(crate) const SHIM: &str = "shim-of-the-live-tests";

/// No step takes longer, on a machine that does other things too.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Runs a test on a runtime of its own, within a bound.
pub(crate) fn scene<F: Future<Output = ()>>(test: impl FnOnce(Scene) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let test = test(Scene::new());
        timeout(3 * BOUND, test).await.expect("the test hangs");
    });
}

/// A folder for containers. Dropping it ends all in it.
pub(crate) struct Scene {
    place: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        // Containers of other users write their results here.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self { place }
    }

    /// Beside the containers.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.place.path().join("containers")
    }

    pub(crate) fn config(&self) -> ProcessConfig {
        config(&self.folder())
    }

    pub(crate) async fn open(&self) -> ProcessRuntime {
        ProcessRuntime::open(self.config()).await.unwrap()
    }
}

/// A mount namespace for this thread and all that it starts: what is mounted here is seen nowhere else.
pub(crate) fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    bind_flags("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
}

fn bind_flags(place: &str, flags: MsFlags) {
    let nothing = None::<&str>;
    mount(nothing, place, nothing, flags, nothing).unwrap();
}

/// Runs a test on this thread alone, within a bound.
pub(crate) fn on_this_thread(bound: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { timeout(bound, test).await.expect("the test hangs") });
}

pub(crate) fn config(folder: &Path) -> ProcessConfig {
    let own = std::env::current_exe().unwrap();
    ProcessConfig::new(folder, ShimCommand::new(own).arg(SHIM))
}

impl Drop for Scene {
    fn drop(&mut self) {
        for shim in shims(&self.folder()) {
            // Only those that still are what they were, so nobody else's process.
            if is_shim(shim) {
                let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
            }
        }
    }
}

/// The shims of a folder's containers.
pub(crate) fn shims(folder: &Path) -> Vec<i32> {
    let containers = fs::read_dir(folder).into_iter().flatten().flatten();
    containers
        .filter_map(|container| {
            let text = fs::read_to_string(container.path().join("shim.lock")).ok()?;
            let identity: serde_json::Value = serde_json::from_str(&text).ok()?;
            i32::try_from(identity["pid"].as_i64()?).ok()
        })
        .collect()
}

fn is_shim(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        String::from_utf8_lossy(&line)
            .split('\0')
            .any(|word| word == SHIM)
    })
}

/// All processes whose command line has this word.
pub(crate) fn processes_with(word: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let line = String::from_utf8_lossy(&line).into_owned();
                line.split('\0').any(|part| part.contains(word))
            })
        })
        .collect()
}

pub(crate) fn name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

/// A shell script as a container.
pub(crate) fn shell(container: &str, script: &str) -> ContainerSpec {
    ContainerSpec::command(["sh", "-c", script]).named(name(container))
}

/// Looks until it is so, within the bound.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let due = Instant::now() + BOUND;
    while !so().await {
        assert!(Instant::now() < due, "it never came that {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a container's end.
pub(crate) async fn exit_code(runtime: &ProcessRuntime, container: &str) -> i32 {
    let mut code = None;
    until(&format!("{container} ended"), async || {
        if let ContainerState::Exited { code: ended } = inspect(runtime, container).await.state {
            code = Some(ended);
        }
        code.is_some()
    })
    .await;
    code.unwrap()
}

pub(crate) async fn inspect(runtime: &ProcessRuntime, container: &str) -> Container {
    runtime.inspect(&name(container)).await.unwrap()
}

pub(crate) async fn is_gone(runtime: &ProcessRuntime, container: &str) -> bool {
    let missing = runtime.inspect(&name(container)).await;
    missing.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Creates and starts.
pub(crate) async fn run(runtime: &ProcessRuntime, spec: &ContainerSpec) -> Container {
    let made = runtime.create(spec).await.unwrap();
    runtime.start(&made.name).await.unwrap();
    runtime.inspect(&made.name).await.unwrap()
}

pub(crate) fn path_of(container: &Container) -> PathBuf {
    match &container.namespace {
        Some(NetNamespace::Path(path)) => path.clone(),
        other => panic!("no namespace but {other:?}"),
    }
}

/// The number of the container's first process.
pub(crate) fn first_process(container: &Container) -> i32 {
    let path = path_of(container);
    path.iter()
        .nth(2)
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// What a container wrote to a file, once it is there.
pub(crate) async fn written(path: &Path) -> String {
    until(&format!("{} is written", path.display()), async || {
        fs::read_to_string(path).is_ok_and(|text| text.ends_with("end\n"))
    })
    .await;
    let text = fs::read_to_string(path).unwrap();
    text.trim_end_matches("end\n").to_owned()
}
