//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "for fuzz targets only"
)]

use std::sync::{Arc, Mutex, OnceLock};

use arpanet_core::admission::{ClusterKey, Gatekeeper, Membership, NodeInfo, Password, Secret};
use arpanet_core::roster::{ClusterId, Identity, Role, Roster, RosterEntry};
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use async_trait::async_trait;

use crate::request::{Request, SignedIdentity, Verdict};
use crate::seed::{Hall, Post};
use crate::session::{Keys, Side, Transcript, start_pake};
use crate::wire::{Answer, Confirmation, decode};
use crate::{KdfParams, NodeIdentity, Verifier};

/// Whatever a stranger sends to a seed: nobody is admitted.
pub fn stranger(said: &[u8]) {
    let stream = tokio::io::join(said, tokio::io::sink());
    let admitted = block_on(async {
        tokio::pin!(stream);
        hall()
            .converse(&mut stream, ([192, 0, 2, 7], 4711).into())
            .await
    });
    assert!(!matches!(admitted, Ok(Some(_))), "a stranger was admitted");
}

/// Whatever an applicant with the right password asks for. With `proven`, it shows the identity that is its own.
fn applicant(asked: &[u8], proven: bool) {
    let Ok(mut request) = decode::<Request>(asked) else {
        return;
    };
    let keys = keys();
    if proven {
        request.identity = SignedIdentity::new(applicants(), Side::Joiner, keys);
    }
    let asked_for = request.info.node;
    let verdict = block_on(hall().judge(&post(), keys, request, ([192, 0, 2, 7], 4711).into()));
    if let Verdict::Admitted(admitted) = verdict {
        assert!(proven, "admitted without a proof of identity");
        let holder = admitted.roster.holder(asked_for).unwrap();
        assert_eq!(holder.identity, applicants().public());
    }
}

/// Whatever an applicant that knows the password asks a seed for, and whatever a seed answers.
pub fn applicants_and_seeds(said: &[u8]) {
    applicant(said, false);
    applicant(said, true);
    answers(said);
}

/// Whatever a seed answers to a joiner.
fn answers(said: &[u8]) {
    let _ = decode::<Answer>(said);
    let _ = decode::<Confirmation>(said);
    if let Ok(verdict) = decode::<Verdict>(said)
        && let Ok(admitted) = verdict.into_admitted()
    {
        let _ = admitted.identity.check(Side::Seed, keys());
    }
}

/// What a node keeps of its join.
pub fn state(kept: &[u8]) {
    if let Ok(state) = serde_json::from_slice::<crate::JoinState>(kept) {
        let text = serde_json::to_vec(&state).unwrap();
        let again: crate::JoinState = serde_json::from_slice(&text).unwrap();
        assert_eq!(serde_json::to_vec(&again).unwrap(), text);
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

fn node() -> NodeAddr {
    "0.1".parse().unwrap()
}

fn identity(byte: u8) -> NodeIdentity {
    NodeIdentity::from_secret(&Secret::from_bytes([byte; 32]))
}

fn applicants() -> &'static NodeIdentity {
    static IDENTITY: OnceLock<NodeIdentity> = OnceLock::new();
    IDENTITY.get_or_init(|| identity(2))
}

fn entry() -> RosterEntry {
    RosterEntry::new(
        node(),
        "node1".parse().unwrap(),
        Role::Boot,
        identity(1).public(),
        0,
    )
}

fn verifier() -> Verifier {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    let made = || {
        Verifier::new(
            &Password::new("Apples").unwrap(),
            KdfParams::new(8 * 1024, 1, 1).unwrap(),
        )
        .unwrap()
    };
    VERIFIER.get_or_init(made).clone()
}

fn post() -> Post {
    Post {
        membership: Membership::new(
            NodeInfo::new(node(), "node1".parse().unwrap(), Role::Boot),
            identity(1).public(),
            ClusterId::from_bytes([1; 16]),
            ClusterKey::new(1, Secret::from_bytes([2; 32])),
            [entry()].into_iter().collect(),
        ),
        verifier: Some(verifier()),
        gatekeeper: Arc::new(Everybody),
    }
}

/// A new one each time: no guess of an earlier run counts.
fn hall() -> Hall {
    Hall::new(identity(1), post(), Arc::new(Mutex::default()))
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let two = "0.2".parse().unwrap();
        let verifier = verifier();
        let (pake, _) = start_pake(Side::Seed, verifier.hash(), two, node());
        let (_, theirs) = start_pake(Side::Joiner, verifier.hash(), two, node());
        Keys::agree(pake, &theirs, Transcript::default()).unwrap()
    })
}

/// Admits whoever gets this far to an address that is free.
#[derive(Debug)]
struct Everybody;

#[async_trait]
impl Gatekeeper for Everybody {
    async fn admit(&self, applicant: RosterEntry, _replace: bool) -> Result<Roster> {
        if applicant.node == node() {
            return Err(Error::new(ErrorKind::AlreadyExists, "it is taken"));
        }
        Ok([entry(), applicant].into_iter().collect())
    }

    async fn withdraw(&self, _node: NodeAddr, _identity: Identity) -> Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    use super::*;

    #[test]
    fn no_bytes_of_a_stranger_admit_it() {
        hold(seeds("join_stranger"), 2_000, stranger);
    }

    #[test]
    fn no_bytes_of_an_applicant_admit_another() {
        hold(seeds("join_applicant"), 500, applicants_and_seeds);
    }

    #[test]
    fn any_bytes_are_the_state_of_a_join_or_none() {
        hold(seeds("state_files"), 10_000, state);
    }
}
