//! What an operator waits for: boot, join, a container, a host that is cut off and back; and what the agent takes.
//!
//! `cargo bench -p arpanet-cli --bench cluster [ROUNDS]`, as root. It makes labs on this machine. Times include starting
//! the command.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/lab/site.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod site;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use site::{BINARY, SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(20);

fn main() {
    let rounds: usize = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(5);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut all: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        let Some(figures) = runtime.block_on(round()) else {
            return;
        };
        for (what, figure) in figures {
            all.entry(what).or_default().push(figure);
        }
    }
    println!(
        "{:<44} {:>9} {:>9}",
        format!("of {rounds} rounds"),
        "median",
        "worst"
    );
    for (what, mut figures) in all {
        figures.sort_by(f64::total_cmp);
        let (median, worst) = (figures[figures.len() / 2], figures[figures.len() - 1]);
        println!("{what:<44} {median:>9.1} {worst:>9.1}");
    }
}

async fn round() -> Option<Vec<(&'static str, f64)>> {
    let site = Site::up(3).await?;
    let mut figures = Vec::new();
    let mut timed = |what, work: &dyn Fn()| {
        let began = Instant::now();
        work();
        figures.push((what, began.elapsed().as_secs_f64() * 1000.0));
    };
    timed("1 boot, ms", &|| drop(site.ok("node1", "boot 0.1 Apples")));
    timed("2 server joins, ms", &|| {
        drop(site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}")));
    });
    timed("3 client joins, ms", &|| {
        drop(site.ok("node3", &format!("client 0.14 Apples 0.1 {SEED}")));
    });
    let run = format!("run --net 10.1.0.0/16 --service web --name w1 -- {BINARY} hello --port 80");
    timed("4 run a container, ms", &|| drop(site.ok("node3", &run)));
    let resolved = || site.arpanet2("node2", "resolve web").out;
    until("the name is there", LIMIT, resolved, |ip| !ip.is_empty());
    site.lab.cut("node3", None).await.unwrap();
    timed("5 cut off, until DNS elsewhere lets go, ms", &|| {
        until("the name is gone", LIMIT, resolved, String::is_empty);
    });
    site.lab.heal(Some("node3")).await.unwrap();
    timed("6 healed, until DNS has it back, ms", &|| {
        until("the name is back", LIMIT, resolved, |ip| !ip.is_empty());
    });
    timed("7 reset, ms", &|| drop(site.ok("node3", "reset")));
    figures.push(("8 agent resident, KiB", resident(&site)));
    Some(figures)
}

/// Resident memory of the agent on node1.
fn resident(site: &Site) -> f64 {
    let pid = site.run("node1", "cat /run/arpanet2/agent.lock").out;
    let status = site.run("node1", &format!("cat /proc/{pid}/status")).out;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
