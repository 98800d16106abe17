//! What the demo's containers run: the hidden commands `hello`, a web server of one page, and `fetch`, its client.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use clap::Args;

use crate::output::say_result;

/// How long a client may take with its question, or a server with its answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct HelloArgs {
    /// Where to listen, on all addresses
    #[arg(long)]
    port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// What to fetch
    url: String,
}

/// Serves until it is killed.
pub(crate) fn serve(args: &HelloArgs) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, args.port)).map_err(|source| {
        Error::new(
            ErrorKind::Unavailable,
            format!("port {} can't be had", args.port),
        )
        .with_source(source)
    })?;
    for stream in listener.incoming().flatten() {
        // A client that breaks off is its own concern.
        let _ = answer(stream);
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(&stream).lines();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let host = nix::unistd::gethostname().unwrap_or_default();
    let body = format!("hello from {}\n", host.to_string_lossy());
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Prints what is behind a URL.
pub(crate) async fn fetch(args: &FetchArgs) -> Result<()> {
    let failed = |source| {
        Error::new(
            ErrorKind::Unavailable,
            format!("{} can't be fetched", args.url),
        )
        .with_source(source)
    };
    let client = reqwest::Client::builder().timeout(PATIENCE).build();
    let request = client.map_err(failed)?.get(&args.url);
    let response = request.send().await.map_err(failed)?;
    let body = response.text().await.map_err(failed)?;
    say_result(body.trim_end())
}
