//! What is told of a run, whichever way.

use std::collections::BTreeMap;

use serde::Serialize;

use super::machine::Machine;
use super::peer::{Outcome, PeerKind};
use super::rounds::Findings;
use super::row::Row;
use super::statistics::{Summary, ratio};

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) quick: bool,
    pub(super) rounds: usize,
    pub(super) seconds: f64,
    pub(super) peers: Vec<PeerTold>,
    pub(super) tables: Vec<Table>,
}

/// One that was to be measured.
#[derive(Debug, Serialize)]
pub(super) struct PeerTold {
    pub(super) peer: PeerKind,
    pub(super) is: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
}

/// All rows, with so many hosts.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) nodes: u8,
    pub(super) rows: Vec<RowTold>,
}

/// One row.
#[derive(Debug, Serialize)]
pub(super) struct RowTold {
    pub(super) row: Row,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: &'static str,
    pub(super) counted: &'static str,
    pub(super) cells: BTreeMap<PeerKind, Cell>,
}

/// Figures of one row of one peer, or why there are none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Cell {
    Figures {
        median: f64,
        least: f64,
        most: f64,
        /// Half of the range, in parts of the median.
        spread: f64,
        /// What arpanet2's median is of this one.
        ratio: Option<f64>,
        samples: Vec<f64>,
        /// What went wrong in a further round.
        #[serde(skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    Why {
        /// Without the reason.
        #[serde(skip)]
        short: &'static str,
        why: String,
    },
}

impl PeerTold {
    pub(super) fn new(peer: PeerKind, version: Outcome<String>) -> Self {
        let (version, why) = match version {
            Ok(version) => (Some(version), None),
            Err(why) => (None, Some(why.to_string())),
        };
        Self {
            peer,
            is: peer.is(),
            version,
            why,
        }
    }
}

impl Table {
    pub(super) fn new(nodes: u8, findings: &Findings) -> Self {
        let rows = Row::ALL.iter().filter_map(|row| {
            let found: BTreeMap<_, _> = PeerKind::ALL
                .iter()
                .filter_map(|peer| Some((*peer, findings.get(&(*row, *peer))?)))
                .collect();
            let ours = found.get(&PeerKind::Arpanet2);
            let ours = ours.and_then(|found| Some(Summary::of(&found.figures)?.median));
            let cell = |found: &super::rounds::Found| {
                let why = found.why.as_ref();
                match Summary::of(&found.figures) {
                    Some(summary) => Some(Cell::Figures {
                        median: summary.median,
                        least: summary.least,
                        most: summary.most,
                        spread: summary.spread(),
                        ratio: ours.and_then(|ours| ratio(ours, summary.median)),
                        samples: found.figures.clone(),
                        failed: why.map(ToString::to_string),
                    }),
                    None => why.map(|why| Cell::Why {
                        short: why.short(),
                        why: why.to_string(),
                    }),
                }
            };
            let cells: BTreeMap<_, _> = found
                .into_iter()
                .filter_map(|(peer, found)| Some((peer, cell(found)?)))
                .collect();
            (!cells.is_empty()).then(|| RowTold {
                row: *row,
                title: row.title(),
                unit: row.unit(),
                better: if row.more_is_better() { "more" } else { "less" },
                counted: row.counted(),
                cells,
            })
        });
        Self {
            nodes,
            rows: rows.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Why;
    use super::super::rounds::Found;
    use super::*;

    #[test]
    fn figures_are_told_with_their_ratio_and_others_with_their_reason() {
        let found = |figures: &[f64]| Found {
            figures: figures.to_vec(),
            why: None,
        };
        let findings = Findings::from([
            (
                (Row::Boot, PeerKind::Arpanet2),
                found(&[90.0, 110.0, 100.0]),
            ),
            ((Row::Boot, PeerKind::Swarm), found(&[200.0])),
            (
                (Row::Boot, PeerKind::Consul),
                Found {
                    figures: Vec::new(),
                    why: Some(Why::installed("no consul")),
                },
            ),
        ]);
        let table = Table::new(3, &findings);
        let json = serde_json::to_value(&table).unwrap();
        assert_eq!(json["rows"].as_array().unwrap().len(), 1);
        let cells = &json["rows"][0]["cells"];
        assert_eq!(cells["arpanet2"]["median"], 100.0);
        assert_eq!(cells["arpanet2"]["ratio"], 1.0);
        assert_eq!(cells["arpanet2"]["spread"], 0.1);
        assert_eq!(cells["swarm"]["ratio"], 0.5);
        assert_eq!(cells["consul"]["why"], "not installed: no consul");
        assert_eq!(cells["veth"], serde_json::Value::Null);
    }
}
