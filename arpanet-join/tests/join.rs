//! What a node that joins is given or told, over real TCP.
#![allow(clippy::unwrap_used)]

mod house;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arpanet_core::ErrorKind;
use arpanet_core::admission::{Admission, Seed};
use arpanet_core::roster::Role;
use arpanet_join::{JoinAdmission, JoinState, NodeIdentity};
use house::{Book, House, PASSWORD, admission, config, info, password};

#[tokio::test]
async fn the_right_password_yields_cluster_key_and_roster() {
    let house = House::new().await;
    let two = admission();
    let me = info("0.2", "two", Role::Server);
    let got = two
        .join(&password(PASSWORD), &me, house.seed(), false)
        .await
        .unwrap();
    assert_eq!(got.cluster, house.membership.cluster);
    assert_eq!(got.key, house.membership.key);
    assert_eq!(got.identity, two.identity().public());
    // The seed's roster, and where the seed was reached, which it need not know itself.
    let mut roster = house.book.0.lock().unwrap().clone();
    roster.locate(house.seed().node, house.endpoint());
    assert_eq!(got.roster, roster);
    let entry = got.roster.holder(me.node).unwrap();
    assert_eq!(entry.identity, two.identity().public());
    assert_eq!(entry.endpoint, Some("127.0.0.1:40000".parse().unwrap()));
    // A second call is admitted again.
    let again = two
        .join(&password(PASSWORD), &me, house.seed(), false)
        .await
        .unwrap();
    assert_eq!(again, got);
}

#[tokio::test]
async fn an_advertised_endpoint_is_what_the_others_are_told() {
    let house = House::new().await;
    let endpoint = Some("203.0.113.9:7000".parse().unwrap());
    let me = info("0.2", "two", Role::Client).advertise(endpoint);
    let got = admission()
        .join(&password(PASSWORD), &me, house.seed(), false)
        .await
        .unwrap();
    assert_eq!(got.roster.holder(me.node).unwrap().endpoint, endpoint);
}

#[tokio::test]
async fn a_server_that_joined_admits_others_also_after_a_restart() {
    let house = House::new().await;
    let two = admission();
    let me = info("0.2", "two", Role::Server);
    let membership = two
        .join(&password(PASSWORD), &me, house.seed(), false)
        .await
        .unwrap();
    let kept = serde_json::to_string(&JoinState::of(&two, Some(membership))).unwrap();
    drop(two);
    house.boot.stop().await.unwrap();

    let state: JoinState = serde_json::from_str(&kept).unwrap();
    let membership = state.membership.unwrap();
    let two = JoinAdmission::new(config(), NodeIdentity::from_secret(&state.identity))
        .with_verifier(state.verifier);
    let book = Arc::new(Book(Mutex::new(membership.roster.clone())));
    two.serve(&membership, book).await.unwrap();
    let seed = Seed::new(me.node, two.local_addr().unwrap());
    let three = admission()
        .join(
            &password(PASSWORD),
            &info("0.3", "three", Role::Client),
            seed,
            false,
        )
        .await
        .unwrap();
    assert_eq!(three.key, house.membership.key);
    assert_eq!(three.roster.holders().count(), 3);
}

#[tokio::test]
async fn a_wrong_password_is_told_in_one_sentence_within_a_second() {
    let house = House::new().await;
    let started = Instant::now();
    let error = house.ask("0.2", "two", "Pears").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(!error.is_retryable());
    assert!(
        error.to_string().starts_with("the password is wrong"),
        "{error}"
    );
    assert!(error.hint().is_some());
    assert_eq!(house.book.0.lock().unwrap().holders().count(), 1);
}

#[tokio::test]
async fn the_sixth_guess_within_a_minute_waits_even_when_it_is_right() {
    let house = House::new().await;
    for guess in ["a", "b", "c", "d", "e"] {
        let error = house.ask("0.2", "two", guess).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    }
    for word in ["f", PASSWORD] {
        let error = house.ask("0.2", "two", word).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.to_string().contains("too many wrong passwords"),
            "{error}"
        );
        assert!(
            error.hint().unwrap().starts_with("try again in"),
            "{error:?}"
        );
    }
    // A new gatekeeper does not make it forget.
    house
        .boot
        .serve(&house.membership, Arc::clone(&house.book) as _)
        .await
        .unwrap();
    assert!(house.ask("0.2", "two", PASSWORD).await.is_err());
}

#[tokio::test]
async fn right_passwords_are_never_counted() {
    let house = House::new().await;
    for number in 2..20 {
        house
            .ask(&format!("0.{number}"), &format!("n{number}"), PASSWORD)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn twenty_nodes_behind_one_address_join_at_once() {
    let house = Arc::new(House::new().await);
    let asking: Vec<_> = (2..22)
        .map(|number| {
            let house = Arc::clone(&house);
            tokio::spawn(async move {
                house
                    .ask(&format!("0.{number}"), &format!("n{number}"), PASSWORD)
                    .await
            })
        })
        .collect();
    for task in asking {
        task.await.unwrap().unwrap();
    }
    assert_eq!(house.book.0.lock().unwrap().holders().count(), 21);
}

#[tokio::test]
async fn a_taken_address_or_name_is_told_with_its_holder() {
    let house = House::new().await;
    house.ask("0.2", "two", PASSWORD).await.unwrap();
    let error = house.ask("0.2", "other", PASSWORD).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("two"), "{error}");
    assert_eq!(error.hint(), Some("choose another"));
    let error = house.ask("0.3", "two", PASSWORD).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("the name two"), "{error}");
}

#[tokio::test]
async fn replace_reaches_the_gatekeeper() {
    let house = House::new().await;
    house.ask("0.2", "two", PASSWORD).await.unwrap();
    let reinstalled = admission();
    let got = reinstalled
        .join(
            &password(PASSWORD),
            &info("0.2", "two", Role::Client),
            house.seed(),
            true,
        )
        .await
        .unwrap();
    let entry = got.roster.holder("0.2".parse().unwrap()).unwrap();
    assert_eq!(entry.identity, reinstalled.identity().public());
}

#[tokio::test]
async fn a_client_keeps_no_password_and_names_who_admits() {
    let house = House::new().await;
    let client = admission();
    let me = info("0.14", "client", Role::Client);
    let mut membership = client
        .join(&password(PASSWORD), &me, house.seed(), false)
        .await
        .unwrap();
    assert!(client.verifier().is_none());
    let boot = membership
        .roster
        .holder("0.1".parse().unwrap())
        .unwrap()
        .clone();
    let endpoint = "192.168.8.120:51820".parse().unwrap();
    membership.roster = [boot.at(Some(endpoint))].into_iter().collect();
    client
        .serve(&membership, Arc::clone(&house.book) as _)
        .await
        .unwrap();
    let seed = Seed::new(me.node, client.local_addr().unwrap());
    let error = admission()
        .join(
            &password(PASSWORD),
            &info("0.3", "three", Role::Client),
            seed,
            false,
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("0.14"), "{error}");
    assert!(
        error.hint().unwrap().contains("0.1 at 192.168.8.120:51820"),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_node_at_the_seeds_address_is_named() {
    let house = House::new().await;
    let seed = Seed::new("0.9".parse().unwrap(), house.endpoint());
    let error = admission()
        .join(
            &password(PASSWORD),
            &info("0.2", "two", Role::Client),
            seed,
            false,
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("node 0.1 answers"), "{error}");
    let own = Seed::new("0.2".parse().unwrap(), house.endpoint());
    let error = admission()
        .join(
            &password(PASSWORD),
            &info("0.2", "two", Role::Client),
            own,
            false,
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn stop_frees_the_port_and_serve_replaces_the_gatekeeper() {
    let house = House::new().await;
    let endpoint = house.endpoint();
    let fresh = Arc::new(Book(Mutex::new(house.membership.roster.clone())));
    house
        .boot
        .serve(&house.membership, Arc::clone(&fresh) as _)
        .await
        .unwrap();
    assert_eq!(house.endpoint(), endpoint);
    house.ask("0.2", "two", PASSWORD).await.unwrap();
    assert_eq!(fresh.0.lock().unwrap().holders().count(), 2);
    assert_eq!(house.book.0.lock().unwrap().holders().count(), 1);
    house.boot.stop().await.unwrap();
    house.boot.stop().await.unwrap();
    assert!(house.boot.local_addr().is_none());
    std::net::TcpListener::bind(endpoint).unwrap();
}

#[tokio::test]
async fn a_port_in_use_and_a_lost_hash_are_told() {
    let house = House::new().await;
    let other = JoinAdmission::new(
        config().listen(house.endpoint()),
        NodeIdentity::generate().unwrap(),
    );
    let me = info("0.1", "one", Role::Boot);
    let error = other
        .serve(&house.membership, Arc::clone(&house.book) as _)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let membership = other.found(&password(PASSWORD), &me).await.unwrap();
    let error = other
        .serve(&membership, Arc::clone(&house.book) as _)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error
            .to_string()
            .contains(&house.endpoint().port().to_string()),
        "{error}"
    );
    assert_ne!(membership.cluster, house.membership.cluster);
}
