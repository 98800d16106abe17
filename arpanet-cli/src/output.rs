//! Results on standard output, everything else on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use arpanet_core::{Error, ErrorKind, Result};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Prints results, as text or as JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    json: bool,
}

impl Printer {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result: its JSON, or the text that is made of it.
    pub(crate) fn result<T: Serialize>(
        self,
        result: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        if self.json {
            let json = serde_json::to_string_pretty(result).map_err(|source| {
                Error::new(ErrorKind::Internal, "the result can't be written as JSON")
                    .with_source(source)
            })?;
            return write_line(&json);
        }
        let text = text(result);
        if text.is_empty() {
            Ok(())
        } else {
            write_line(text.trim_end_matches('\n'))
        }
    }
}

/// Prints one line of a result that comes in parts.
pub(crate) fn say_result(text: &str) -> Result<()> {
    write_line(text)
}

fn write_line(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::new(
            ErrorKind::Internal,
            "standard output can't be written",
        )
        .with_source(error)),
        _ => Ok(()),
    }
}

/// Says something on standard error.
pub(crate) fn say(text: impl AsRef<str>) {
    // Nobody to tell when standard error is closed.
    let _ = writeln!(anstream::stderr().lock(), "{}", text.as_ref());
}

/// A table without lines.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// What is under way, shown on a terminal and only there.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
}

impl Progress {
    pub(crate) fn begin(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(what.to_owned());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            began: Instant::now(),
        }
    }

    pub(crate) fn step(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// How long it took.
    pub(crate) fn end(self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.began.elapsed()
    }
}
