//! `arpanet2 exec NAME -- COMMAND`

use std::process::ExitCode;

use arpanet_core::runtime::ExecSpec;
use arpanet_core::{ContainerName, Error, ErrorKind, Result};
use clap::Args;
use reqwest::{Method, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{Context, logs};
use crate::agent::frames::{self, Kind};
use crate::agent::streams::{EXEC_HEADER, UPGRADE};

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Hand standard input on
    #[arg(short, long)]
    interactive: bool,
    /// The container
    name: ContainerName,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The command's own exit code.
pub(crate) async fn run(context: &Context, args: ExecArgs) -> Result<ExitCode> {
    let agent = context.agent()?;
    let spec = serde_json::to_string(&ExecSpec::new(args.command)).map_err(|source| {
        Error::new(ErrorKind::InvalidInput, "the command can't be sent").with_source(source)
    })?;
    let request = agent
        .request(Method::POST, &format!("/v1/containers/{}/exec", args.name))
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, UPGRADE)
        .header(EXEC_HEADER, spec);
    let response = agent.send(request).await?;
    let stream = response.upgrade().await.map_err(|source| {
        Error::new(ErrorKind::Unavailable, "the agent gave no stream").with_source(source)
    })?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let input = tokio::spawn(async move {
        let mut stdin: Box<dyn AsyncRead + Send + Unpin> = if args.interactive {
            Box::new(tokio::io::stdin())
        } else {
            Box::new(tokio::io::empty())
        };
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count @ 1..) = stdin.read(&mut buffer).await {
            if writer
                .write_all(&frames::encode(Kind::Stdin, &buffer[..count]))
                .await
                .is_err()
            {
                return;
            }
        }
        // The end of input; the stream itself stays open for the output.
        let _ = writer.write_all(&frames::encode(Kind::Stdin, &[])).await;
        let _ = writer.flush().await;
        std::future::pending::<()>().await;
    });
    let mut exit = None;
    while let Some((kind, payload)) = frames::read(&mut reader).await? {
        match (kind, &payload[..]) {
            (Kind::Exit, [a, b, c, d]) => {
                exit = Some(i32::from_be_bytes([*a, *b, *c, *d]));
                // Nothing comes after it but the stream's end, which is a reset where the agent left input unread.
                break;
            }
            _ => logs::write(kind, &payload)?,
        }
    }
    input.abort();
    let code =
        exit.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the command's end was not told"))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)))
}
