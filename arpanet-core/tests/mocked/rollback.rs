//! What is taken back when the nth call of coming up fails, for every n.

use arpanet_core::admission::NodeInfo;
use arpanet_core::cluster::ClusterEvent;
use arpanet_core::roster::Role;
use arpanet_core::{ErrorKind, Result};

use crate::rig::{Rig, me, membership, password, seed};

/// How the node comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Boot,
    Join,
    Resume,
}

impl Way {
    async fn up(self, rig: &Rig) -> Result<()> {
        match self {
            Self::Boot => rig.cluster.boot(&password()).await,
            Self::Join => {
                rig.seed_is_heard();
                rig.cluster
                    .join(&password(), Role::Server, seed(), false)
                    .await
            }
            Self::Resume => {
                let info = NodeInfo::new(me(), "n2".parse().unwrap(), Role::Server);
                rig.cluster.resume(membership(&info)).await
            }
        }
    }

    /// What takes this call back, made or tried. What a node registers and publishes goes when it leaves, and its addresses
    /// go with the overlay. A node that only returns keeps what brings it back.
    fn undo(self, call: &str) -> &'static [&'static str] {
        match (call, self) {
            ("admission.serve", _) => &["admission.stop"],
            ("docker.start", _) => &["docker.stop"],
            ("dns.start", _) => &["dns.stop"],
            ("discovery.start", Self::Resume) => &["discovery.stop"],
            ("discovery.start", _) => &["discovery.forget 0.2", "discovery.leave"],
            ("overlay.launch", Self::Resume) => &["overlay.stop"],
            ("overlay.launch", _) => &["overlay.reset"],
            ("store.save", Self::Boot | Self::Join) => &["store.clear"],
            _ => &[],
        }
    }

    fn undone(self, calls: &[String]) -> Vec<String> {
        let started = calls.iter().position(|call| call == "discovery.start");
        // Nobody but the seed has heard of a node whose discovery has not come up: the seed takes it out.
        let is_up = started.is_some_and(|at| at + 1 < calls.len());
        let undone = calls.iter().rev().flat_map(|call| match call.as_str() {
            "store.save" if self == Self::Join && !is_up => &["admission.withdraw", "store.clear"],
            call => self.undo(call),
        });
        undone.map(|call| (*call).to_owned()).collect()
    }
}

/// What fails in the first reconciliation is no reason to stay down: it is tried again.
fn is_tried_again(call: &str) -> bool {
    ["discovery.roster", "overlay.attached", "overlay.connect"]
        .iter()
        .any(|name| call.starts_with(name))
}

async fn calls_of(way: Way) -> Vec<String> {
    let rig = Rig::new();
    way.up(&rig).await.unwrap();
    rig.journal.calls()
}

async fn every_failure_is_undone(way: Way) {
    let calls = calls_of(way).await;
    assert!(calls.len() > 15, "{calls:?}");
    for (number, call) in calls.iter().enumerate() {
        // Join needs its seed: a peer that could not be connected with is waited for.
        if is_tried_again(call) {
            continue;
        }
        // Only this call fails; or this one, and all that would take something back.
        for failing in [number..number + 1, number..usize::MAX] {
            let rig = Rig::new();
            rig.journal.begin(failing.clone());
            let error = way.up(&rig).await.unwrap_err();
            let tried = calls[..=number].to_vec();
            assert_eq!(
                rig.journal.calls(),
                [tried.clone(), way.undone(&tried)].concat(),
                "{way:?} when {call} fails ({failing:?})"
            );
            // The step is named, the kind stays, the cause is told.
            assert!(error.to_string().starts_with("could not "), "{error}");
            assert_eq!(error.kind(), ErrorKind::Exhausted);
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(cause, format!("{call} fails"));
            assert!(rig.cluster.membership().await.is_none());

            // Nothing goes on behind its back, and the next try does all of it again.
            rig.journal.begin(0..0);
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            assert!(rig.journal.calls().is_empty(), "{:?}", rig.journal.calls());
            way.up(&rig).await.unwrap();
            assert_eq!(rig.journal.calls(), calls, "again after {call} had failed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_boot() {
    every_failure_is_undone(Way::Boot).await;
}

#[tokio::test(start_paused = true)]
async fn of_a_join() {
    every_failure_is_undone(Way::Join).await;
}

#[tokio::test(start_paused = true)]
async fn of_a_return() {
    every_failure_is_undone(Way::Resume).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_a_reconciliation_is_told_and_tried_again() {
    for way in [Way::Boot, Way::Join, Way::Resume] {
        let calls = calls_of(way).await;
        let numbers: Vec<usize> = (0..calls.len())
            .filter(|number| is_tried_again(&calls[*number]))
            .collect();
        assert!(!numbers.is_empty());
        for number in numbers {
            let rig = Rig::new();
            rig.journal.begin(number..number + 1);
            let mut events = rig.cluster.events();
            way.up(&rig).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            let made = rig.journal.calls();
            let times = made.iter().filter(|call| **call == calls[number]).count();
            assert!(times >= 2, "{}: {made:?}", calls[number]);
            if calls[number] != "discovery.roster" {
                let mut told = std::iter::from_fn(|| events.try_recv().ok());
                assert!(told.any(|event| matches!(event, ClusterEvent::Trouble { .. })));
            }
        }
    }
}
