//! The catalogue when servers die.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arpanet_core::discovery::{Health, Instance, Selector};
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{Discovery, ErrorKind, InstanceId};
use serde_json::json;

use crate::consuls::{LIMIT, Site, until, until_ok};
use crate::{consuls, found, instance, require_consul, started};

/// Waits for the change that is wanted, through others.
async fn told(
    watch: &mut Watch<InstanceId, Instance>,
    wanted: impl Fn(&Change<InstanceId, Instance>) -> bool,
) {
    let told = async {
        while let Some(change) = watch.next().await {
            if wanted(&change) {
                return;
            }
        }
        panic!("the watch was closed");
    };
    tokio::time::timeout(LIMIT, told).await.expect("it is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_its_leader_and_a_watch_goes_on() {
    require_consul!();
    let site = Site::with(3, 1, json!({})).await;
    let backends = started(&site, 4, |_| {}).await;
    // By a node that is no server, since one of those dies.
    let writer = Arc::clone(&backends[3]);
    let mut watch = writer.watch(Selector::All).await.unwrap();
    assert!(matches!(watch.next().await, Some(Change::Snapshot(set)) if set.is_empty()));
    let leader = site.leader().await;
    let writing = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for number in 0..60 {
            let id = format!("w{number}");
            // Through the election: it is tried until it is there.
            writer.register(instance(3, &id, "web")).await.unwrap();
            acknowledged.push(id);
        }
        acknowledged.sort();
        acknowledged
    });
    told(
        &mut watch,
        |change| matches!(change, Change::Upsert(id, _) if id.as_str() == "w5"),
    )
    .await;
    site.agents[leader].kill();
    told(&mut watch, |change| *change == Change::Stale).await;
    told(&mut watch, |change| *change == Change::Fresh).await;
    let acknowledged = writing.await.unwrap();
    told(
        &mut watch,
        |change| matches!(change, Change::Upsert(id, _) if id.as_str() == "w59"),
    )
    .await;
    assert_ne!(site.leader().await, leader);
    for (node, backend) in backends
        .iter()
        .enumerate()
        .filter(|(node, _)| *node != leader)
    {
        assert_eq!(
            found(backend, "web").await.unwrap(),
            acknowledged,
            "node {node}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_lookups_go_on_and_registrations_fail_and_are_made_up_for() {
    require_consul!();
    let site = Site::servers(3).await;
    let backends = started(&site, 3, |config| config.confirm_ms = 3_000).await;
    let (web, late) = (instance(0, "w1", "web"), instance(0, "w2", "web"));
    backends[0].register(web.clone()).await.unwrap();
    let mut watch = backends[0].watch(Selector::All).await.unwrap();
    watch.next().await;
    // The server that is left answers by what it knows of: a moment ago only the leader may have known that all agreed.
    until("the first server has it itself", || {
        let entries = site.agents[0].get("/v1/health/service/web?stale")?;
        (entries.as_array()?.len() == 1).then_some(())
    })
    .await;
    for agent in &site.agents[1..] {
        agent.kill();
    }
    told(&mut watch, |change| *change == Change::Stale).await;
    let begun = Instant::now();
    let error = backends[0].register(late.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hint().is_some(), "{error}");
    assert!(
        begun.elapsed() >= Duration::from_millis(2_000),
        "it was not tried for its time"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(found(&backends[0], "web").await.unwrap(), ["w1"]);
    let members = backends[0].members().await.unwrap();
    assert_eq!(members.len(), 3);

    for agent in &site.agents[1..] {
        agent.launch();
    }
    site.join().await;
    // Nobody asks for it again: the agent has it, and tells the catalogue as soon as there is a leader.
    told(
        &mut watch,
        |change| matches!(change, Change::Upsert(id, _) if *id == late.id),
    )
    .await;
    for backend in &backends {
        until_ok("both are found", async || {
            (found(backend, "web").await? == ["w1", "w2"]).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_outlives_the_death_of_all_at_once() {
    require_consul!();
    let site = Site::servers(3).await;
    let backends = started(&site, 3, |_| {}).await;
    for (node, backend) in backends.iter().enumerate() {
        for number in 0..5 {
            let one = instance(node, &format!("{node}.{number}"), "web");
            backend.register(one).await.unwrap();
        }
    }
    let before = found(&backends[0], "web").await.unwrap();
    assert_eq!(before.len(), 15);
    for agent in &site.agents {
        agent.kill();
    }
    for agent in &site.agents {
        agent.launch();
    }
    // By itself consul looks for those that it knew once only, and they may come up later.
    site.join().await;
    site.ready().await;
    site.leader().await;
    // The processes above live on, and nobody registers anything again.
    for backend in &backends {
        until_ok("the same is found", async || {
            (found(backend, "web").await? == before).then_some(())
        })
        .await;
        let members = backend.members().await.unwrap();
        assert_eq!(members.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_sees_itself_and_what_it_did_is_known_after_the_heal() {
    require_consul!();
    let site = Site::servers(3).await;
    let backends = started(&site, 3, |config| config.confirm_ms = 2_000).await;
    for (node, backend) in backends.iter().enumerate() {
        backend
            .register(instance(node, &format!("w{node}"), "web"))
            .await
            .unwrap();
    }
    let mut watch = backends[0].watch(Selector::All).await.unwrap();
    watch.next().await;
    site.cut(0).await;
    told(&mut watch, |change| *change == Change::Stale).await;
    let comes_to_find = async |node: usize, wanted: &[&str]| {
        until_ok(&format!("node {node} finds {wanted:?}"), async || {
            (found(&backends[node], "web").await? == wanted).then_some(())
        })
        .await;
    };
    comes_to_find(0, &["w0"]).await;
    comes_to_find(1, &["w1", "w2"]).await;
    let error = backends[0]
        .register(instance(0, "w3", "web"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = backends[0]
        .deregister(&"w0".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    site.heal(0).await;
    for node in 0..3 {
        comes_to_find(node, &["w1", "w2", "w3"]).await;
    }
    told(&mut watch, |change| *change == Change::Fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_write_nothing_to_consuls_log() {
    require_consul!();
    // Beside them: consul's own network coordinates.
    let quiet = json!({"disable_coordinates": true, "telemetry": {"disable_hostname": true}});
    let site = Site::with(1, 0, quiet).await;
    let [backend] = &started(&site, 1, |config| config.heartbeat_ms = 1_000).await[..] else {
        unreachable!()
    };
    backend.register(instance(0, "w1", "web")).await.unwrap();
    let agent = &site.agents[0];
    let index = || {
        let (_, head) = agent.head("/v1/health/state/any").unwrap();
        head.lines()
            .find_map(|line| line.strip_prefix("X-Consul-Index: "))
            .map(|index| index.trim().parse::<u64>().unwrap())
            .unwrap()
    };
    let before = index();
    // The TTL passes several times over, and the check passes all the time.
    let begun = Instant::now();
    until("the check is refreshed for long", || {
        let checks = agent.get("/v1/agent/checks").unwrap();
        assert_eq!(checks["arpanet"]["Status"], "passing");
        (begun.elapsed() > Duration::from_secs(4)).then_some(())
    })
    .await;
    assert_eq!(index(), before);
    // And without them it does not.
    backend.stop().await.unwrap();
    until("the check fails", || {
        let checks = agent.get("/v1/agent/checks").unwrap();
        (checks["arpanet"]["Status"] == "critical").then_some(())
    })
    .await;
    assert!(index() > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_lost_everything_is_told_again() {
    require_consul!();
    let site = Site::servers(1).await;
    let [backend] = &started(&site, 1, |config| config.heartbeat_ms = 1_500).await[..] else {
        unreachable!()
    };
    let sick = instance(0, "w2", "web").health(Health::Critical);
    backend.register(instance(0, "w1", "web")).await.unwrap();
    backend.register(sick).await.unwrap();
    let agent = &site.agents[0];
    for id in ["arpanet:w1", "arpanet:w2", "arpanet-member"] {
        agent
            .ask("PUT", &format!("/v1/agent/service/deregister/{id}"), "")
            .unwrap();
    }
    agent
        .ask("PUT", "/v1/agent/check/deregister/arpanet", "")
        .unwrap();
    until_ok("it is found again", async || {
        let services = backend.services().await.ok()?;
        let web = services.iter().find(|one| one.service.as_str() == "web")?;
        ((web.passing, web.total) == (1, 2)).then_some(())
    })
    .await;
    assert_eq!(backend.members().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_services_than_consul_allows_connections_are_watched_and_nobody_is_lost() {
    require_consul!();
    const SERVICES: usize = 300;
    // Consul's own limit, for which all that comes by a socket is one address.
    let few = json!({"limits": {"http_max_conns_per_client": 200}});
    let site = Site::with(3, 0, few).await;
    let backends = started(&site, 3, |config| config.heartbeat_ms = 2_000).await;
    let name = |number: usize| format!("s{number:03}");
    let registered = (0..SERVICES).map(|number| {
        let one = instance(0, &name(number), &name(number));
        let backend = Arc::clone(&backends[0]);
        async move { backend.register(one).await.map(drop) }
    });
    let registered: Result<Vec<()>, _> = futures_util::future::try_join_all(registered).await;
    registered.unwrap();

    let mut watch = backends[0].watch(Selector::All).await.unwrap();
    let Some(Change::Snapshot(set)) = watch.next().await else {
        panic!("no snapshot");
    };
    assert_eq!(set.len(), SERVICES);
    // One with a connection of its own; one without, whose health, port and end are told all the same.
    let begun = Instant::now();
    let mut port = 1_000;
    while begun.elapsed() < Duration::from_secs(5) {
        port += 1;
        for number in [0, SERVICES - 1] {
            for health in [Health::Critical, Health::Passing] {
                let mut changed = instance(0, &name(number), &name(number)).health(health);
                changed.port = port;
                backends[0].register(changed.clone()).await.unwrap();
                told(&mut watch, |change| match change {
                    Change::Upsert(_, told) => {
                        assert_ne!(told.health, Health::Suspended, "{told:?}");
                        *told == changed
                    }
                    other => panic!("{other:?}"),
                })
                .await;
            }
        }
    }
    let last: InstanceId = name(SERVICES - 1).parse().unwrap();
    backends[0].deregister(&last).await.unwrap();
    told(&mut watch, |change| {
        *change == Change::Removed(last.clone())
    })
    .await;
    // A watch of one service gets along without a connection too.
    let service = name(SERVICES - 2).parse().unwrap();
    let mut one = backends[0].watch(Selector::Service(service)).await.unwrap();
    assert!(matches!(one.next().await, Some(Change::Snapshot(set)) if set.len() == 1));
    let services = backends[1].services().await.unwrap();
    let passing: usize = services.iter().map(|service| service.passing).sum();
    assert_eq!(passing, SERVICES - 1);
}
