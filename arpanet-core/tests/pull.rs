//! Pulls in the simulated world, as a PaaS would try its own.

#![allow(clippy::unwrap_used)]

use arpanet_core::ErrorKind;
use arpanet_core::memory::World;
use arpanet_core::runtime::{
    ContainerSpec, PullPhase, PullPolicy, PullRequest, RegistryCredentials, Runtime,
};

#[tokio::test(start_paused = true)]
async fn what_is_not_for_everybody_needs_the_right_password() {
    let world = World::new(1);
    let runtime = world.runtime("0.1");
    let request = PullRequest::new("private/web:1");
    let with = |password| {
        let credentials = RegistryCredentials::password("reader", password);
        request.clone().credentials(Some(credentials))
    };
    for refused in [request.clone(), with("guess")] {
        let pull = runtime.pull(&refused).await.unwrap();
        let error = pull.done().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    }
    let pull = runtime.pull(&with("secret")).await.unwrap();
    assert!(pull.done().await.unwrap().is_new);
    // It is here now, for containers of everybody.
    let mut spec = ContainerSpec::image("private/web:1").named("w1".parse().unwrap());
    runtime.create(&spec).await.unwrap();
    spec.name = Some("w2".parse().unwrap());
    let error = runtime
        .create(&spec.pull(PullPolicy::Always))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_loses_its_power_in_the_middle_pulls_no_further() {
    let world = World::new(1);
    let request = PullRequest::new("web:1");
    let mut pull = world.runtime("0.1").pull(&request).await.unwrap();
    while pull.next().await.unwrap().phase != PullPhase::Downloading {}
    world.kill("0.1");
    while pull.next().await.is_some() {}
    let error = pull.done().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    world.start("0.1");
    let never = request.clone().policy(PullPolicy::Never);
    let pull = world.runtime("0.1").pull(&never).await.unwrap();
    assert_eq!(pull.done().await.unwrap_err().kind(), ErrorKind::NotFound);
}
