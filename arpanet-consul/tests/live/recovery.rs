//! RECOVERY.md, line by line.

use arpanet_core::kv::KeyValue;
use arpanet_core::{Discovery, ErrorKind};

use crate::consuls::{Site, until, until_ok};
use crate::{consuls, found, instance, require_consul, started, store};

const PAGE: &str = include_str!("../../../RECOVERY.md");

/// The lines of a block of the page.
fn block(name: &str) -> &'static str {
    let begin = format!("```sh {name}\n");
    let (_, rest) = PAGE
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no block {name}"));
    rest.split_once("```").unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_servers_lost_for_good_are_replaced() {
    require_consul!();
    let site = Site::servers(3).await;
    let backends = started(&site, 3, |_| {}).await;
    let key = "paas/state".parse().unwrap();
    let left = &site.agents[0];
    let kv = store(&site, 0);
    kv.put(&key, "kept".into()).await.unwrap();
    backends[0]
        .register(instance(0, "w1", "web"))
        .await
        .unwrap();
    until("the server that will be left has it itself", || {
        left.get("/v1/kv/paas/state?stale").map(drop)
    })
    .await;
    for lost in [1, 2] {
        backends[lost].stop().await.unwrap();
        site.agents[lost].wipe();
    }
    until("there is no leader", || {
        left.leader().is_none().then_some(())
    })
    .await;

    left.shell(block("last-state"));
    left.kill();
    left.shell(block("alone"));
    left.launch();
    site.ready().await;
    let peers = left.shell(block("leads"));
    assert!(
        peers.contains("leader") && peers.lines().count() == 2,
        "{peers}"
    );
    let entry = until_ok("it reads", async || kv.get(&key).await.ok()).await;
    assert_eq!(&entry.unwrap().value[..], b"kept");
    left.shell(block("forget"));

    for new in [1, 2] {
        site.agents[new].launch();
    }
    site.join().await;
    site.ready().await;
    until("all three vote", || {
        // Which fails for a moment where the leader changes.
        let peers = left.try_shell(block("whole")).stdout;
        let peers = String::from_utf8_lossy(&peers);
        (peers.matches(" true ").count() == 3).then_some(())
    })
    .await;
    // Whatever was there is there, by way of the new ones too, and by a majority without the old one.
    assert_eq!(found(&backends[0], "web").await.unwrap(), ["w1"]);
    left.kill();
    site.leader().await;
    let entry = until_ok("the new ones read", async || {
        store(&site, 1).get(&key).await.ok()
    })
    .await;
    assert_eq!(&entry.unwrap().value[..], b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_puts_the_store_back() {
    require_consul!();
    let site = Site::servers(3).await;
    let kv = store(&site, 1);
    let (kept, later) = ("paas/kept".parse().unwrap(), "paas/later".parse().unwrap());
    let before = kv.put(&kept, "one".into()).await.unwrap();
    let told = site.agents[1].shell(block("snapshot"));
    assert!(told.contains("verified snapshot"), "{told}");
    let mut watch = kv.watch("paas/").await.unwrap();
    watch.next().await;
    let changed = kv.put(&kept, "two".into()).await.unwrap();
    kv.put(&later, "new".into()).await.unwrap();

    let begun = std::time::Instant::now();
    site.agents[1].shell(block("restore"));
    until_ok("the store is as it was", async || {
        let entry = kv.get(&kept).await.ok()??;
        (entry.value == "one" && kv.get(&later).await.ok()?.is_none()).then_some(())
    })
    .await;
    // Whoever swaps by what was written since is refused, and a watch, for which consul's numbers went backwards, tells it.
    assert!(changed > before);
    let error = kv
        .compare_and_swap(&kept, Some(changed), "three".into())
        .await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);
    let mut shown = std::collections::BTreeMap::new();
    until_ok("the watch tells it", async || {
        while let Some(Some(change)) = watch.try_next() {
            match change {
                arpanet_core::watch::Change::Upsert(key, entry) => {
                    shown.insert(key, entry.value);
                }
                arpanet_core::watch::Change::Removed(key) => {
                    shown.remove(&key);
                }
                _ => {}
            }
        }
        (shown.len() == 1 && shown[&kept] == "one").then_some(())
    })
    .await;
    // And not only after the minute that its query waits.
    assert!(begun.elapsed().as_secs() < 45, "{:?}", begun.elapsed());
}
