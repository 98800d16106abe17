//! A pull as it is shown on standard error: a bar for each layer on a terminal, a line for each of its phases elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use arpanet_core::runtime::{PullPhase, PullProgress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::say;

/// How much of a layer's name tells it from the others.
const NAME: usize = 12;

/// What is shown of a pull.
#[derive(Debug)]
pub(crate) struct Layers {
    image: String,
    bars: Option<MultiProgress>,
    shown: BTreeMap<String, Shown>,
}

#[derive(Debug)]
struct Shown {
    phase: PullPhase,
    bar: Option<ProgressBar>,
}

impl Layers {
    pub(crate) fn begin(image: &str) -> Self {
        Self {
            image: image.to_owned(),
            bars: std::io::stderr().is_terminal().then(MultiProgress::new),
            shown: BTreeMap::new(),
        }
    }

    pub(crate) fn show(&mut self, progress: &PullProgress) {
        if self.shown.is_empty() && self.bars.is_none() {
            say(format!("pulling {}", self.image));
        }
        let before = self.shown.get(&progress.layer).map(|shown| shown.phase);
        let bars = &self.bars;
        let shown = self
            .shown
            .entry(progress.layer.clone())
            .or_insert_with(|| Shown {
                phase: progress.phase,
                bar: bars.as_ref().map(|bars| bars.add(ProgressBar::no_length())),
            });
        shown.phase = progress.phase;
        match &shown.bar {
            Some(bar) => draw(bar, progress, before != Some(progress.phase)),
            None if before != Some(progress.phase) => say(line(progress)),
            None => {}
        }
    }

    /// Leaves what is to be read: nothing on a terminal.
    pub(crate) fn end(&mut self) {
        if let Some(bars) = self.bars.take() {
            // Nobody to tell when standard error is closed.
            let _ = bars.clear();
        }
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        self.end();
    }
}

fn draw(bar: &ProgressBar, progress: &PullProgress, other_phase: bool) {
    if other_phase {
        let template = match progress.total {
            Some(_) => "{prefix} {msg:11} [{bar:30}] {bytes}/{total_bytes}",
            None => "{prefix} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(short(&progress.layer).to_owned());
        bar.set_message(phase(progress.phase));
    }
    if let Some(total) = progress.total {
        bar.set_length(total);
    }
    bar.set_position(progress.current);
    bar.tick();
}

fn line(progress: &PullProgress) -> String {
    let layer = short(&progress.layer);
    match (progress.phase, progress.total) {
        (PullPhase::Downloading, Some(total)) => {
            format!("{layer}: {}, {total} bytes", phase(progress.phase))
        }
        (other, _) => format!("{layer}: {}", phase(other)),
    }
}

fn short(layer: &str) -> &str {
    let digits = layer.strip_prefix("sha256:").unwrap_or(layer);
    digits.get(..NAME).unwrap_or(digits)
}

const fn phase(phase: PullPhase) -> &'static str {
    match phase {
        PullPhase::Waiting => "waiting",
        PullPhase::Downloading => "downloading",
        PullPhase::Verifying => "verifying",
        PullPhase::Downloaded => "downloaded",
        PullPhase::Extracting => "extracting",
        PullPhase::Done => "done",
        PullPhase::Present => "is here already",
        _ => "under way",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_told_in_a_line() {
        let progress = PullProgress::new("sha256:0123456789abcdef", PullPhase::Downloading);
        let told = line(&progress.clone().bytes(5, Some(10)));
        assert_eq!(told, "0123456789ab: downloading, 10 bytes");
        assert_eq!(line(&progress), "0123456789ab: downloading");
        let present = PullProgress::new("83ec", PullPhase::Present);
        assert_eq!(line(&present), "83ec: is here already");
    }
}
