//! The ledger on a model of a host: whatever happens, reading it backwards restores the host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arpanet_core::{ErrorKind, Result};
use async_trait::async_trait;
use proptest::prelude::*;

use super::change::{Before, Change};
use super::host::Host;
use super::{Ledger, Mark};
use crate::error::own;
use crate::{Rule, RuleAction};

/// Rules by priority, settings and files by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    rules: Vec<u32>,
    settings: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, String>,
}

/// A host whose n-th making of a change fails half way.
#[derive(Debug, Clone, Default)]
struct Model {
    state: Arc<Mutex<State>>,
    makes_until_failure: Arc<Mutex<Option<u32>>>,
    unmaking_fails_at: Arc<Mutex<Option<u32>>>,
}

fn set<T: Ord>(set: &mut Vec<T>, value: T, present: bool) {
    set.retain(|other| *other != value);
    if present {
        set.push(value);
        set.sort();
    }
}

#[async_trait]
impl Host for Model {
    async fn in_effect(&self, change: &Change) -> Result<bool> {
        let state = self.state.lock().unwrap();
        Ok(match change {
            Change::AddRule(rule) => state.rules.contains(&rule.priority),
            Change::MoveRule { from, to } => {
                state.rules.contains(&to.priority) && !state.rules.contains(&from.priority)
            }
            Change::SetSysctl { name, value } => state.settings.get(name) == Some(value),
            Change::WriteFile { path, contents, .. } => state.files.get(path) == Some(contents),
            other => unreachable!("{other}"),
        })
    }

    async fn before(&self, change: &Change) -> Result<Before> {
        let state = self.state.lock().unwrap();
        Ok(match change {
            Change::MoveRule { from, to } => Before::Rules {
                from: state.rules.contains(&from.priority),
                to: state.rules.contains(&to.priority),
            },
            Change::SetSysctl { name, .. } => Before::Value(state.settings[name].clone()),
            Change::WriteFile { path, .. } => match state.files.get(path) {
                Some(contents) => Before::File {
                    contents: contents.clone().into_bytes(),
                    mode: 0,
                },
                None => Before::Nothing,
            },
            _ => Before::Nothing,
        })
    }

    async fn make(&self, change: &Change) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let mut left = self.makes_until_failure.lock().unwrap();
        let fails = *left == Some(0);
        *left = left.and_then(|left| left.checked_sub(1));
        match change {
            Change::AddRule(rule) => set(&mut state.rules, rule.priority, !fails),
            Change::MoveRule { from, to } => {
                set(&mut state.rules, to.priority, true);
                set(&mut state.rules, from.priority, fails);
            }
            Change::SetSysctl { name, value } => {
                drop(state.settings.insert(name.clone(), value.clone()))
            }
            Change::WriteFile { path, contents, .. } => {
                drop(state.files.insert(path.clone(), contents.clone()))
            }
            other => unreachable!("{other}"),
        }
        if fails {
            Err(own("make", ErrorKind::Internal, "as the test wants it"))
        } else {
            Ok(())
        }
    }

    async fn unmake(&self, change: &Change, before: &Before) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        match (change, before) {
            (Change::AddRule(rule), _)
                if Some(rule.priority) == *self.unmaking_fails_at.lock().unwrap() =>
            {
                return Err(own("unmake", ErrorKind::Internal, "as the test wants it"));
            }
            (Change::AddRule(rule), _) => set(&mut state.rules, rule.priority, false),
            (
                Change::MoveRule { from, to },
                Before::Rules {
                    from: had_from,
                    to: had_to,
                },
            ) => {
                set(&mut state.rules, to.priority, *had_to);
                set(&mut state.rules, from.priority, *had_from);
            }
            (Change::SetSysctl { name, value }, Before::Value(old))
                if state.settings[name] == *value =>
            {
                state.settings.insert(name.clone(), old.clone());
            }
            (Change::WriteFile { path, .. }, Before::File { contents, .. }) => {
                state
                    .files
                    .insert(path.clone(), String::from_utf8(contents.clone()).unwrap());
            }
            (Change::WriteFile { path, .. }, _) => drop(state.files.remove(path)),
            _ => {}
        }
        Ok(())
    }
}

fn rule(priority: u32) -> Rule {
    Rule::new(priority, RuleAction::Prohibit)
}

fn file(number: u32) -> PathBuf {
    PathBuf::from(format!("/etc/{number}"))
}

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0_u32..6).prop_map(|priority| Change::AddRule(rule(priority))),
        // Never back on a rule that another change may add: what such a pair means in reverse depends on their order.
        (10_u32..12).prop_map(|priority| Change::MoveRule {
            from: rule(priority),
            to: rule(priority + 10)
        }),
        (0_u32..3, 0_u32..3).prop_map(|(name, value)| Change::SetSysctl {
            name: name.to_string(),
            value: value.to_string()
        }),
        (0_u32..3, 0_u32..3).prop_map(|(number, text)| Change::WriteFile {
            path: file(number),
            contents: text.to_string(),
            mode: 0o644,
        }),
    ]
}

#[derive(Debug, Clone)]
enum Event {
    Apply(Vec<Change>),
    ApplyFailing(Vec<Change>, u32),
    MarkThenRollBack(Vec<Change>),
    /// A rule of this priority.
    ApplyThenUndo(u32),
    Kill,
}

fn an_event() -> impl Strategy<Value = Event> {
    let changes = || proptest::collection::vec(a_change(), 1..4);
    prop_oneof![
        4 => changes().prop_map(Event::Apply),
        2 => (changes(), 0_u32..4).prop_map(|(changes, at)| Event::ApplyFailing(changes, at)),
        2 => changes().prop_map(Event::MarkThenRollBack),
        1 => (0_u32..6).prop_map(Event::ApplyThenUndo),
        1 => Just(Event::Kill),
    ]
}

fn a_host() -> impl Strategy<Value = State> {
    let rules = proptest::collection::btree_set(prop_oneof![0_u32..6, 10_u32..12], 0..5);
    let settings = proptest::array::uniform3(0_u32..3);
    let files = proptest::collection::btree_map(0_u32..3, 0_u32..3, 0..3);
    (rules, settings, files).prop_map(|(rules, settings, files)| State {
        rules: rules.into_iter().collect(),
        settings: (0..3)
            .zip(settings)
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        files: files
            .into_iter()
            .map(|(number, text)| (file(number), text.to_string()))
            .collect(),
    })
}

fn open(path: &Path, model: &Model, boot: &str) -> Ledger {
    Ledger::with_host(path, Box::new(model.clone()), boot.to_owned()).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn reading_it_backwards_restores_the_host(initial in a_host(), events in proptest::collection::vec(an_event(), 1..8)) {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger");
            let model = Model::default();
            *model.state.lock().unwrap() = initial.clone();
            let now = || model.state.lock().unwrap().clone();
            let mut ledger = open(&path, &model, "boot");
            for event in events {
                let (before, standing) = (now(), ledger.standing().await);
                match event {
                    Event::Apply(changes) => ledger.apply_all(changes).await.unwrap(),
                    Event::ApplyFailing(changes, at) => {
                        *model.makes_until_failure.lock().unwrap() = Some(at);
                        let failed = ledger.apply_all(changes).await.is_err();
                        *model.makes_until_failure.lock().unwrap() = None;
                        // A change that stood already and was only to be mended may be left half mended.
                        if failed && ledger.standing().await == standing && standing.is_empty() {
                            assert_eq!(now(), before);
                        }
                    }
                    Event::MarkThenRollBack(changes) => {
                        let mark = ledger.mark().await;
                        ledger.apply_all(changes).await.unwrap();
                        ledger.roll_back(mark).await.unwrap();
                        assert_eq!(ledger.standing().await, standing);
                    }
                    Event::ApplyThenUndo(priority) => {
                        let change = Change::AddRule(rule(priority));
                        ledger.apply(change.clone()).await.unwrap();
                        ledger.undo(&change).await.unwrap();
                        assert!(!ledger.standing().await.contains(&change));
                    }
                    Event::Kill => {
                        drop(ledger);
                        ledger = open(&path, &model, "boot");
                        assert_eq!(ledger.standing().await, standing);
                    }
                }
            }
            ledger.undo_all().await.unwrap();
            assert_eq!(now(), initial);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
            ledger.undo_all().await.unwrap();
            assert_eq!(now(), initial);
        });
    }
}

#[test]
fn what_fails_to_be_undone_is_reported_and_stands_and_the_rest_goes_on() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let model = Model::default();
        let ledger = open(&path, &model, "boot");
        ledger
            .apply_all((1..=3).map(|priority| Change::AddRule(rule(priority))))
            .await
            .unwrap();
        *model.unmaking_fails_at.lock().unwrap() = Some(2);
        let error = ledger.undo_all().await.unwrap_err();
        assert!(
            error.to_string().contains("2: from all prohibit"),
            "{error}"
        );
        assert_eq!(model.state.lock().unwrap().rules, [2]);
        drop(ledger);
        *model.unmaking_fails_at.lock().unwrap() = None;
        let ledger = open(&path, &model, "boot");
        assert_eq!(ledger.standing().await, [Change::AddRule(rule(2))]);
        ledger.undo_all().await.unwrap();
        assert_eq!(*model.state.lock().unwrap(), State::default());
    });
}

#[test]
fn after_a_reboot_only_files_are_undone() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let model = Model::default();
        let ledger = open(&path, &model, "boot 1");
        let write = Change::WriteFile {
            path: file(1),
            contents: "ours".to_owned(),
            mode: 0o644,
        };
        ledger
            .apply_all([Change::AddRule(rule(1)), write.clone()])
            .await
            .unwrap();
        drop(ledger);
        // The same rule, but of somebody else, in the next boot.
        let ledger = open(&path, &model, "boot 2");
        assert_eq!(ledger.standing().await, [write]);
        ledger.undo_all().await.unwrap();
        assert_eq!(
            *model.state.lock().unwrap(),
            State {
                rules: vec![1],
                ..State::default()
            }
        );
    });
}

#[test]
fn marks_are_places_in_time() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(&folder.path().join("ledger"), &Model::default(), "boot");
        let start = ledger.mark().await;
        ledger.apply(Change::AddRule(rule(1))).await.unwrap();
        assert!(start < ledger.mark().await && Mark(0) < start);
    });
}
