//! `arpanet2`: one cluster of separate docker hosts.

use std::process::ExitCode;

fn main() -> ExitCode {
    arpanet_cli::main()
}
