//! What is different where the overlay is weave, and what must not be.

use std::time::Duration;

use crate::site::{SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_host_with_another_overlay_is_refused_and_left_as_it_was() {
    let Some(site) = Site::up_over_weave(2).await else {
        return;
    };
    for (ours, theirs) in [("weave", "wireguard"), ("wireguard", "weave")] {
        site.ok("node1", &format!("boot 0.1 Apples --overlay {theirs}"));
        let before = site.run("node2", "ip -o link").out;
        let join = format!("server 0.2 Apples 0.1 {SEED} --overlay {ours}");
        let refused = site.arpanet2("node2", &join);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let words = format!("this node's overlay is {ours}, and the cluster's is {theirs}");
        assert!(refused.err.contains(&words), "{refused:?}");
        assert!(refused.err.contains("hint: "), "{refused:?}");
        until(
            "its links are as before",
            LIMIT,
            || site.run("node2", "ip -o link").out,
            |now| links(now) == links(&before),
        );
        site.ok("node1", "reset");
    }
}

/// Their names.
fn links(listed: &str) -> Vec<&str> {
    let mut names: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_stack_is_one_word_and_status_says_what_it_is() {
    let Some(site) = Site::up_over_weave(2).await else {
        return;
    };
    site.cluster();
    for host in ["node1", "node2"] {
        assert_eq!(site.status(host)["stack"]["overlay"], "weave");
    }
    let password = "--weave-password Pears";
    let outcome = site.arpanet2(
        "node2",
        &format!("boot 0.3 Apples --overlay wireguard {password}"),
    );
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}
