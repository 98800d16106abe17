//! `arpanet2 lab`

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_lab::{Ending, HolderCommand, HostStatus, Lab, LabConfig, Protocol};
use clap::{Args, Subcommand};

use super::Context;
use crate::output::{Progress, table};
use crate::paths::Paths;
use crate::{failure, host};

#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    /// The lab's folder
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/arpanet2-lab",
        env = "ARPANET2_LAB_DIR"
    )]
    dir: PathBuf,
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Make a lab
    Up {
        /// How many hosts
        #[arg(long, default_value_t = 3)]
        hosts: u8,
        /// With a docker engine of its own in each, and the image arpanet2-lab
        #[arg(long)]
        docker: bool,
    },
    /// Start or end a host's docker engine, as its service manager would
    Engine {
        /// start, stop, restart, or kill
        #[arg(value_enum)]
        verb: EngineVerb,
        /// The host, nodeN
        host: String,
    },
    /// Run a command in a host
    Exec {
        /// The host, nodeN
        host: String,
        /// Run it as the user with this number
        #[arg(long, default_value_t = 0)]
        user: u32,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Cut a host off from all others, or from one
    Cut {
        /// The host, nodeN
        host: String,
        /// Only from this one
        #[arg(long)]
        from: Option<String>,
    },
    /// Take back every cut and block, of one host or of all
    Heal {
        /// The host, nodeN
        host: Option<String>,
    },
    /// Drop a protocol from and to a host
    Block {
        /// The host, nodeN
        host: String,
        /// tcp or udp
        #[arg(value_parser = protocol)]
        protocol: Protocol,
    },
    /// Take a host's power away
    Kill {
        /// The host, nodeN
        host: String,
    },
    /// Give a host power again; the node that it was comes back
    Start {
        /// The host, nodeN
        host: String,
    },
    /// Give a host another address on the underlay
    Readdress {
        /// The host, nodeN
        host: String,
        /// Its new address
        ip: Ipv4Addr,
    },
    /// Show the hosts
    Status,
    /// Remove the lab
    Down,
}

/// What is done to a docker engine.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum EngineVerb {
    /// Start it
    Start,
    /// End it in order
    Stop,
    /// End it in order and start it again
    Restart,
    /// End it by SIGKILL
    Kill,
}

fn protocol(text: &str) -> Result<Protocol> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(Error::new(ErrorKind::InvalidInput, "it is tcp or udp")),
    }
}

pub(crate) async fn run(context: &Context, args: LabArgs) -> Result<ExitCode> {
    let program = host::program()?;
    let config = LabConfig::new(args.dir, HolderCommand::new(program, ["holder"]));
    if let LabCommand::Up { hosts, docker } = args.command {
        let progress = Progress::begin("making the lab");
        let made = Lab::up(config.docker(docker), hosts).await;
        progress.end();
        let hosts = made?.status()?;
        return context
            .printer
            .result(&hosts, |hosts| render(hosts))
            .map(|()| ExitCode::SUCCESS);
    }
    let lab = match Lab::open(config) {
        // A lab that is gone is down.
        Err(error)
            if error.kind() == ErrorKind::NotFound && matches!(args.command, LabCommand::Down) =>
        {
            return Ok(ExitCode::SUCCESS);
        }
        lab => lab?,
    };
    match args.command {
        LabCommand::Exec {
            host,
            user,
            command,
        } => {
            let status = lab
                .command(&host, user, &command)?
                .status()
                .map_err(|source| {
                    Error::new(ErrorKind::Internal, "the command can't be started")
                        .with_source(source)
                })?;
            let code = status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1);
            return Ok(ExitCode::from(code));
        }
        LabCommand::Cut { host, from } => lab.cut(&host, from.as_deref()).await,
        LabCommand::Heal { host } => lab.heal(host.as_deref()).await,
        LabCommand::Block { host, protocol } => lab.block(&host, protocol).await,
        LabCommand::Engine { verb, host } => match verb {
            EngineVerb::Start => lab.start_docker(&host).await,
            EngineVerb::Stop => lab.end_docker(&host, Ending::InOrder).await,
            EngineVerb::Restart => match lab.end_docker(&host, Ending::InOrder).await {
                Ok(()) => lab.start_docker(&host).await,
                failed => failed,
            },
            EngineVerb::Kill => lab.end_docker(&host, Ending::AtOnce).await,
        },
        LabCommand::Kill { host } => lab.kill(&host).await,
        LabCommand::Start { host } => match lab.start(&host).await {
            Ok(()) => bring_back(&lab, &host),
            failed => failed,
        },
        LabCommand::Readdress { host, ip } => lab.readdress(&host, ip).await,
        LabCommand::Status | LabCommand::Up { .. } => context
            .printer
            .result(&lab.status()?, |hosts| render(hosts)),
        LabCommand::Down => lab.down().await,
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Brings a host's node back, if it had one: what the service manager of a real host does.
fn bring_back(lab: &Lab, host: &str) -> Result<()> {
    let program = host::program()?;
    let node = Paths::default().node();
    if !lab
        .output(host, &["test".as_ref(), "-e".as_ref(), node.as_os_str()])?
        .status
        .success()
    {
        return Ok(());
    }
    let started = lab.output(host, &[program.as_os_str(), "start".as_ref()])?;
    if started.status.success() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        format!(
            "{host} has power, but its node did not come back: {}",
            failure::said(&started.stderr)
        ),
    ))
}

fn render(hosts: &[HostStatus]) -> String {
    table(
        &["HOST", "ADDRESS", "STATE"],
        hosts.iter().map(|host| {
            let mut state = vec![if host.running { "running" } else { "no power" }.to_owned()];
            state.extend(host.unplugged.then(|| "cut off".to_owned()));
            state.extend(
                host.cut_from
                    .iter()
                    .map(|other| format!("cut from {other}")),
            );
            state.extend(
                host.blocked
                    .iter()
                    .map(|protocol| format!("{protocol:?} blocked").to_lowercase()),
            );
            vec![host.name.clone(), host.ip.to_string(), state.join(", ")]
        }),
    )
}
