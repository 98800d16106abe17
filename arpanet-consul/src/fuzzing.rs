//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

mod speech;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Secret};
use arpanet_core::conformance::bytes::Draw;
use arpanet_core::discovery::{Discovery, Health, Instance, Selector};
use arpanet_core::kv::{Entry, Held, Key, KeyValue, Revision, SessionId};
use arpanet_core::roster::{ClusterId, Identity, Role};
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{Error, NodeAddr, ServiceName};
use bytes::Bytes;

use crate::client::Client;
use crate::registry::Registry;
use crate::{ConsulConfig, ConsulDiscovery, ConsulKeyValue};

/// What is asked has an end by then.
const END: Duration = Duration::from_secs(600);
/// How long, and how often, what is watched is waited for.
const NEXT: (Duration, usize) = (Duration::from_secs(5), 8);
/// Longer than what goes into a transaction.
const LONG: usize = 400 * 1024;
/// The longest of consul's words that are told on, with what is around them.
const WORDS: usize = 600;

/// Asks one thing of a consul that answers any bytes as HTTP, mostly such as answer what is asked. What comes of it holds the
/// rules of what was asked, or is an error with consul's words in bounds.
pub fn answers(bytes: &[u8]) {
    let mut said = Draw::new(bytes);
    let asked = said.byte();
    let mut answers = Vec::new();
    while !said.is_done() {
        answers.push(speech::answer(&mut said));
    }
    // On a paused clock what is waited for takes no time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(ask(asked, answers));
}

async fn ask(asked: u8, answers: Vec<Vec<u8>>) {
    let config = ConsulConfig::default();
    let mut client = Client::new(&config).unwrap();
    client.transport = client.transport.told(answers);
    let asking = async {
        match asked % 20 {
            asked @ 0..=11 => of_key_value(asked, ConsulKeyValue::over(client, &config)).await,
            asked => of_discovery(asked, client, config).await,
        }
    };
    if let Err(error) = tokio::time::timeout(END, asking).await.unwrap() {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            let told = error.to_string();
            assert!(told.chars().count() <= WORDS, "{told:?}");
            assert!(!told.contains(char::is_control), "{told:?}");
            cause = error.source();
        }
    }
}

async fn of_key_value(asked: u8, store: ConsulKeyValue) -> Result<(), Error> {
    let key: Key = "a/b".parse().unwrap();
    let session = SessionId("mine".to_owned());
    match asked {
        0 => is_entry(store.get(&key).await?.as_ref()),
        1 => is_revision(store.put(&key, Bytes::from_static(b"value")).await?),
        2 => is_revision(store.put(&key, vec![7; LONG].into()).await?),
        3 => {
            let expected = Some(Revision(3));
            let value = Bytes::from_static(b"value");
            is_revision(store.compare_and_swap(&key, expected, value).await?);
        }
        4 => store.delete(&key).await?,
        5 => {
            let keys = store.list("a/").await?;
            assert!(keys.is_sorted());
            assert!(keys.iter().all(|key| key.as_str().starts_with("a/")));
        }
        6 => {
            let watch = store.watch("a/").await?;
            follow(watch, |key, entry| {
                assert!(key.as_str().starts_with("a/"));
                is_entry(Some(entry));
            })
            .await;
        }
        7 => assert_ne!(store.open_session(NEXT.0).await?.0, ""),
        8 => store.renew_session(&session).await?,
        9 => {
            let held = store.try_lock(&key, &session).await?;
            assert!(held.is_none_or(|held| held.key == key && held.session == session));
        }
        10 => {
            store.unlock(&key, &session).await?;
            if let Some(Held { session, .. }) = store.holder(&key).await? {
                assert_ne!(session.0, "");
            }
        }
        _ => {
            let held = store.campaign(&key, &session).await?;
            assert!(held.key == key && held.session == session);
        }
    }
    Ok(())
}

fn is_entry(entry: Option<&Entry>) {
    if let Some(entry) = entry {
        is_revision(entry.revision);
    }
}

/// That of no entry is none.
fn is_revision(revision: Revision) {
    assert_ne!(revision, Revision(0));
}

async fn of_discovery(asked: u8, client: Client, config: ConsulConfig) -> Result<(), Error> {
    let web: ServiceName = "web".parse().unwrap();
    let discovery = discovery(client, config);
    let me = node(1);
    match asked {
        12 => {
            let found = discovery.lookup(&web).await?;
            let ids: BTreeSet<_> = found.iter().map(|instance| &instance.id).collect();
            assert_eq!(ids.len(), found.len());
            for instance in &found {
                assert_eq!(instance.service, web);
                assert_eq!(instance.health, Health::Passing);
            }
        }
        13 => {
            for summary in discovery.services().await? {
                assert!(summary.passing <= summary.total && summary.total > 0);
                assert!(!crate::translate::is_reserved(summary.service.as_str()));
            }
        }
        14 => {
            let members = discovery.members().await?;
            let nodes: BTreeSet<_> = members.iter().map(|member| member.node).collect();
            assert_eq!(nodes.len(), members.len());
        }
        15 => {
            let watch = discovery.watch(Selector::Service(web.clone())).await?;
            follow(watch, |id, instance| {
                assert!(*id == instance.id && instance.service == web);
            })
            .await;
        }
        16 => {
            let watch = discovery.watch(Selector::All).await?;
            follow(watch, |id, instance| assert_eq!(*id, instance.id)).await;
        }
        17 => {
            let watch = discovery.watch_members().await?;
            follow(watch, |node, member| assert_eq!(*node, member.node)).await;
        }
        18 => discovery.forget(node(2)).await?,
        _ => {
            let id = "0.1:web".parse().unwrap();
            let instance = Instance::new(id, web, me.overlay(), 80, me);
            discovery.register(instance.clone()).await?;
            discovery.deregister(&instance.id).await?;
        }
    }
    Ok(())
}

fn node(index: u16) -> NodeAddr {
    NodeAddr::from_index(index).unwrap()
}

fn discovery(client: Client, config: ConsulConfig) -> ConsulDiscovery {
    let me = NodeInfo::new(node(1), "node1".parse().unwrap(), Role::Boot);
    let membership = Membership::new(
        me.clone(),
        Identity::from_bytes([1; 32]),
        ClusterId::from_bytes([1; 16]),
        ClusterKey::new(1, Secret::from_bytes([2; 32])),
        std::iter::empty().collect(),
    );
    let registry = Registry::new(client.clone(), me, "node1".to_owned(), NEXT.0, NEXT.0);
    let discovery = ConsulDiscovery::over(client, config);
    discovery.begin(&membership, registry);
    discovery
}

/// What a watch tells, for a while.
async fn follow<K, V>(mut watch: Watch<K, V>, look: impl Fn(&K, &V))
where
    K: Ord + Clone + Debug,
    V: Clone + PartialEq + Debug,
{
    let (patience, times) = NEXT;
    for _ in 0..times {
        match tokio::time::timeout(patience, watch.next()).await {
            Ok(Some(Change::Snapshot(set))) => set.iter().for_each(|(key, value)| look(key, value)),
            Ok(Some(Change::Upsert(key, value))) => look(&key, &value),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    #[test]
    fn whatever_a_consul_answers_is_an_error_or_holds_the_rules() {
        hold(seeds("consul_answers"), 1_000, super::answers);
    }
}
