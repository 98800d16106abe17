//! An agent in a process of its own, to be killed.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arpanet_core::runtime::Runtime;
use arpanet_process::ProcessRuntime;

use crate::scene;

/// The argument that makes this binary an agent.
pub(crate) const AGENT: &str = "agent-of-the-live-tests";

/// What it does until it is killed.
pub(crate) const RUNS_TWO: &str = "runs-two";
pub(crate) const MAKES_AND_REMOVES: &str = "makes-and-removes";

/// Opens a runtime on the folder, does its part, and waits to be killed.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let folder = PathBuf::from(&arguments[0]);
    let part = arguments[1].to_str().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = ProcessRuntime::open(scene::config(&folder)).await.unwrap();
        match part {
            RUNS_TWO => run_two(&engine, &folder).await,
            _ => make_and_remove(&engine).await,
        }
    });
    ExitCode::SUCCESS
}

fn say_running() {
    println!("running");
    std::io::stdout().flush().unwrap();
}

async fn run_two(engine: &ProcessRuntime, folder: &Path) {
    scene::run(engine, &scene::shell("lasting", "sleep 1000")).await;
    let brief = format!(
        "until test -e {}/go; do sleep 0.01; done; exit 7",
        folder.parent().unwrap().display()
    );
    scene::run(engine, &scene::shell("brief", &brief)).await;
    say_running();
    std::future::pending::<()>().await;
}

/// Several containers at once, each in another part of its life.
async fn make_and_remove(engine: &ProcessRuntime) {
    let [first, ..] = [0, 1, 2, 3].map(|number| {
        let (engine, spec) = (
            engine.clone(),
            scene::shell(&format!("w{number}"), "exec sleep 1000"),
        );
        tokio::spawn(async move {
            loop {
                let made = scene::run(&engine, &spec).await;
                if number % 2 == 0 {
                    engine.stop(&made.name).await.unwrap();
                }
                engine.remove(&made.name).await.unwrap();
            }
        })
    });
    say_running();
    // Ends by a panic only.
    first.await.unwrap()
}
