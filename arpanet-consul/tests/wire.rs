//! What goes over the wire, with answers in the shapes of newer versions (1.20), and from an agent that does what real ones do
//! rarely.

#![allow(clippy::unwrap_used)]

mod scripted;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arpanet_consul::{Consistency, ConsulConfig, ConsulDiscovery, ConsulKeyValue, Token};
use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Secret};
use arpanet_core::discovery::{Health, Instance, MemberState, Selector};
use arpanet_core::kv::{KeyValue, Revision, SessionId};
use arpanet_core::roster::{ClusterId, Identity, Role, Roster};
use arpanet_core::watch::Change;
use arpanet_core::{Discovery, ErrorKind};
use scripted::{Agent, Asked, Reply};
use serde_json::json;

fn membership() -> Membership {
    let name = "banana".parse().unwrap();
    Membership::new(
        NodeInfo::new("0.2".parse().unwrap(), name, Role::Server),
        Identity::from_bytes([2; 32]),
        ClusterId::from_bytes([5; 16]),
        ClusterKey::new(1, Secret::from_bytes([6; 32])),
        Roster::new(),
    )
}

fn config(agent: &Agent) -> ConsulConfig {
    let mut config = ConsulConfig::default().address(agent.address());
    config.confirm_ms = 2_000;
    config.request_ms = 2_000;
    config
}

async fn started(agent: &Agent, config: ConsulConfig) -> ConsulDiscovery {
    agent.knows_a_member("banana", "0.2", "server");
    let discovery = ConsulDiscovery::new(config).unwrap();
    discovery.start(&membership()).await.unwrap();
    discovery
}

#[tokio::test]
async fn a_newer_agent_is_understood() {
    let agent = Agent::start().await;
    let discovery = started(&agent, config(&agent)).await;
    agent.answer("/v1/health/service/web", |_| {
        Reply::index(
            40,
            json!([scripted::entry("banana", "arpanet:w1", "web", "passing")]),
        )
    });
    let found = discovery.lookup(&"web".parse().unwrap()).await.unwrap();
    let [web] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(web.id.as_str(), "w1");
    assert_eq!((web.ip, web.port), ([10, 1, 0, 5].into(), 80));
    assert_eq!(web.net, Some("10.1.0.0/16".parse().unwrap()));
    let members = discovery.members().await.unwrap();
    let [me] = &members[..] else {
        panic!("{members:?}");
    };
    assert_eq!((me.state, me.role), (MemberState::Alive, Role::Server));
    let asked = agent.asked("/v1/health/service/web");
    assert_eq!(
        (asked[0].method.as_str(), asked[0].query.as_str()),
        ("GET", "")
    );
}

#[tokio::test]
async fn consuls_membership_has_its_say_unless_told_otherwise() {
    for (node_health, health) in [(true, Health::Suspended), (false, Health::Passing)] {
        let agent = Agent::start().await;
        let discovery = started(&agent, config(&agent).node_health(node_health)).await;
        agent.answer("/v1/health/service/web", |_| {
            Reply::index(
                40,
                json!([scripted::entry("banana", "arpanet:w1", "web", "critical")]),
            )
        });
        agent.answer("/v1/catalog/services", |_| {
            Reply::index(40, json!({"web": [], "consul": []}))
        });
        let mut watch = discovery.watch(Selector::All).await.unwrap();
        let Some(Change::Snapshot(set)) = watch.next().await else {
            panic!("no snapshot");
        };
        assert_eq!(
            set.values().map(|one| one.health).collect::<Vec<_>>(),
            [health]
        );
    }
}

#[tokio::test]
async fn modes_and_token_are_said_as_consul_has_them() {
    for (mode, query) in [
        (Consistency::Default, ""),
        (Consistency::Consistent, "consistent="),
        (Consistency::Stale, "stale="),
    ] {
        let agent = Agent::start().await;
        let config = config(&agent)
            .consistency(mode)
            .token(Token::new("b1gs33cr3t"));
        let discovery = started(&agent, config).await;
        discovery.lookup(&"web".parse().unwrap()).await.unwrap();
        let asked = agent.asked("/v1/health/service/web");
        assert_eq!(asked[0].query, query);
        assert_eq!(asked[0].token.as_deref(), Some("b1gs33cr3t"));
    }
}

#[tokio::test]
async fn an_index_that_goes_backwards_is_begun_anew_and_none_is_never_waited_for() {
    let agent = Agent::start().await;
    let kv = ConsulKeyValue::new(config(&agent)).unwrap();
    let pair = |value: &str| json!([{"LockIndex": 0, "Key": "a", "Flags": 7, "Value": value, "CreateIndex": 1, "ModifyIndex": 2}]);
    // First 100; then a restored snapshot at 10 with another value; then a broken proxy that says 0.
    agent.answer("/v1/kv/", move |asked| match asked.index() {
        None if asked.times == 1 => Reply::index(100, pair("b25l")),
        Some(100) => Reply::index(10, pair("dHdv")),
        None => Reply::index(0, pair("dGhyZWU=")),
        Some(1) => Reply::never(),
        other => panic!("asked for {other:?}"),
    });
    let mut watch = kv.watch("").await.unwrap();
    let mut values = Vec::new();
    while values.len() < 3 {
        match watch.next().await.unwrap() {
            Change::Snapshot(set) => values.extend(set.into_values().map(|entry| entry.value)),
            Change::Upsert(_, entry) => values.push(entry.value),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(values, ["one", "two", "three"]);
    agent.comes_to_be_asked("/v1/kv/", 4).await;
    let asked = agent.asked("/v1/kv/");
    let indices: Vec<Option<u64>> = asked.iter().map(|asked| asked.index()).collect();
    assert_eq!(indices, [None, Some(100), None, Some(1)]);
    assert!(
        asked[1].query.contains("wait=60000ms"),
        "{}",
        asked[1].query
    );
}

#[tokio::test]
async fn a_watch_is_stale_while_its_query_fails_and_loses_nothing() {
    let agent = Agent::start().await;
    let kv = ConsulKeyValue::new(config(&agent)).unwrap();
    let pair = |value: &str| json!([{"LockIndex": 0, "Key": "a", "Flags": 0, "Value": value, "CreateIndex": 1, "ModifyIndex": 2}]);
    agent.answer("/v1/kv/", move |asked| match asked.times {
        1 => Reply::index(5, pair("b25l")),
        2 | 3 => Reply::error(500, "No cluster leader"),
        4 => Reply::index(9, pair("dHdv")),
        _ => Reply::never(),
    });
    let mut watch = kv.watch("").await.unwrap();
    assert!(matches!(watch.next().await, Some(Change::Snapshot(_))));
    assert_eq!(watch.next().await, Some(Change::Stale));
    assert_eq!(watch.next().await, Some(Change::Fresh));
    assert!(
        matches!(watch.next().await, Some(Change::Upsert(_, entry)) if &entry.value[..] == b"two")
    );
    // After a failure nobody knows where it goes on.
    let indices: Vec<Option<u64>> = agent
        .asked("/v1/kv/")
        .iter()
        .map(|asked| asked.index())
        .collect();
    assert_eq!(indices[..4], [None, Some(5), None, None]);
}

#[tokio::test]
async fn a_watch_hears_that_the_leader_is_lost_while_its_query_hangs() {
    let agent = Agent::start().await;
    let kv = ConsulKeyValue::new(config(&agent)).unwrap();
    agent.answer("/v1/kv/", |asked| match asked.times {
        1 => Reply::index(5, json!([])),
        _ => Reply::never(),
    });
    let mut watch = kv.watch("").await.unwrap();
    watch.next().await;
    agent.comes_to_be_asked("/v1/kv/", 2).await;
    agent.comes_to_be_asked("/v1/status/leader", 1).await;
    agent.answer("/v1/status/leader", |_| Reply::json(json!("")));
    assert_eq!(watch.next().await, Some(Change::Stale));
}

#[tokio::test]
async fn a_swap_is_a_transaction_and_its_refusal_a_conflict() {
    let agent = Agent::start().await;
    let kv = ConsulKeyValue::new(config(&agent)).unwrap();
    agent.answer("/v1/txn", |asked| match &asked.json()[0]["KV"] {
        cas if cas["Verb"] == "cas" && cas["Value"] == "b25l" && cas["Index"] == 7 => Reply::json(json!({
            "Results": [{"KV": {"LockIndex": 0, "Key": "a", "Flags": 1, "Value": null, "Partition": "default", "Namespace": "default", "CreateIndex": 3, "ModifyIndex": 9}}],
            "Errors": null,
        })),
        _ => Reply::error(409, &json!({
            "Results": null,
            "Errors": [{"OpIndex": 0, "What": "failed to set key \"a\", index is stale"}],
        }).to_string()),
    });
    let key = "a".parse().unwrap();
    let swapped = kv
        .compare_and_swap(&key, Some(Revision(7)), "one".into())
        .await;
    assert_eq!(swapped.unwrap(), Revision(9));
    let refused = kv
        .compare_and_swap(&key, Some(Revision(8)), "one".into())
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    // No entry has revision 0, and consul would take it for "no entry".
    let nothing = kv
        .compare_and_swap(&key, Some(Revision(0)), "one".into())
        .await;
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(agent.asked("/v1/txn").len(), 2);
}

#[tokio::test]
async fn a_read_is_tried_again_and_a_write_is_not() {
    let agent = Agent::start().await;
    let kv = ConsulKeyValue::new(config(&agent)).unwrap();
    let key = "a".parse().unwrap();
    agent.answer("/v1/kv/a", |asked| match asked.times {
        1 => Reply::error(500, "rpc error making call: EOF"),
        _ => Reply::missing(12),
    });
    assert_eq!(kv.get(&key).await.unwrap(), None);
    // It may have been made, and a second one would come after what others wrote meanwhile.
    agent.answer("/v1/txn", |_| {
        Reply::error(500, "rpc error making call: EOF")
    });
    let error = kv.put(&key, "one".into()).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(agent.asked("/v1/txn").len(), 1);
}

#[tokio::test]
async fn what_an_agent_did_not_answer_to_it_is_told_again() {
    const ABOUT: &str = "/v1/agent/service/arpanet%3Aw1";
    const OUT: &str = "/v1/agent/service/deregister/arpanet%3Aw1";
    let agent = Agent::start().await;
    let mut config = config(&agent);
    (config.confirm_ms, config.heartbeat_ms) = (500, 1_000);
    let discovery = started(&agent, config).await;
    // Without a leader consul is silent for seconds, also about what it need not ask anybody.
    let is_silent = Arc::new(AtomicBool::new(true));
    for (path, otherwise) in [
        (ABOUT, Reply::error(404, "unknown service ID: arpanet:w1")),
        (OUT, Reply::error(200, "")),
        (
            "/v1/agent/check/update/service:arpanet:w1",
            Reply::error(200, ""),
        ),
    ] {
        let is_silent = Arc::clone(&is_silent);
        agent.answer(path, move |_| {
            if is_silent.load(Relaxed) {
                return Reply::never();
            }
            otherwise.clone()
        });
    }
    let w1 = Instance::new(
        "w1".parse().unwrap(),
        "web".parse().unwrap(),
        [10, 1, 0, 5].into(),
        80,
        "0.2".parse().unwrap(),
    );
    let is_w1 = |asked: &Asked| asked.json()["ID"] == "arpanet:w1";
    let error = discovery.register(w1.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    is_silent.store(false, Relaxed);
    agent
        .comes_to_hear("/v1/agent/service/register", is_w1)
        .await;

    is_silent.store(true, Relaxed);
    let error = discovery.deregister(&w1.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let before = agent.asked(OUT).len();
    is_silent.store(false, Relaxed);
    agent.comes_to_be_asked(OUT, before + 1).await;
}

#[tokio::test]
async fn what_a_dropped_campaign_is_given_is_given_back() {
    let agent = Agent::start().await;
    let kv = ConsulKeyValue::new(config(&agent)).unwrap();
    let pair = |session: &str| json!({"LockIndex": 1, "Key": "arpanet/locks/leader", "Flags": 0, "Value": null, "Session": session, "CreateIndex": 3, "ModifyIndex": 9});
    agent.answer("/v1/kv/arpanet/locks/leader", move |asked| {
        match asked.times {
            1 => Reply::missing(8),
            _ => Reply::index(9, json!([pair("s")])),
        }
    });
    agent.answer("/v1/txn", move |_| {
        Reply::json(json!({"Results": [{"KV": pair("s")}], "Errors": null}))
    });
    let (key, session) = ("leader".parse().unwrap(), SessionId("s".to_owned()));
    let mut campaign = Box::pin(kv.campaign(&key, &session));
    assert!(futures_util::poll!(campaign.as_mut()).is_pending());
    // Consul has it, and whoever asked is gone before it hears of that.
    agent.comes_to_be_asked("/v1/txn", 1).await;
    drop(campaign);
    agent.comes_to_be_asked("/v1/txn", 2).await;
    let verbs = || -> Vec<_> {
        let all = agent.asked("/v1/txn");
        all.iter()
            .map(|one| one.json()[0]["KV"]["Verb"].clone())
            .collect()
    };
    assert_eq!(verbs(), ["lock", "unlock"]);
    // What a session has is told, and stays when that is dropped.
    assert_eq!(kv.campaign(&key, &session).await.unwrap().session, session);
    let mut again = Box::pin(kv.campaign(&key, &session));
    assert!(futures_util::poll!(again.as_mut()).is_pending());
    drop(again);
    assert_eq!(
        kv.try_lock(&key, &session).await.unwrap().unwrap().session,
        session
    );
    assert_eq!(verbs(), ["lock", "unlock", "lock"]);
}

#[tokio::test]
async fn a_consul_that_lies_is_not_believed() {
    let agent = Agent::start().await;
    let kv = ConsulKeyValue::new(config(&agent)).unwrap();
    let pair = |key: &str, revision: u64| json!({"LockIndex": u64::MAX, "Key": key, "Flags": 0, "Value": null, "Session": "other", "CreateIndex": 3, "ModifyIndex": revision});
    let (key, session) = ("a".parse().unwrap(), SessionId("mine".to_owned()));
    // Another entry than was asked for, one of no revision, and a lock that was given to somebody else.
    agent.answer("/v1/kv/a", move |asked| match asked.times {
        1 => Reply::json(json!([pair("b", 9)])),
        _ => Reply::json(json!([pair("a", 0)])),
    });
    assert_eq!(kv.get(&key).await.unwrap(), None);
    let error = kv.get(&key).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    agent.answer("/v1/kv/a/", |_| Reply::json(json!(["b", "a/c"])));
    assert_eq!(kv.list("a/").await.unwrap(), ["a/c".parse().unwrap()]);
    agent.answer("/v1/txn", move |_| {
        Reply::json(json!({"Results": [{"KV": pair("arpanet/locks/a", 9)}], "Errors": null}))
    });
    let error = kv.try_lock(&key, &session).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    // Its words end up on a terminal.
    agent.answer("/v1/txn", |_| {
        let words = format!("\u{1b}[2J{}", "x".repeat(10_000));
        Reply::error(409, &json!({"Errors": [{"What": words}]}).to_string())
    });
    let error = kv.put(&key, "one".into()).await.unwrap_err().to_string();
    assert!(error.len() < 500 && !error.contains('\u{1b}'), "{error}");
}

#[tokio::test]
async fn errors_of_newer_versions_have_their_kinds() {
    let lacks = "Permission denied: token with AccessorID '00000000-0000-0000-0000-000000000002' lacks permission 'key:read' on \"a\"";
    for (status, body, kind) in [
        (403, lacks, ErrorKind::PermissionDenied),
        (403, "ACL not found", ErrorKind::Unauthenticated),
        (
            429,
            "Your request has been rate limited",
            ErrorKind::Unavailable,
        ),
        (503, "Service Unavailable", ErrorKind::Unavailable),
        (500, "No cluster leader", ErrorKind::Unavailable),
        (200, "<html>a proxy</html>", ErrorKind::Incompatible),
    ] {
        let agent = Agent::start().await;
        agent.answer("/v1/kv/a", move |_| Reply::error(status, body));
        let kv = ConsulKeyValue::new(config(&agent)).unwrap();
        let error = kv.get(&"a".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.backend_name(), Some("consul"));
        assert_eq!(error.operation_name(), Some("get"));
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout_or_no_leader() {
    for (leader, kind) in [
        ("10.253.0.1:8300", ErrorKind::Timeout),
        ("", ErrorKind::Unavailable),
    ] {
        let agent = Agent::start().await;
        agent.answer("/v1/kv/a", |_| Reply::never());
        agent.answer("/v1/status/leader", move |_| Reply::json(json!(leader)));
        let kv = ConsulKeyValue::new(config(&agent)).unwrap();
        let key = "a".parse().unwrap();
        let asked = kv.get(&key);
        let error = tokio::time::timeout(Duration::from_secs(30), asked)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}
