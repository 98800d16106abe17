//! An agent in a process of its own, to be killed.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::scene;

/// The argument that makes this binary an agent.
pub(crate) const AGENT: &str = "agent-of-the-live-tests";

/// Runs two containers in the folder, says so, and waits to be killed.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let folder = PathBuf::from(&arguments[0]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = arpanet_process::ProcessRuntime::open(scene::config(&folder))
            .await
            .unwrap();
        scene::run(&engine, &scene::shell("lasting", "sleep 1000")).await;
        let brief = format!(
            "until test -e {}/go; do sleep 0.01; done; exit 7",
            folder.parent().unwrap().display()
        );
        scene::run(&engine, &scene::shell("brief", &brief)).await;
        println!("running");
        std::io::stdout().flush().unwrap();
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}
