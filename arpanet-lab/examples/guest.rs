//! Runs a command under Debian's kernel: `cargo run -p arpanet-lab --example guest -- KERNEL [MODULE,…] PROGRAM ARGS`, where
//! `.ci/kernel FOLDER` says what KERNEL is. Ends with what the command came to.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;

use arpanet_lab::Guest;

const LIMIT: Duration = Duration::from_secs(300);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, modules, command @ ..] = words.as_slice() else {
        eprintln!("usage: guest KERNEL MODULE,… PROGRAM ARGS");
        return ExitCode::from(2);
    };
    let Some(program) = command.first() else {
        eprintln!("usage: guest KERNEL MODULE,… PROGRAM ARGS");
        return ExitCode::from(2);
    };
    let modules = modules.split(',').filter(|name| !name.is_empty());
    let guest = Guest::new(kernel)
        .modules(modules)
        .program("/usr/sbin/ip")
        .program(program);
    match guest.run(command, LIMIT).await {
        Ok(run) => {
            print!("{}", run.output);
            eprint!("{}", run.console);
            eprintln!("{:?} after {:?}", run.code, run.took);
            let code = run.code.and_then(|code| u8::try_from(code).ok());
            ExitCode::from(code.unwrap_or(255))
        }
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            ExitCode::FAILURE
        }
    }
}
