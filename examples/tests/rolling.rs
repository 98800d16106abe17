//! A unit test with mocks: the order of calls, and what is left alone when something does not come back.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arpanet_core::discovery::Instance;
use arpanet_core::mock::{MockDiscovery, MockRuntime};
use arpanet_core::runtime::{Container, ContainerSpec};
use arpanet_core::watch::WatchHub;
use arpanet_core::{ContainerName, ErrorKind, InstanceId, ServiceName};
use examples::rolling::restart;

const LIMIT: Duration = Duration::from_secs(30);

fn web() -> ServiceName {
    "web".parse().unwrap()
}

fn container(name: &str, service: &str) -> Container {
    let spec = ContainerSpec::image("nginx:1")
        .named(name.parse().unwrap())
        .service(service.parse().unwrap(), 80);
    Container::new(name.parse().unwrap(), name, spec, SystemTime::UNIX_EPOCH)
}

fn instance(container: &ContainerName) -> Instance {
    let id: InstanceId = format!("0.1:{container}:10.1.0.5").parse().unwrap();
    let ip = "10.1.0.5".parse().unwrap();
    Instance::new(id, web(), ip, 80, "0.1".parse().unwrap())
}

/// A host with two replicas of web and one of db, whose agent registers what starts; `dead` never comes back.
fn host(dead: Option<&'static str>) -> (MockDiscovery, MockRuntime, Arc<Mutex<Vec<String>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let catalogue = WatchHub::new();
    let all = [("web-1", "web"), ("db-1", "db"), ("web-2", "web")];
    for (name, _) in all.iter().filter(|(_, service)| *service == "web") {
        let instance = instance(&name.parse().unwrap());
        catalogue.upsert(instance.id.clone(), instance);
    }
    let mut runtime = MockRuntime::new();
    runtime
        .expect_list()
        .returning(move || Ok(all.map(|(name, service)| container(name, service)).into()));
    let (log, hub) = (Arc::clone(&calls), catalogue.clone());
    runtime.expect_stop().returning(move |name| {
        log.lock().unwrap().push(format!("stop {name}"));
        hub.remove(&instance(name).id);
        Ok(0)
    });
    let (log, hub) = (Arc::clone(&calls), catalogue.clone());
    runtime.expect_start().returning(move |name| {
        log.lock().unwrap().push(format!("start {name}"));
        if Some(name.as_str()) != dead {
            hub.upsert(instance(name).id, instance(name));
        }
        Ok(())
    });
    let mut discovery = MockDiscovery::new();
    discovery
        .expect_watch()
        .returning(move |_| Ok(catalogue.watch()));
    (discovery, runtime, calls)
}

#[tokio::test(start_paused = true)]
async fn one_after_the_other_and_only_those_of_the_service() {
    let (discovery, runtime, calls) = host(None);
    let done = restart(&discovery, &runtime, &web(), LIMIT).await.unwrap();
    let names: Vec<&str> = done.iter().map(ContainerName::as_str).collect();
    assert_eq!(names, ["web-1", "web-2"]);
    let calls = calls.lock().unwrap();
    assert_eq!(
        *calls,
        ["stop web-1", "start web-1", "stop web-2", "start web-2"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_rest_is_left_alone_when_one_does_not_come_back() {
    let (discovery, runtime, calls) = host(Some("web-1"));
    let error = restart(&discovery, &runtime, &web(), LIMIT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("web-1"), "{error}");
    assert_eq!(*calls.lock().unwrap(), ["stop web-1", "start web-1"]);
}
