//! The holder of the crate's own tests; programs that embed the lab are their own holder.

use std::process::ExitCode;

fn main() -> ExitCode {
    arpanet_lab::holder::main(std::env::args_os().skip(1).collect())
}
