//! Nodes, checks, and what others have at consul.

use std::time::Duration;

use arpanet_consul::ServiceCheck;
use arpanet_core::discovery::{Health, MemberState, Selector};
use arpanet_core::watch::Change;
use arpanet_core::{Discovery, ErrorKind};

use crate::consuls::{Site, until_ok};
use crate::{backend, consuls, found, instance, require_consul, started};

#[tokio::test(flavor = "multi_thread")]
async fn checks_that_consul_runs_decide_too() {
    require_consul!();
    let site = Site::servers(1).await;
    let [backend] = &started(&site, 1, |_| {}).await[..] else {
        unreachable!()
    };
    let often = Duration::from_millis(200);
    let tcp = |address: &str| ServiceCheck::Tcp {
        address: address.to_owned(),
        interval: often,
        timeout: often,
    };
    let checks = vec![
        // Consul's own port; there is none at the other.
        tcp("10.253.0.1:8300"),
        ServiceCheck::Ttl {
            id: "w1-says".to_owned(),
            ttl: Duration::from_secs(600),
        },
    ];
    backend
        .register_with_checks(instance(0, "w1", "web"), checks)
        .await
        .unwrap();
    let refused = vec![
        tcp("10.253.0.1:1"),
        ServiceCheck::Http {
            url: "http://10.253.0.1:1/".to_owned(),
            interval: often,
            timeout: often,
        },
    ];
    backend
        .register_with_checks(instance(0, "w2", "web"), refused)
        .await
        .unwrap();
    let comes_to_find = async |wanted: &[&str]| {
        until_ok(&format!("{wanted:?} is found"), async || {
            (found(backend, "web").await? == wanted).then_some(())
        })
        .await;
    };
    comes_to_find(&[]).await;
    let agent = &site.agents[0];
    assert_eq!(
        agent
            .ask("PUT", "/v1/agent/check/pass/w1-says", "")
            .unwrap()
            .0,
        200
    );
    comes_to_find(&["w1"]).await;
    // Without checks of consul's it is what its agent says.
    backend.register(instance(0, "w2", "web")).await.unwrap();
    comes_to_find(&["w1", "w2"]).await;
    let checks = agent.get("/v1/agent/checks").unwrap();
    let left: Vec<&String> = checks.as_object().unwrap().keys().collect();
    assert_eq!(
        left,
        [
            "arpanet",
            "service:arpanet:w1",
            "service:arpanet:w1:0",
            "service:arpanet:w2",
            "w1-says"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_registered_at_consul_is_found() {
    require_consul!();
    let site = Site::servers(1).await;
    let [backend] = &started(&site, 1, |_| {}).await[..] else {
        unreachable!()
    };
    let mut watch = backend.watch(Selector::All).await.unwrap();
    assert!(matches!(watch.next().await, Some(Change::Snapshot(set)) if set.is_empty()));
    let db = r#"{"ID": "db1", "Name": "db", "Address": "10.2.0.7", "Port": 5432}"#;
    site.agents[0]
        .ask("PUT", "/v1/agent/service/register", db)
        .unwrap();
    let Some(Change::Upsert(id, db)) = watch.next().await else {
        panic!("it is not told");
    };
    assert_eq!(
        (id.as_str(), db.port, db.health),
        ("0.1:db1", 5432, Health::Passing)
    );
    assert_eq!(found(backend, "db").await.unwrap(), ["0.1:db1"]);
    for taken in ["consul", "arpanet-member"] {
        let error = backend
            .register(instance(0, "w1", taken))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_forgotten() {
    require_consul!();
    let site = Site::servers(3).await;
    let backends = started(&site, 3, |_| {}).await;
    let dead = "0.3".parse().unwrap();
    backends[2]
        .register(instance(2, "w1", "web"))
        .await
        .unwrap();
    let error = backends[0].forget(dead).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    site.agents[2].kill();
    until_ok("it is down", async || {
        let members = backends[0].members().await.ok()?;
        let member = members.into_iter().find(|member| member.node == dead)?;
        (member.state == MemberState::Down).then_some(())
    })
    .await;
    // Where it was the leader, the next one takes it for alive again, until its agent's silence is seen.
    until_ok("it is forgotten", async || {
        backends[0].forget(dead).await.ok()
    })
    .await;
    backends[0].forget(dead).await.unwrap();
    until_ok("it is nowhere", async || {
        let members = backends[1].members().await.ok()?;
        members
            .iter()
            .all(|member| member.node != dead)
            .then_some(())
    })
    .await;
    let error = backends[0]
        .forget("9.9".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let services = backends[0].services().await.unwrap();
    assert!(services.is_empty(), "{services:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_reader_and_with_the_backend() {
    require_consul!();
    let site = Site::servers(1).await;
    let [backend] = &started(&site, 1, |_| {}).await[..] else {
        unreachable!()
    };
    backend.register(instance(0, "w1", "web")).await.unwrap();
    let mut kept = backend
        .watch(Selector::Service("web".parse().unwrap()))
        .await
        .unwrap();
    drop(backend.watch(Selector::All).await.unwrap());
    drop(backend.watch_members().await.unwrap());
    backend.stop().await.unwrap();
    assert!(matches!(kept.next().await, Some(Change::Snapshot(_))));
    assert_eq!(kept.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_datacenter_and_an_agent_that_is_not_there_are_told() {
    require_consul!();
    let site = Site::servers(1).await;
    let membership = &consuls::memberships(1)[0];
    let elsewhere = backend(&site, 0, |config| {
        config.datacenter = Some("dc9".to_owned())
    });
    let error = elsewhere.start(membership).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("dc1") && error.to_string().contains("dc9"),
        "{error}"
    );
    let services = site.agents[0].get("/v1/agent/services").unwrap();
    assert!(services.as_object().unwrap().is_empty(), "{services}");

    site.agents[0].kill();
    let gone = backend(&site, 0, |config| config.confirm_ms = 500);
    let error = gone.start(membership).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("does not answer"), "{error}");
}
