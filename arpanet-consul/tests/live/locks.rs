//! The key-value store when much happens at once.

use std::time::Duration;

use arpanet_core::kv::{Held, Key, KeyValue};
use arpanet_core::{Error, ErrorKind};
use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use crate::consuls::{LIMIT, Site, until_ok};
use crate::{consuls, require_consul, store};

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_writers_on_one_key_lose_nothing() {
    require_consul!();
    const WRITERS: usize = 100;
    let site = Site::servers(3).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let kv = store(&site, writer % 3);
        writers.spawn(async move {
            let counter = key("counter");
            loop {
                let entry = kv.get(&counter).await.unwrap();
                let count: usize = entry.as_ref().map_or(0, |entry| {
                    String::from_utf8_lossy(&entry.value).parse().unwrap()
                });
                let revision = entry.map(|entry| entry.revision);
                let next = Bytes::from((count + 1).to_string());
                match kv.compare_and_swap(&counter, revision, next).await {
                    Ok(_) => return,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                }
            }
        });
    }
    let written = tokio::time::timeout(LIMIT, writers.join_all()).await;
    assert!(written.is_ok(), "they hinder each other for ever");
    let entry = store(&site, 2).get(&key("counter")).await.unwrap().unwrap();
    assert_eq!(&entry.value[..], WRITERS.to_string().as_bytes());
}

/// Has somebody wait for the lock, through whatever happens to consul meanwhile.
async fn campaign(kv: impl KeyValue, key: Key, ttl: Duration) -> Held {
    loop {
        let Ok(session) = kv.open_session(ttl).await else {
            continue;
        };
        let held = {
            let renewing = async {
                loop {
                    tokio::time::sleep(ttl / 4).await;
                    let _ = kv.renew_session(&session).await;
                }
            };
            tokio::select! {
                held = kv.campaign(&key, &session) => held,
                () = renewing => continue,
            }
        };
        match held {
            Ok(held) => return held,
            // The session ended with its leader, or there is no leader.
            Err(error) => assert!(is_passing(&error), "{error}"),
        }
    }
}

fn is_passing(error: &Error) -> bool {
    error.is_retryable() || error.kind() == ErrorKind::NotFound
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_has_one_holder_through_the_death_of_a_leader_until_its_holder_dies() {
    require_consul!();
    let site = Site::with(3, 2, json!({})).await;
    let (lock, ttl) = (key("scheduler"), Duration::from_secs(8));
    let holder = store(&site, 3);
    let session = holder.open_session(ttl).await.unwrap();
    let held = holder.campaign(&lock, &session).await.unwrap();
    let mut other = tokio::spawn(campaign(store(&site, 4), lock.clone(), ttl));

    site.agents[site.leader().await].kill();
    // It renews, and so holds on, for longer than its time.
    let end = tokio::time::Instant::now() + ttl * 3 / 2;
    let mut renewed = 0;
    while tokio::time::Instant::now() < end {
        match holder.renew_session(&session).await {
            Ok(()) => renewed += 1,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        let changed = tokio::time::timeout(ttl / 8, &mut other).await;
        assert!(changed.is_err(), "two hold it: {held:?} and {changed:?}");
    }
    assert!(renewed > 0);
    let now = holder.holder(&lock).await.unwrap();
    assert_eq!(now.as_ref(), Some(&held));

    site.agents[3].kill();
    let elected = tokio::time::timeout(LIMIT, other).await.unwrap().unwrap();
    assert!(elected.fencing > held.fencing, "{held:?}, then {elected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_outlives_the_death_of_all_at_once() {
    require_consul!();
    let site = Site::servers(3).await;
    let kv = store(&site, 0);
    let mut written = Vec::new();
    for number in 0..20 {
        let (key, value) = (
            key(&format!("paas/{number}")),
            Bytes::from(number.to_string()),
        );
        let revision = kv.put(&key, value.clone()).await.unwrap();
        written.push((key, value, revision));
    }
    for agent in &site.agents {
        agent.kill();
    }
    let error = kv.get(&key("paas/0")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for agent in &site.agents {
        agent.launch();
    }
    site.join().await;
    site.ready().await;
    site.leader().await;
    for node in 0..3 {
        let kv = store(&site, node);
        for (key, value, revision) in &written {
            let entry = until_ok("the store answers", async || kv.get(key).await.ok()).await;
            let entry = entry.unwrap();
            assert_eq!((&entry.value, entry.revision), (value, *revision));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_value_and_a_key_deleted_by_hand_keep_their_numbers_growing() {
    require_consul!();
    let site = Site::servers(1).await;
    let kv = store(&site, 0);
    // Over what consul takes in a transaction, where the plain request does not answer with the revision.
    let (long, value) = (key("long"), Bytes::from(vec![7; 500 * 1024]));
    let first = kv.put(&long, value.clone()).await.unwrap();
    assert_eq!(kv.get(&long).await.unwrap().unwrap().revision, first);
    let stale = kv.compare_and_swap(&long, None, value.clone()).await;
    assert_eq!(stale.unwrap_err().kind(), ErrorKind::Conflict);
    let second = kv
        .compare_and_swap(&long, Some(first), value)
        .await
        .unwrap();
    assert!(second > first);

    let lock = key("lock");
    let session = kv.open_session(LIMIT).await.unwrap();
    let mut last = 0;
    for _ in 0..3 {
        for _ in 0..4 {
            let held = kv.try_lock(&lock, &session).await.unwrap().unwrap();
            assert!(held.fencing > last, "{} after {last}", held.fencing);
            last = held.fencing;
            kv.unlock(&lock, &session).await.unwrap();
        }
        site.agents[0]
            .ask("DELETE", "/v1/kv/arpanet/locks/lock", "")
            .unwrap();
    }
}
