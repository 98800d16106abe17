//! Bad input: one clear sentence, the cause, a hint and the right exit code, and nothing changed.

use crate::site::{SEED, Site};

#[tokio::test]
async fn an_address_that_is_taken_is_refused_and_says_by_whom() {
    let Some(site) = Site::up(3).await else {
        return;
    };
    site.ok("node1", "boot 0.1 Apples");
    site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
    let before = site.run("node3", "ip rule").out;
    let taken = site.arpanet2("node3", &format!("server 0.2 Apples 0.1 {SEED}"));
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.err.contains("node2"), "{taken:?}");
    assert!(taken.err.contains("hint:"), "{taken:?}");
    assert_eq!(site.run("node3", "ip rule").out, before);
    let status = site.arpanet2("node3", "status");
    assert_eq!(status.code, Some(1), "{status:?}");
}
