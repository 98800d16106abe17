//! The output of containers.

use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::{Program, Rig, comes_to_be, name, spec, started};
use crate::ContainerName;
use crate::conformance::check::{Broken, Check, Verdict, check, ensure, until};
use crate::runtime::{ContainerState, LogOptions, Output, OutputStream};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(both_streams_are_kept, "A container's output."),
        check!(
            the_environment_is_passed_on,
            "Added to the runtime's own environment."
        ),
        check!(
            the_tail_is_the_last_lines,
            "Only the last this many lines of what there is."
        ),
        check!(
            only_what_was_written_since,
            "Only what was written since then."
        ),
        check!(
            following_goes_on_until_the_removal,
            "Go on with what comes, until the container is removed or the reader drops."
        ),
    ]
}

/// Reads to the end.
async fn read(mut from: mpsc::Receiver<Output>) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    while let Some(piece) = from.recv().await {
        match piece.stream {
            OutputStream::Stdout => out.push_str(&String::from_utf8_lossy(&piece.bytes)),
            OutputStream::Stderr => err.push_str(&String::from_utf8_lossy(&piece.bytes)),
        }
    }
    (out, err)
}

async fn all(rig: &Rig, name: &ContainerName, options: LogOptions) -> Verdict<(String, String)> {
    let from = rig.runtime().logs(name, options).await?;
    tokio::time::timeout(rig.patience(), read(from))
        .await
        .map_err(|_| Broken::new("logs that are not followed did not end"))
}

/// Waits until a container has written just this.
pub(super) async fn comes_to_write(
    rig: &Rig,
    name: &ContainerName,
    out: &str,
    err: &str,
) -> Verdict {
    until(rig.patience(), async || {
        let found = all(rig, name, LogOptions::all()).await?;
        ensure!(
            (found.0.as_str(), found.1.as_str()) == (out, err),
            "its logs are {found:?} instead of {:?}",
            (out, err)
        );
        Ok(())
    })
    .await
}

async fn both_streams_are_kept(rig: &Rig) -> Verdict {
    let container = started(rig, 0, Program::Print("to out", "to err")).await?;
    comes_to_write(rig, &container.name, "to out\n", "to err\n").await?;
    // Still there when it has ended.
    comes_to_be(rig, &container.name, ContainerState::Exited { code: 0 }).await?;
    comes_to_write(rig, &container.name, "to out\n", "to err\n").await
}

async fn the_environment_is_passed_on(rig: &Rig) -> Verdict {
    let spec = spec(rig, 0, Program::Env("COLOUR"))?.env("COLOUR", "light blue");
    let container = rig.runtime().create(&spec).await?;
    rig.runtime().start(&container.name).await?;
    comes_to_write(rig, &container.name, "light blue\n", "").await
}

async fn the_tail_is_the_last_lines(rig: &Rig) -> Verdict {
    let container = started(rig, 0, Program::Lines(10)).await?;
    let whole: String = (1..=10).map(|line| format!("line {line}\n")).collect();
    comes_to_write(rig, &container.name, &whole, "").await?;
    for (tail, wanted) in [(2, "line 9\nline 10\n"), (0, ""), (99, whole.as_str())] {
        let (out, _) = all(rig, &container.name, LogOptions::all().tail(tail)).await?;
        ensure!(out == wanted, "the last {tail} lines are {out:?}");
    }
    Ok(())
}

async fn only_what_was_written_since(rig: &Rig) -> Verdict {
    const DAY: Duration = Duration::from_secs(86_400);
    let container = started(rig, 0, Program::Print("now", "now")).await?;
    comes_to_write(rig, &container.name, "now\n", "now\n").await?;
    // By the host's clock, which the container's creation tells.
    let made: SystemTime = rig.runtime().inspect(&container.name).await?.created;
    for (since, wanted) in [(made - DAY, "now\n"), (made + DAY, "")] {
        let (out, _) = all(rig, &container.name, LogOptions::all().since(since)).await?;
        ensure!(out == wanted, "since {since:?} it wrote {out:?}");
    }
    Ok(())
}

async fn following_goes_on_until_the_removal(rig: &Rig) -> Verdict {
    let container = rig
        .runtime()
        .create(&spec(rig, 0, Program::Print("late", "late"))?)
        .await?;
    let follow = LogOptions::all().follow();
    // A reader that drops is no hindrance to the other.
    drop(rig.runtime().logs(&container.name, follow.clone()).await?);
    let mut reader = rig.runtime().logs(&container.name, follow).await?;
    rig.runtime().start(&container.name).await?;
    let mut pieces = 0;
    while pieces < 2 {
        match tokio::time::timeout(rig.patience(), reader.recv()).await {
            Ok(Some(piece)) => {
                ensure!(piece.bytes == "late\n", "it wrote {:?}", piece.bytes);
                pieces += 1;
            }
            Ok(None) => return Err(Broken::new("it ended before all was written")),
            Err(_) => return Err(Broken::new("what was written did not come")),
        }
    }
    rig.runtime().remove(&name(0)?).await?;
    let end = tokio::time::timeout(rig.patience(), reader.recv()).await;
    ensure!(matches!(end, Ok(None)), "after the removal it told {end:?}");
    Ok(())
}
