//! `GossipDiscovery` as its callers see it, over UDP on loopback.

#![allow(clippy::unwrap_used)]

mod loopback;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::discovery::{Discovery, Health, MemberState, Selector, Spread};
use arpanet_core::roster::Roster;
use arpanet_core::watch::Change;
use arpanet_core::{ErrorKind, Tag};
use arpanet_gossip::{GossipConfig, GossipDiscovery, UdpDatagrams};
use bytes::Bytes;

use self::loopback::{Node, addr, entry, secret, service, three, within};

#[tokio::test]
async fn what_one_registers_all_find() {
    let [one, two, three] = three().await;
    let tag: Tag = "blue".parse().unwrap();
    let net = Some("10.1.0.0/16".parse().unwrap());
    let web = two.instance("w1", "web").tagged([tag]).in_net(net);
    let spread = two.discovery.register(web.clone()).await.unwrap();
    assert_eq!(spread, Spread::default());
    for node in [&one, &two, &three] {
        let found = node.discovery.lookup(&service("web")).await.unwrap();
        assert_eq!(found, std::slice::from_ref(&web));
        let services = node.discovery.services().await.unwrap();
        assert_eq!(services.len(), 1);
        assert_eq!((services[0].passing, services[0].total), (1, 1));
    }

    // The same again, another health under the same id, and away with it.
    two.discovery.register(web.clone()).await.unwrap();
    let critical = web.health(Health::Critical);
    two.discovery.register(critical).await.unwrap();
    assert!(one.ids("web").await.is_empty());
    assert_eq!(one.discovery.services().await.unwrap()[0].total, 1);
    let id = "w1".parse().unwrap();
    two.discovery.deregister(&id).await.unwrap();
    two.discovery.deregister(&id).await.unwrap();
    assert!(three.discovery.services().await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_registers_for_another_node() {
    let node = Node::new(1);
    node.start(&Roster::from_iter([node.entry()])).await;
    let other = Node::new(2).instance("w1", "web");
    let error = node.discovery.register(other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.operation_name(), Some("register"));
    assert_eq!(error.backend_name(), Some("gossip"));
}

#[tokio::test]
async fn a_watch_tells_the_whole_and_then_what_changes() {
    let [one, two, _three] = three().await;
    let web = two.instance("w1", "web");
    two.discovery.register(web.clone()).await.unwrap();
    let selector = Selector::Service(service("web"));
    let mut watch = one.discovery.watch(selector).await.unwrap();
    let snapshot = [(web.id.clone(), web.clone())].into();
    assert_eq!(watch.next().await, Some(Change::Snapshot(snapshot)));

    let other = two.instance("d1", "database");
    two.discovery.register(other).await.unwrap();
    let second = two.instance("w2", "web");
    two.discovery.register(second.clone()).await.unwrap();
    let change = within("told", watch.next()).await;
    assert_eq!(change, Some(Change::Upsert(second.id.clone(), second)));
    two.discovery.deregister(&web.id).await.unwrap();
    let change = within("told", watch.next()).await;
    assert_eq!(change, Some(Change::Removed(web.id)));
    assert_eq!(watch.try_next(), None);
}

#[tokio::test]
async fn records_travel_with_their_owner_and_by_prefix() {
    let [one, _two, three] = three().await;
    let value = Bytes::from(vec![7; 16 * 1024]);
    let spread = three.discovery.publish("claim/10.1.0.5", value.clone());
    assert_eq!(spread.await.unwrap(), Spread::default());
    three
        .discovery
        .publish("node", value.clone())
        .await
        .unwrap();
    let mut watch = one.discovery.watch_records("claim/").await.unwrap();
    let Some(Change::Snapshot(snapshot)) = watch.next().await else {
        panic!("not a snapshot first");
    };
    let key = (addr(3), "claim/10.1.0.5".to_owned());
    assert_eq!(snapshot.keys().collect::<Vec<_>>(), [&key]);
    assert_eq!(snapshot[&key].value, value);
    three.discovery.retract("claim/10.1.0.5").await.unwrap();
    three.discovery.retract("claim/10.1.0.5").await.unwrap();
    let change = within("told", watch.next()).await;
    assert_eq!(change, Some(Change::Removed(key)));

    let long = Bytes::from(vec![7; 16 * 1024 + 1]);
    let refused = [
        one.discovery.publish("long", long).await,
        one.discovery.publish("", Bytes::new()).await,
        one.discovery.publish("a//b", Bytes::new()).await,
        one.discovery.publish("two words", Bytes::new()).await,
        one.discovery.publish(&"k".repeat(129), Bytes::new()).await,
    ];
    for error in refused.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    // It was never said.
    one.discovery.retract("two words").await.unwrap();
}

#[tokio::test]
async fn a_silent_node_is_suspended_and_back_as_it_was() {
    let [one, two, three] = three().await;
    let web = two.instance("w1", "web");
    two.discovery.register(web.clone()).await.unwrap();
    let said = Bytes::from_static(b"said");
    two.discovery.publish("node", said).await.unwrap();
    two.discovery.stop().await.unwrap();
    two.discovery.stop().await.unwrap();
    for node in [&one, &three] {
        node.until_instances("suspended", |seen| {
            seen.get(&web.id)
                .is_some_and(|instance| instance.health == Health::Suspended)
        })
        .await;
        node.until_members("down", |members| {
            members[&addr(2)].state == MemberState::Down && !members[&addr(2)].reachable
        })
        .await;
        node.until_records("suspended", |records| {
            records[&(addr(2), "node".to_owned())].suspended
        })
        .await;
        assert!(node.ids("web").await.is_empty());
    }

    let roster = one.discovery.roster().await.unwrap();
    two.start(&roster).await;
    // Its own catalogue was filled before it returned.
    assert_eq!(two.discovery.members().await.unwrap().len(), 3);
    two.discovery.register(web.clone()).await.unwrap();
    for node in [&one, &three] {
        node.until_instances("back", |seen| seen.get(&web.id) == Some(&web))
            .await;
    }
    // What it did not say again goes after a while.
    one.until_records("gone", |records| {
        !records.contains_key(&(addr(2), "node".to_owned()))
    })
    .await;
    assert_eq!(one.ids("web").await, ["w1"]);
}

#[tokio::test]
async fn who_leaves_is_gone_at_once_and_may_return() {
    let [one, two, three] = three().await;
    let web = two.instance("w1", "web");
    two.discovery.register(web.clone()).await.unwrap();
    two.discovery.publish("node", Bytes::new()).await.unwrap();
    let limit = Duration::from_secs(5);
    within("left", two.discovery.leave(limit)).await.unwrap();
    two.discovery.leave(limit).await.unwrap();
    for node in [&one, &three] {
        node.until_instances("gone", |seen| seen.is_empty()).await;
        node.until_records("gone", |seen| seen.is_empty()).await;
        node.until_members("gone", |seen| !seen.contains_key(&addr(2)))
            .await;
    }
    let roster = one.discovery.roster().await.unwrap();
    assert!(
        roster.holder(addr(2)).is_some(),
        "the address stays its own"
    );
    two.start(&roster).await;
    two.discovery.register(web).await.unwrap();
    three
        .until_members("back", |seen| {
            seen.get(&addr(2))
                .is_some_and(|member| member.state == MemberState::Alive)
        })
        .await;
    assert_eq!(three.ids("web").await, ["w1"]);
}

#[tokio::test]
async fn calls_before_start_and_after_stop_say_unavailable_and_watches_end() {
    let node = Node::new(1);
    let discovery = &node.discovery;
    let unavailable = |what: &'static str, error: arpanet_core::Error| {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
    };
    discovery.stop().await.unwrap();
    discovery.leave(Duration::from_secs(1)).await.unwrap();
    let mut watches = None;
    for round in ["before", "after"] {
        let web = node.instance("w1", "web");
        unavailable(round, discovery.register(web.clone()).await.unwrap_err());
        unavailable(round, discovery.deregister(&web.id).await.unwrap_err());
        unavailable(round, discovery.lookup(&web.service).await.unwrap_err());
        unavailable(round, discovery.services().await.unwrap_err());
        unavailable(round, discovery.members().await.unwrap_err());
        unavailable(round, discovery.watch(Selector::All).await.unwrap_err());
        unavailable(round, discovery.watch_members().await.unwrap_err());
        unavailable(round, discovery.watch_records("").await.unwrap_err());
        unavailable(round, discovery.roster().await.unwrap_err());
        unavailable(round, discovery.forget(addr(2)).await.unwrap_err());
        unavailable(round, discovery.admit(node.entry()).await.unwrap_err());
        unavailable(round, discovery.retract("node").await.unwrap_err());
        let said = discovery.publish("node", Bytes::new()).await;
        unavailable(round, said.unwrap_err());
        if round == "after" {
            break;
        }
        let roster = Roster::from_iter([node.entry()]);
        node.start(&roster).await;
        node.start(&roster).await;
        discovery.register(web).await.unwrap();
        watches = Some((
            discovery.watch(Selector::All).await.unwrap(),
            discovery.watch_members().await.unwrap(),
        ));
        discovery.stop().await.unwrap();
    }
    let (mut instances, mut members) = watches.unwrap();
    let ended = async {
        while instances.next().await.is_some() {}
        while members.next().await.is_some() {}
    };
    within("the watches end", ended).await;
}

#[tokio::test]
async fn a_start_that_was_dropped_is_finished_by_the_next() {
    let node = Node::new(1);
    // Somebody in the roster who does not answer: the start waits for him.
    let silent = UdpDatagrams::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let roster = Roster::from_iter([node.entry(), entry(2, silent.local_addr().unwrap())]);
    let membership = node.membership(roster.clone());
    let dropped =
        tokio::time::timeout(Duration::from_millis(50), node.discovery.start(&membership));
    assert!(dropped.await.is_err(), "it did not wait for anybody");
    let error = node.discovery.members().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    node.start(&roster).await;
    let members = node.discovery.members().await.unwrap();
    assert_eq!(members.len(), 2);
    assert_eq!(members[1].state, MemberState::Down);
}

#[tokio::test]
async fn a_key_of_another_identity_is_refused() {
    let transport = UdpDatagrams::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let node = Node::new(1);
    let wrong =
        GossipDiscovery::new(GossipConfig::default(), secret(9), Arc::new(transport)).unwrap();
    let membership = node.membership(Roster::from_iter([node.entry()]));
    let error = wrong.start(&membership).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!format!("{wrong:?}").contains("9, 9"), "{wrong:?}");
}
