//! `arpanet2 man`

use std::path::PathBuf;

use arpanet_core::{Error, ErrorKind, Result};
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use crate::args::Cli;

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs) -> Result<()> {
    let command = Cli::command();
    let written = match &args.out {
        Some(folder) => {
            std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder))
        }
        None => Man::new(command).render(&mut std::io::stdout()),
    };
    written.map_err(|source| {
        Error::new(ErrorKind::Internal, "the manual can't be written").with_source(source)
    })
}
