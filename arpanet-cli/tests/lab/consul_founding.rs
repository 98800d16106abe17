//! One consul cluster, whatever becomes of the node that founded it; and how many servers it is to have.

use std::time::Duration;

use crate::consul::{raft, three_servers, three_votes};
use crate::site::{SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_boot_node_that_lost_everything_rejoins_and_what_it_founds_meanwhile_never_merges() {
    let Some(site) = three_servers().await else {
        return;
    };
    three_votes(&site);
    site.lab.kill("node1").await.unwrap();
    site.lab.start("node1").await.unwrap();
    let wiped = site.run("node1", "rm -r /var/lib/arpanet2");
    assert_eq!(wiped.code, Some(0), "{wiped:?}");

    // While others take it for their own, it is told how to come back.
    let refused = site.arpanet2("node1", "boot 0.1 Apples");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for word in [
        "takes this host for a member of its cluster",
        "hint: ",
        "--replace",
    ] {
        assert!(refused.err.contains(word), "{word}: {refused:?}");
    }

    // Cut off, it can't know.
    site.lab.cut("node1", None).await.unwrap();
    site.ok("node1", "boot 0.1 Apples");
    let empty = site.arpanet2("node1", "kv get paas/web");
    assert_eq!(empty.code, Some(1), "{empty:?}");
    site.ok("node1", "kv put paas/web other");
    site.lab.heal(None).await.unwrap();
    until(
        "it is named",
        LIMIT,
        || site.log("node1"),
        |log| log.contains("two clusters never merge"),
    );
    // Neither gossip nor consul's own servers come together.
    let members = site.ok("node1", "consul -- members");
    assert_eq!(members.lines().skip(1).count(), 1, "{members}");
    assert_eq!(raft(&site, "node1"), (Some("node1".to_owned()), 1));
    assert_eq!(site.ok("node1", "kv get paas/web"), "other");
    let value = || site.arpanet2("node2", "kv get paas/web").out;
    until("the others go on", LIMIT, value, |value| value == "one");

    site.ok("node1", "reset");
    site.ok("node1", "server 0.1 Apples 0.2 192.168.8.121 --replace");
    assert_eq!(site.ok("node1", "kv get paas/web"), "one");
    let seen = || ["node1", "node2", "node3"].map(|host| raft(&site, host));
    until("one leader of three", LIMIT, seen, |seen| {
        let [(first, _), ..] = seen;
        let agree = |(leader, peers): &(Option<String>, usize)| leader == first && *peers == 3;
        first.is_some() && seen.iter().all(agree)
    });
}

#[tokio::test]
async fn fewer_than_three_servers_and_even_numbers_are_warned_of() {
    let Some(site) = Site::up_with_consul(4).await else {
        return;
    };
    let advice = || site.status("node1")["advice"].clone();
    site.ok("node1", "boot 0.1 Apples");
    for (number, told) in [
        (1, Some("three or five are recommended")),
        (2, Some("three or five are recommended")),
        (3, None),
        (
            4,
            Some("4 servers stand the loss of 1, as 3 do: an odd number is recommended"),
        ),
    ] {
        if number > 1 {
            site.ok(
                &format!("node{number}"),
                &format!("server 0.{number} Apples 0.1 {SEED}"),
            );
        }
        until("the advice", LIMIT, advice, |advice| match told {
            None => advice.as_array().is_some_and(Vec::is_empty),
            Some(told) => advice[0]
                .as_str()
                .is_some_and(|advice| advice.contains(told)),
        });
    }
    let shown = site.ok("node4", "status");
    assert!(shown.contains("advice: 4 servers"), "{shown}");
    // A client is none.
    site.ok("node4", "reset");
    site.ok("node4", &format!("client 0.4 Apples 0.1 {SEED}"));
    until("no advice", LIMIT, advice, |advice| {
        advice.as_array().is_some_and(Vec::is_empty)
    });
}
