//! The process runtime on this machine's kernel. Needs root: skips without, and fails without where `ARPANET_LIVE`
//! contains `root`.
//!
//! The binary is the tests, and the shim of their containers, and an agent to be killed, and what runs in some containers.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod agent;
mod scene;

mod basics;
mod contract;
mod execs;
mod files;
mod network;
mod output;
mod survival;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use arpanet_core::conformance::live;

/// How many run at a time.
const SIDE_BY_SIDE: usize = 4;

type Test = (&'static str, fn());

fn tests() -> Vec<Test> {
    [
        basics::TESTS,
        contract::TESTS,
        files::TESTS,
        network::TESTS,
        output::TESTS,
        execs::TESTS,
        survival::TESTS,
    ]
    .concat()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(part) if part == scene::SHIM => arpanet_process::shim::main(arguments.collect()),
        Some(part) if part == agent::AGENT => agent::main(arguments.collect()),
        Some(part) if part == network::TALK => network::main(&arguments.collect::<Vec<OsString>>()),
        first => run(first.into_iter().chain(arguments).collect()),
    }
}

/// The part of the usual test program's command line that people use: names to filter by, `--exact`, `--list`.
fn run(arguments: Vec<OsString>) -> ExitCode {
    let words: Vec<String> = arguments
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let has = |flag: &str| words.iter().any(|word| word == flag);
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| {
                if has("--exact") {
                    name == filter.as_str()
                } else {
                    name.contains(filter.as_str())
                }
            })
    };
    let chosen: VecDeque<Test> = tests()
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .collect();
    if has("--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !live::have(
        "root",
        nix::unistd::geteuid().is_root(),
        "root, to make namespaces",
    ) {
        return ExitCode::SUCCESS;
    }
    let all = chosen.len();
    let (queue, failed) = (Mutex::new(chosen), Mutex::new(0));
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some((name, test)) = next else {
                        return;
                    };
                    let begun = Instant::now();
                    let outcome = thread::Builder::new()
                        .name(name.to_owned())
                        .spawn(test)
                        .unwrap()
                        .join();
                    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
                    println!("test {name} ... {word} ({:.2?})", begun.elapsed());
                    *failed.lock().unwrap() += usize::from(outcome.is_err());
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("{} passed, {failed} failed", all - failed);
    ExitCode::from(u8::from(failed > 0))
}
