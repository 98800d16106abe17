//! Who gets into the cluster, who gets out, and what is kept between starts; over UDP on loopback.

#![allow(clippy::unwrap_used)]

mod loopback;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use arpanet_core::ErrorKind;
use arpanet_core::discovery::{Discovery, MemberState};
use arpanet_core::roster::Roster;

use self::loopback::{Node, addr, entry, three, within};

#[tokio::test]
async fn one_by_one_they_are_admitted_and_know_each_other() {
    let nodes = [Node::new(1), Node::new(2), Node::new(3)];
    nodes[0].start(&Roster::from_iter([nodes[0].entry()])).await;
    for node in &nodes[1..] {
        let seed = &nodes[0].discovery;
        seed.admit(node.entry()).await.unwrap();
        seed.admit(node.entry()).await.unwrap();
        node.start(&seed.roster().await.unwrap()).await;
        node.until_members("met", |members| {
            members[&addr(1)].state == MemberState::Alive
        })
        .await;
    }
    let roster = nodes[0].discovery.roster().await.unwrap();
    for node in &nodes {
        node.until_members("all alive", |members| {
            members.len() == 3
                && members
                    .values()
                    .all(|member| member.state == MemberState::Alive && member.reachable)
        })
        .await;
        assert_eq!(node.discovery.roster().await.unwrap(), roster);
    }
}

#[tokio::test]
async fn a_taken_address_or_name_is_refused_with_who_has_it() {
    let [one, two, three] = three().await;
    let at = (Ipv4Addr::LOCALHOST, 9).into();
    let mut stranger = entry(9, at);
    stranger.node = addr(2);
    let error = one.discovery.admit(stranger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("node2"), "{error}");
    let mut stranger = entry(9, at);
    stranger.name = "node3".parse().unwrap();
    let error = two.discovery.admit(stranger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("0.3"), "{error}");
    // A client admits nobody.
    let error = three.discovery.admit(entry(9, at)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(one.discovery.roster().await.unwrap().holders().count(), 3);
}

#[tokio::test]
async fn two_seeds_never_give_one_address_to_two() {
    let [one, two, _three] = three().await;
    let at = (Ipv4Addr::LOCALHOST, 9).into();
    let mut rivals = [entry(8, at), entry(9, at)];
    rivals.iter_mut().for_each(|rival| rival.node = addr(7));
    let [first, second] = rivals.clone();
    let (first, second) = tokio::join!(one.discovery.admit(first), two.discovery.admit(second));
    // Both may lose, but both can't win.
    assert!(first.is_err() || second.is_err());
    for error in [first.err(), second.err()].into_iter().flatten() {
        assert!(
            matches!(error.kind(), ErrorKind::Conflict | ErrorKind::AlreadyExists),
            "{error}"
        );
    }
    let rosters = [
        one.discovery.roster().await.unwrap(),
        two.discovery.roster().await.unwrap(),
    ];
    assert_eq!(rosters[0].holder(addr(7)), rosters[1].holder(addr(7)));
}

#[tokio::test]
async fn only_the_dead_are_forgotten_and_they_stay_out() {
    let [one, two, three] = three().await;
    let web = three.instance("w1", "web");
    three.discovery.register(web).await.unwrap();
    let error = one.discovery.forget(addr(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = one.discovery.forget(addr(77)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    three.discovery.stop().await.unwrap();
    one.until_members("down", |members| {
        members[&addr(3)].state == MemberState::Down
    })
    .await;
    one.discovery.forget(addr(3)).await.unwrap();
    one.discovery.forget(addr(3)).await.unwrap();
    for node in [&one, &two] {
        node.until_members("gone", |members| !members.contains_key(&addr(3)))
            .await;
        node.until_instances("gone", |seen| seen.is_empty()).await;
    }
    // It comes back with what it knows: nobody lets it, and it is told why.
    let before: Roster = [&one, &two, &three].map(Node::entry).into_iter().collect();
    let membership = three.membership(before);
    let refused = async {
        match three.discovery.start(&membership).await {
            Err(error) => error,
            Ok(()) => loop {
                if let Err(error) = three.discovery.members().await {
                    return error;
                }
                tokio::task::yield_now().await;
            },
        }
    };
    let error = within("refused", refused).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert_eq!(one.discovery.members().await.unwrap().len(), 2);

    // Its address is free for another.
    let other = Node::new(9);
    let mut entry = other.entry();
    entry.node = addr(3);
    entry.generation = 3;
    one.discovery.admit(entry.clone()).await.unwrap();
    let roster = two.discovery.roster().await.unwrap();
    assert_eq!(roster.holder(addr(3)), Some(&entry));
}

#[tokio::test]
async fn a_node_that_forgets_itself_leaves_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gossip.json");
    let [one, two, _three] = three().await;
    let leaver = Node::at(4, (Ipv4Addr::LOCALHOST, 0).into(), Some(&file));
    one.discovery.admit(leaver.entry()).await.unwrap();
    leaver.start(&one.discovery.roster().await.unwrap()).await;
    leaver
        .discovery
        .register(leaver.instance("w1", "web"))
        .await
        .unwrap();
    two.until_instances("there", |seen| !seen.is_empty()).await;
    leaver.discovery.forget(addr(4)).await.unwrap();
    leaver.discovery.forget(addr(4)).await.unwrap();
    leaver
        .discovery
        .leave(Duration::from_secs(2))
        .await
        .unwrap();
    for node in [&one, &two] {
        node.until_members("gone", |members| !members.contains_key(&addr(4)))
            .await;
        node.until_instances("gone", |seen| seen.is_empty()).await;
        let roster = node.discovery.roster().await.unwrap();
        assert!(roster.entry(addr(4)).unwrap().forgotten);
    }
    assert!(!file.exists());
}

#[tokio::test]
async fn what_is_kept_brings_a_node_back_to_those_who_have_moved() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state/gossip.json");
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let one = Node::new(1);
    let two = Node::at(2, any, Some(&file));
    let before: Roster = [&one, &two].map(Node::entry).into_iter().collect();
    one.start(&before).await;
    two.start(&before).await;
    two.until_members("met", |members| {
        members[&addr(1)].state == MemberState::Alive
    })
    .await;

    // Node 1 goes on elsewhere; node 2 hears of it, and is stopped.
    one.discovery.stop().await.unwrap();
    drop(one);
    let moved = Node::new(1);
    let at = moved.at;
    moved.start(&before).await;
    two.until_members("moved", |members| {
        let member = &members[&addr(1)];
        member.state == MemberState::Alive && member.endpoint == Some(at)
    })
    .await;
    two.discovery.stop().await.unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    moved
        .until_members("down", |members| {
            members[&addr(2)].state == MemberState::Down
        })
        .await;

    // Both have new endpoints now: only the kept one leads from the one to the other.
    let (port, again) = (two.at, two);
    drop(again);
    let again = Node::at(2, any, Some(&file));
    assert_ne!(again.at, port);
    again.start(&before).await;
    let members = again.discovery.members().await.unwrap();
    assert_eq!(members[0].endpoint, Some(at));
    moved
        .until_members("back", |members| {
            members[&addr(2)].state == MemberState::Alive
        })
        .await;
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_one_that_can_not_be_written_is_not_fatal() {
    let folder = tempfile::tempdir().unwrap();
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let damaged = folder.path().join("damaged.json");
    std::fs::write(&damaged, b"{\"layout\":1").unwrap();
    let node = Node::at(1, any, Some(&damaged));
    let membership = node.membership(Roster::from_iter([node.entry()]));
    let error = node.discovery.start(&membership).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("damaged.json"), "{error}");
    assert_eq!(std::fs::read(&damaged).unwrap(), b"{\"layout\":1");
    let error = node.discovery.members().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    // A folder that can't be made stands for a disk that is full.
    let nowhere = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("not/there"), &nowhere).unwrap();
    let node = Node::at(1, any, Some(&nowhere.join("gossip.json")));
    node.start(&Roster::from_iter([node.entry()])).await;
    let web = node.instance("w1", "web");
    node.discovery.register(web).await.unwrap();
    assert_eq!(node.ids("web").await, ["w1"]);
    node.discovery.stop().await.unwrap();
}
