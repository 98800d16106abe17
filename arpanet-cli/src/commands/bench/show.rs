//! A report as text: a table for a terminal or a page, and a chart.

use super::peer::PeerKind;
use super::report::{Cell, Report, RowTold, Table};
use super::row::Row;
use super::statistics::short;
use crate::output;

/// What a chart is made of.
const CHARTED: [Row; 5] = [
    Row::Container,
    Row::Cut,
    Row::Answers,
    Row::Stream,
    Row::RoundTrip,
];
/// The longest bar.
const BAR: f64 = 40.0;

/// Reasons, each told once, and called by its number.
#[derive(Debug, Default)]
struct Notes(Vec<String>);

impl Notes {
    fn number(&mut self, note: String) -> usize {
        let known = self.0.iter().position(|it| *it == note);
        known.unwrap_or_else(|| {
            self.0.push(note);
            self.0.len() - 1
        }) + 1
    }
}

/// What is in a cell of a table.
fn cell(cell: Option<&Cell>, peer: PeerKind, notes: &mut Notes) -> String {
    match cell {
        None => String::new(),
        Some(Cell::Why { short, why }) => {
            // What does not apply to one does not to others, for the same reason.
            if *short == "not applicable" {
                let number = notes.number(why.clone());
                return format!("n/a [{number}]");
            }
            let number = notes.number(format!("{}: {why}", peer.name()));
            format!("{short} [{number}]")
        }
        Some(Cell::Figures {
            median,
            spread,
            ratio,
            samples,
            failed,
            ..
        }) => {
            let mut text = short(*median);
            if samples.len() > 1 {
                text.push_str(&format!(" ±{:.0}%", spread * 100.0));
            }
            if let Some(ratio) = ratio.filter(|_| peer != PeerKind::Arpanet2) {
                text.push_str(&format!(" ×{}", short(ratio)));
            }
            if let Some(why) = failed {
                let number = notes.number(format!("{}: in a further round: {why}", peer.name()));
                text.push_str(&format!(" [{number}]"));
            }
            text
        }
    }
}

/// Header, rows and reasons of a table.
fn parts(table: &Table, peers: &[PeerKind]) -> (Vec<String>, Vec<Vec<String>>, Notes) {
    let mut notes = Notes::default();
    let mut header = vec![format!("{} hosts", table.nodes)];
    header.extend(peers.iter().map(|peer| peer.name().to_owned()));
    let mut rows = Vec::new();
    for row in &table.rows {
        let mut line = vec![format!("{}, {}", row.title, row.unit)];
        for peer in peers {
            line.push(cell(row.cells.get(peer), *peer, &mut notes));
        }
        rows.push(line);
    }
    (header, rows, notes)
}

/// The peers that have something in a table.
fn columns(table: &Table) -> Vec<PeerKind> {
    let mut all = PeerKind::ALL.to_vec();
    all.retain(|peer| table.rows.iter().any(|row| row.cells.contains_key(peer)));
    all
}

const LEGEND: &str = "Medians; ± is half of the range from the least to the most; × is arpanet2's median over this one's, so less than 1 is \
     better for arpanet2 in rows of time and memory, and more than 1 in rows of rates.";

/// For a terminal.
pub(super) fn text(report: &Report) -> String {
    let mut text = format!("{}\n{}\n", report.machine.told(), rounds(report));
    for table in &report.tables {
        let (header, rows, notes) = parts(table, &columns(table));
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        text.push_str(&format!("\n{}\n", output::table(&header, rows)));
        for (number, note) in notes.0.iter().enumerate() {
            text.push_str(&format!("[{}] {note}\n", number + 1));
        }
    }
    text.push_str(&format!("\n{LEGEND}"));
    text
}

fn rounds(report: &Report) -> String {
    let quick = if report.quick { ", quick" } else { "" };
    let rounds = match report.rounds {
        1 => "1 round".to_owned(),
        rounds => format!("{rounds} rounds"),
    };
    format!("{rounds}{quick}, {:.0} s", report.seconds)
}

/// For a page: the machine, the peers, the tables, and what each row counts.
pub(super) fn markdown(report: &Report) -> String {
    let mut text = format!(
        "Made by `arpanet2 bench`: {}; {}.\n\n| peer | is | version |\n| --- | --- | --- |\n",
        report.machine.told(),
        rounds(report)
    );
    for peer in &report.peers {
        let version = peer.version.as_deref().or(peer.why.as_deref());
        let version = version.unwrap_or_default();
        text.push_str(&line(&[peer.peer.name(), peer.is, version]));
    }
    for table in &report.tables {
        let (header, rows, notes) = parts(table, &columns(table));
        text.push('\n');
        text.push_str(&line(&header));
        text.push_str(&line(&vec!["---"; header.len()]));
        for row in &rows {
            text.push_str(&line(row));
        }
        for (number, note) in notes.0.iter().enumerate() {
            let first = if number == 0 { "\n" } else { "" };
            text.push_str(&format!("{first}- [{}] {note}\n", number + 1));
        }
    }
    text.push_str(&format!("\n{LEGEND}\n\nWhat each row counts:\n\n"));
    let mut told = Vec::new();
    for row in report.tables.iter().flat_map(|table| &table.rows) {
        if !told.contains(&row.row) {
            told.push(row.row);
            text.push_str(&format!("- {}: {}\n", row.title, row.counted));
        }
    }
    text
}

fn line(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    // A bar in a word would end its cell.
    format!(
        "| {} |\n",
        words
            .join(" \u{1} ")
            .replace('|', "\\|")
            .replace('\u{1}', "|")
    )
}

/// A few rows of the first table as bars. What is a limit and no peer is left out.
pub(super) fn chart(report: &Report) -> String {
    let mut text = format!("```text\n{}\n", report.machine.told());
    let rows = report.tables.first().map(|table| table.rows.as_slice());
    for row in rows.unwrap_or_default() {
        if CHARTED.contains(&row.row) {
            text.push_str(&bars(row));
        }
    }
    text.push_str("```\n");
    text
}

fn bars(row: &RowTold) -> String {
    let figures: Vec<(PeerKind, f64)> = row
        .cells
        .iter()
        .filter(|(peer, _)| !matches!(peer, PeerKind::Vxlan | PeerKind::Veth))
        .filter_map(|(peer, cell)| match cell {
            Cell::Figures { median, .. } => Some((*peer, *median)),
            Cell::Why { .. } => None,
        })
        .collect();
    let most = figures
        .iter()
        .map(|(_, figure)| *figure)
        .fold(0.0, f64::max);
    if figures.len() < 2 || most <= 0.0 {
        return String::new();
    }
    let mut text = format!("\n{}, {} ({} is better)\n", row.title, row.unit, row.better);
    for (peer, figure) in figures {
        let bar = "█".repeat((figure / most * BAR).round().max(1.0) as usize);
        text.push_str(&format!(
            "  {:<13}{:>8}  {bar}\n",
            peer.name(),
            short(figure)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::peer::Why;
    use super::super::report::PeerTold;
    use super::super::rounds::{Findings, Found};
    use super::*;

    fn report() -> Report {
        let found = |figures: &[f64]| Found {
            figures: figures.to_vec(),
            why: None,
        };
        let none = |why| Found {
            figures: Vec::new(),
            why: Some(why),
        };
        let findings = Findings::from([
            ((Row::Stream, PeerKind::Arpanet2), found(&[4.0, 5.0, 6.0])),
            ((Row::Stream, PeerKind::WireGuardGo), found(&[2.5])),
            (
                (Row::Stream, PeerKind::Consul),
                none(Why::installed("no a|b")),
            ),
            ((Row::Stream, PeerKind::Veth), found(&[50.0])),
            (
                (Row::Boot, PeerKind::Consul),
                none(Why::installed("no a|b")),
            ),
            (
                (Row::Boot, PeerKind::Veth),
                none(Why::applicable("no cluster")),
            ),
            (
                (Row::Boot, PeerKind::WireGuardGo),
                none(Why::applicable("no cluster")),
            ),
        ]);
        Report {
            machine: Machine {
                processor: "Z80".to_owned(),
                cores: 2,
                memory_gib: 8.0,
                kernel: "6.1".to_owned(),
                load_before: 0.25,
                release: true,
            },
            quick: true,
            rounds: 3,
            seconds: 61.2,
            peers: vec![
                PeerTold::new(PeerKind::Arpanet2, Ok("1.0".to_owned())),
                PeerTold::new(PeerKind::Consul, Err(Why::installed("no a|b"))),
            ],
            tables: vec![Table::new(3, &findings)],
        }
    }

    #[test]
    fn a_table_has_a_column_a_peer_and_every_reason_once() {
        let text = text(&report());
        assert!(
            text.starts_with(
                "2 cores of Z80, 8 GiB, Linux 6.1, load before 0.2\n3 rounds, quick, 61 s\n"
            ),
            "{text}"
        );
        assert!(text.contains("5.00 ±20%"), "{text}");
        assert!(text.contains("2.50 ×2.00"), "{text}");
        assert_eq!(text.matches("not installed [1]").count(), 2, "{text}");
        assert!(
            text.contains("[1] consul: not installed: no a|b\n"),
            "{text}"
        );
        assert_eq!(text.matches("n/a [2]").count(), 2, "{text}");
        assert!(text.contains("[2] not applicable: no cluster\n"), "{text}");
        assert!(!text.contains("[3]") && !text.contains("swarm"), "{text}");
    }

    #[test]
    fn a_page_keeps_bars_out_of_its_cells_and_says_what_rows_count() {
        let page = markdown(&report());
        let rows = page.lines().filter(|line| line.starts_with('|'));
        let widths: Vec<usize> = rows
            .map(|row| row.replace("\\|", "").matches('|').count())
            .collect();
        assert_eq!(widths, [4, 4, 4, 4, 6, 6, 6, 6], "{page}");
        assert!(
            page.contains(
                "| consul | consul alone, on the hosts' own network | not installed: no a\\|b |"
            ),
            "{page}"
        );
        assert!(
            page.contains("- one TCP stream: Between two hosts"),
            "{page}"
        );
    }

    #[test]
    fn a_chart_has_bars_of_peers_in_proportion_and_no_limits() {
        let chart = chart(&report());
        let bar = |peer: &str| {
            let line = chart.lines().find(|line| line.contains(peer));
            line.map_or(0, |line| line.matches('█').count())
        };
        assert_eq!(bar("arpanet2  "), 40, "{chart}");
        assert_eq!(bar("wireguard-go"), 20, "{chart}");
        assert_eq!(bar("veth"), 0, "{chart}");
        assert!(!chart.contains("boot"), "{chart}");
    }
}
