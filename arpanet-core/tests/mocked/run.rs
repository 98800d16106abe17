//! Running a container: the order of calls, and what is taken back when the nth of them fails, for every n.

use arpanet_core::runtime::ContainerSpec;

use crate::rig::{Rig, password};

fn web() -> ContainerSpec {
    ContainerSpec::command(["httpd"])
        .named("w1".parse().unwrap())
        .addr("10.1.0.5/16".parse().unwrap())
        .service("web".parse().unwrap(), 80)
}

const CALLS: [&str; 7] = [
    "runtime.inspect w1",
    "runtime.create w1",
    // Its address works before its command starts.
    "discovery.publish claim/10.1.0.5/w1",
    "overlay.attach w1",
    "runtime.start w1",
    "runtime.inspect w1",
    // And it is in the catalogue once it runs.
    "discovery.register 0.2:w1:10.1.0.5",
];

/// What takes this call back, made or tried.
fn undo(call: &str) -> Option<&'static str> {
    match call {
        "discovery.publish claim/10.1.0.5/w1" => Some("discovery.retract claim/10.1.0.5/w1"),
        "overlay.attach w1" => Some("overlay.detach w1"),
        "discovery.register 0.2:w1:10.1.0.5" => Some("discovery.deregister 0.2:w1:10.1.0.5"),
        _ => None,
    }
}

async fn up() -> Rig {
    let rig = Rig::new();
    rig.cluster.boot(&password()).await.unwrap();
    rig.rest().await;
    rig.journal.begin(0..0);
    rig
}

#[tokio::test(start_paused = true)]
async fn attached_before_it_starts_and_registered_when_it_runs() {
    let rig = up().await;
    rig.cluster.run(&web()).await.unwrap();
    assert_eq!(rig.journal.calls(), CALLS);
}

#[tokio::test(start_paused = true)]
async fn every_failure_is_undone() {
    for (number, call) in CALLS.iter().enumerate() {
        let rig = up().await;
        rig.journal.begin(number..number + 1);
        let error = rig.cluster.run(&web()).await.unwrap_err();
        assert!(error.to_string().ends_with("fails"), "{error}");
        let tried = &CALLS[..=number];
        let mut wanted: Vec<&str> = tried.to_vec();
        if number > 0 {
            wanted.push("runtime.remove w1");
            wanted.extend(tried.iter().rev().filter_map(|call| undo(call)));
        }
        assert_eq!(rig.journal.calls(), wanted, "when {call} fails");
        assert!(rig.engine.names().is_empty());

        rig.journal.begin(0..0);
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        rig.journal.begin(0..0);
        rig.cluster.run(&web()).await.unwrap();
        assert_eq!(rig.journal.calls(), CALLS, "again after {call} had failed");
    }
}
