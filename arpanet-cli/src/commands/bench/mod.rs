//! `arpanet2 bench`: this program and its peers side by side, on the same hosts of a lab, in one run.

mod arpanet;
mod consul;
mod hosts;
mod load;
mod machine;
mod names;
mod only;
mod peer;
mod report;
mod rounds;
mod row;
mod sections;
mod show;
mod site;
mod statistics;
mod swarm;
mod traffic;
mod tunnel;
mod usage;
mod wire;
mod wireguard_go;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use arpanet_core::{Error, ErrorKind, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::machine::Machine;
use self::only::Only;
use self::peer::PeerKind;
use self::report::{PeerTold, Report, Table};
use self::rounds::{Extent, Findings, Rounds};
use self::row::Row;
use self::site::Sites;
use super::Context;
use crate::output::{Progress, say_result};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Measure less, within three minutes
    #[arg(long)]
    quick: bool,
    /// How many hosts, several with commas: with more than the first, only rows that depend on it
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "3", value_parser = clap::value_parser!(u8).range(3..=100))]
    nodes: Vec<u8>,
    /// How often everything is measured [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Only this row, this peer, or this row of this peer; several with commas
    #[arg(long, value_name = "ROW[/PEER]", value_delimiter = ',')]
    only: Vec<Only>,
    /// Print a page in Markdown
    #[arg(long)]
    markdown: bool,
    /// Write the parts of this file anew that are marked <!-- bench:table --> or <!-- bench:chart -->; may be given again
    #[arg(long, value_name = "FILE")]
    into: Vec<PathBuf>,
    #[command(flatten)]
    programs: Programs,
}

/// Peers that are programs: the one in PATH unless named.
#[derive(Debug, Clone, Args)]
pub(crate) struct Programs {
    /// The program consul [default: the one in PATH]
    #[arg(long, value_name = "FILE", env = "ARPANET_CONSUL")]
    consul: Option<PathBuf>,
    /// The program wireguard-go [default: the one in PATH]
    #[arg(long, value_name = "FILE", env = "ARPANET_WIREGUARD_GO")]
    wireguard_go: Option<PathBuf>,
    /// The program weaver; weave is not measured without
    #[arg(long, value_name = "FILE", env = "ARPANET_WEAVER")]
    weaver: Option<PathBuf>,
}

impl BenchArgs {
    fn extent(&self) -> Extent {
        let rounds = self.rounds.map(usize::from);
        if self.quick {
            return Extent {
                rounds: rounds.unwrap_or(3),
                cuts: 1,
                length: Duration::from_secs(1),
                round_trips: 500,
                change: Duration::from_secs(30),
                enough: Duration::from_secs(130),
            };
        }
        let rounds = rounds.unwrap_or(5);
        Extent {
            rounds,
            cuts: rounds.min(3),
            length: Duration::from_secs(3),
            round_trips: 2_000,
            change: Duration::from_secs(90),
            enough: Duration::MAX,
        }
    }
}

pub(crate) async fn run(context: &Context, args: BenchArgs) -> Result<()> {
    if args.markdown && context.printer.is_json() {
        return Err(crate::failure::usage(
            "it prints a page or JSON, and not both",
            "leave out --markdown or --json",
        ));
    }
    super::require_root("make the hosts that it measures on")?;
    // Before, rather than after minutes.
    for file in &args.into {
        sections::check(file)?;
    }
    let report = measure(&args).await?;
    for file in &args.into {
        let parts = [
            ("table", show::markdown(&report)),
            ("chart", show::chart(&report)),
        ];
        sections::write(file, &parts)?;
    }
    if args.markdown {
        return say_result(show::markdown(&report).trim_end());
    }
    context.printer.result(&report, show::text)
}

async fn measure(args: &BenchArgs) -> Result<Report> {
    let began = Instant::now();
    let machine = Machine::here();
    let (mut peers, mut tables) = (Vec::new(), Vec::new());
    let mut nodes = args.nodes.clone();
    nodes.sort_unstable();
    nodes.dedup();
    for (at, count) in nodes.iter().enumerate() {
        let more = at > 0;
        let mut sites = Sites::default();
        let outcome = tokio::select! {
            outcome = one_size(args, *count, more, began, &mut sites) => outcome,
            () = interrupted() => Err(Error::new(ErrorKind::Unavailable, "interrupted; everything is removed again")),
        };
        // Whatever happened, nothing of it stays.
        let down = sites.down().await;
        let (told, findings) = outcome?;
        down?;
        if !more {
            peers = told;
        }
        tables.push(Table::new(*count, &findings));
    }
    let extent = args.extent();
    Ok(Report {
        machine,
        quick: args.quick,
        rounds: extent.rounds,
        seconds: (began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        peers,
        tables,
    })
}

/// Makes the hosts, and measures on them.
async fn one_size(
    args: &BenchArgs,
    count: u8,
    more: bool,
    began: Instant,
    sites: &mut Sites,
) -> Result<(Vec<PeerTold>, Findings)> {
    let progress = Progress::begin("making hosts");
    let wants = |row: Option<Row>, peer: PeerKind| {
        let mut only = args.only.iter();
        let wants = |only: &Only| match row {
            Some(row) => only.wants(row, peer),
            None => only.wants_peer(peer),
        };
        args.only.is_empty() || only.any(wants)
    };
    let peers = sites.up(count, &args.programs, more, wants).await?;
    let (extent, only) = (args.extent(), args.only.clone());
    let on = sites.hosts();
    let work = tokio::task::spawn_blocking(move || {
        let rounds = Rounds {
            sites: on,
            peers,
            extent,
            only: &only,
            began,
            more,
            tell: &|step| progress.step(step),
        };
        let findings = rounds.run();
        // Now that they run they know more of themselves.
        let told = rounds.peers.iter();
        let told = told.map(|peer| PeerTold::new(peer.kind(), peer.version()));
        let told = told.collect();
        drop(rounds);
        progress.end();
        (told, findings)
    });
    let broke = |source| Error::new(ErrorKind::Internal, "the measuring broke").with_source(source);
    work.await.map_err(broke)
}

/// Until somebody wants it to end.
async fn interrupted() {
    let signals = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [first, second, third] = signals.map(|kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            // It ends this program at once, then.
            Err(_) => std::future::pending().await,
        }
    });
    tokio::select! {
        () = first => {},
        () = second => {},
        () = third => {},
    }
}
