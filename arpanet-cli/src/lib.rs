//! What the program `arpanet2` does: a library so that fuzz targets reach what it reads. It is for nobody else.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod args;
mod client;
mod commands;
mod config;
mod failure;
mod files;
mod host;
mod layers;
mod output;
mod password;
mod paths;
mod registry_login;

use std::process::ExitCode;

use arpanet_core::roster::Role;
use arpanet_core::{Error, ErrorKind, Result};
use clap::Parser;

#[cfg(any(test, fuzzing))]
pub use self::agent::fuzzing;
use crate::args::{Cli, Command};
use crate::commands::Context;

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::misuse(&error),
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    // Before threads and settings: it makes namespaces.
    if let Command::Holder(hidden) = cli.command {
        return Ok(arpanet_lab::holder::main(hidden.args));
    }
    if let Command::Shim(hidden) = cli.command {
        return Ok(arpanet_process::shim::main(hidden.args));
    }
    if let Command::PluginKeeper(hidden) = cli.command {
        return block_on(agent::network_driver::keep(&hidden.args)).map(|()| ExitCode::SUCCESS);
    }
    if let Command::Demo = cli.command {
        commands::demo::become_root()?;
    }
    let context = Context::new(cli.global)?;
    match cli.command {
        Command::Boot(args) => commands::boot::run(&context, args),
        Command::Server(args) => commands::join::run(&context, args, Role::Server),
        Command::Client(args) => commands::join::run(&context, args, Role::Client),
        Command::Start(args) => commands::start::run(&context, &args),
        Command::Docker(args) => commands::docker::run(&context, &args),
        Command::Addr(args) => commands::addr::run(&context, &args),
        Command::Completions(args) => commands::completions::run(&args),
        Command::Hello(args) => commands::hello::serve(&args),
        Command::Man(args) => commands::man::run(&args),
        Command::Agent => {
            return Ok(agent::main(&context).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS));
        }
        command => return block_on(asynchronous(&context, command)),
    }
    .map(|()| ExitCode::SUCCESS)
}

async fn asynchronous(context: &Context, command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup(args) => return commands::setup::run(context, &args).await,
        Command::Stop => commands::stop::run(context).await,
        Command::Reset => commands::reset::run(context).await,
        Command::Status => commands::status::run(context).await,
        Command::Doctor => return commands::doctor::run(context).await,
        Command::Nodes => commands::nodes::run(context).await,
        Command::Services => commands::services::run(context).await,
        Command::Networks(args) => commands::networks::run(context, args).await,
        Command::Resolve(args) => commands::resolve::run(context, &args).await,
        Command::Why(args) => commands::why::run(context, args).await,
        Command::Register(args) => commands::register::run(context, args).await,
        Command::Deregister(args) => commands::deregister::run(context, &args).await,
        Command::Run(args) => commands::run::run(context, *args).await,
        Command::Pull(args) => commands::pull::run(context, args).await,
        Command::Ps => commands::ps::run(context).await,
        Command::Logs(args) => commands::logs::run(context, &args).await,
        Command::Exec(args) => return commands::exec::run(context, args).await,
        Command::Rm(args) => commands::rm::run(context, &args).await,
        Command::Attach(args) => commands::attach::run(context, &args).await,
        Command::Detach(args) => commands::detach::run(context, &args).await,
        Command::Expose(args) => commands::expose::run(context, &args).await,
        Command::Hide(args) => commands::hide::run(context, &args).await,
        Command::Forget(args) => commands::forget::run(context, &args).await,
        Command::Rekey => commands::rekey::run(context).await,
        Command::Passwd(args) => commands::passwd::run(context, args).await,
        Command::Drain(args) => commands::drain::drain(context, &args).await,
        Command::Undrain(args) => commands::drain::undrain(context, &args).await,
        Command::Consul(args) => return commands::consul::run(context, &args).await,
        Command::Kv(args) => return commands::kv::run(context, args).await,
        Command::Demo => commands::demo::run(context).await,
        Command::Bench(args) => commands::bench::run(context, *args).await,
        Command::Fetch(args) => commands::hello::fetch(&args).await,
        Command::Lab(args) => return commands::lab::run(context, args).await,
        _ => Err(Error::new(
            ErrorKind::Internal,
            "a command without threads came here",
        )),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::new(ErrorKind::Internal, "no event loop").with_source(source))?;
    let outcome = runtime.block_on(work);
    // A read of standard input may hang for ever.
    runtime.shutdown_background();
    outcome
}
