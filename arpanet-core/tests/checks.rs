//! Checks of containers: what fails them leaves lookups, and comes back.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arpanet_core::admission::Password;
use arpanet_core::cluster::ClusterEvent;
use arpanet_core::discovery::{Health, Instance, Selector};
use arpanet_core::health::{ContainerHealth, Prober};
use arpanet_core::memory::{Ailment, World};
use arpanet_core::runtime::{Check, ContainerSpec, EngineHealth, RestartPolicy};
use arpanet_core::watch::{Change, Watch};
use arpanet_core::{Cluster, ContainerName, InstanceId, NodeAddr, Result};
use async_trait::async_trait;
use tokio::sync::broadcast::Receiver;
use tokio::time::Instant;

/// Longer than any of these tests lets anything take.
const LIMIT: Duration = Duration::from_secs(600);

fn name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

fn check(text: &str) -> Check {
    Check::new(text.parse().unwrap())
}

fn web(text: &str, check: Check) -> ContainerSpec {
    let mut spec = ContainerSpec::command(["httpd"])
        .named(name(text))
        .net("10.1.0.0/16".parse().unwrap())
        .service("web".parse().unwrap(), 80)
        .check(check);
    spec.restart = RestartPolicy::Always;
    spec
}

fn ail(world: &World, at: &str, container: &str, ailment: Option<Ailment>) {
    world.set_ailment(at, &name(container), ailment).unwrap();
}

fn fails(why: &str) -> Option<Ailment> {
    Some(Ailment::Fails(why.to_owned()))
}

/// Waits until so many instances of `web` are found; how long it took.
async fn count(world: &World, at: &str, wanted: usize) -> Duration {
    let began = Instant::now();
    while world.lookup(at, "web").len() != wanted {
        assert!(began.elapsed() < LIMIT, "never {wanted} instances at {at}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

/// Asserts that so many instances of `web` are found, at any moment of this time.
async fn steady(world: &World, at: &str, wanted: usize, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert_eq!(world.lookup(at, "web").len(), wanted);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Notes every health that is told of an instance.
async fn follow(
    mut watch: Watch<InstanceId, Instance>,
    seen: Arc<Mutex<Vec<(InstanceId, Health)>>>,
) {
    while let Some(change) = watch.next().await {
        let told: Vec<Instance> = match change {
            Change::Snapshot(all) => all.into_values().collect(),
            Change::Upsert(_, one) => vec![one],
            _ => Vec::new(),
        };
        let told = told.into_iter().map(|one| (one.id, one.health));
        seen.lock().unwrap().extend(told);
    }
}

fn told(events: &mut Receiver<ClusterEvent>) -> Vec<ContainerHealth> {
    std::iter::from_fn(|| events.try_recv().ok())
        .filter_map(|event| match event {
            ClusterEvent::Health { health, .. } => Some(health),
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_fails_its_check_leaves_lookups_everywhere_and_comes_back() {
    for probe in ["http:/health", "tcp", "cmd:test -e /tmp/well"] {
        let (world, nodes) = World::with_clusters(2).await;
        let mut events = nodes[1].events();
        for (at, name) in [("0.1", "w1"), ("0.2", "w2")] {
            world.start_foreign(at, &web(name, check(probe))).unwrap();
        }
        count(&world, "0.1", 2).await;
        ail(&world, "0.2", "w2", fails("no database"));
        // Found out at the next time, and certain two times later.
        let gone = count(&world, "0.1", 1).await;
        assert!(gone < Duration::from_secs(14), "{probe}: {gone:?}");
        assert_eq!(world.lookup("0.1", "web")[0].node, nodes[0].me());
        // It is there all the same, with the reason where it runs.
        let instances = nodes[0].instances().await.unwrap();
        let health: Vec<Health> = instances
            .iter()
            .filter(|one| one.service.as_str() == "web")
            .map(|one| one.health)
            .collect();
        assert_eq!(health, [Health::Passing, Health::Critical], "{probe}");
        let ContainerHealth::Failing { why } = &nodes[1].health()[&name("w2")] else {
            panic!("{probe}: {:?}", nodes[1].health());
        };
        let reason = match probe {
            "tcp" => "refuses the connection",
            _ => "no database",
        };
        assert!(why.starts_with(probe) && why.contains(reason), "{why}");

        ail(&world, "0.2", "w2", None);
        let back = count(&world, "0.1", 2).await;
        assert!(back < Duration::from_secs(12), "{probe}: {back:?}");
        let told = told(&mut events);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].is_passing() && !told[1].is_passing() && told[2].is_passing());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_instance_is_critical_until_it_passes_and_no_longer() {
    let (world, nodes) = World::with_clusters(2).await;
    // Its command needs a while before it answers.
    let spec = web("w1", check("http:/").every(Duration::from_secs(60)));
    world.start_foreign("0.2", &spec).unwrap();
    ail(&world, "0.2", "w1", fails("starting"));
    steady(&world, "0.1", 0, Duration::from_secs(20)).await;
    let all = nodes[0].instances().await.unwrap();
    let mut web = all.iter().filter(|one| one.service.as_str() == "web");
    assert_eq!(web.next().unwrap().health, Health::Critical);
    assert!(matches!(
        nodes[1].health()[&name("w1")],
        ContainerHealth::Starting { why: Some(_) }
    ));
    ail(&world, "0.2", "w1", None);
    let found = count(&world, "0.1", 1).await;
    assert!(found < Duration::from_millis(1_300), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn failures_now_and_then_do_not_flap() {
    let (world, nodes) = World::with_clusters(2).await;
    let spec = web("w1", check("http:/").every(Duration::from_millis(500)));
    world.start_foreign("0.2", &spec).unwrap();
    count(&world, "0.1", 1).await;
    let mut events = nodes[1].events();
    for _ in 0..20 {
        // Long enough for two failures, and never for three.
        ail(&world, "0.2", "w1", fails("busy"));
        steady(&world, "0.1", 1, Duration::from_millis(900)).await;
        ail(&world, "0.2", "w1", None);
        steady(&world, "0.1", 1, Duration::from_millis(1_200)).await;
    }
    assert_eq!(told(&mut events), []);
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_answer_fails_within_its_time() {
    let (world, nodes) = World::with_clusters(1).await;
    let quick = check("cmd:ask")
        .every(Duration::from_secs(2))
        .within(Duration::from_millis(500))
        .falling_after(NonZeroU32::MIN);
    world.start_foreign("0.1", &web("w1", quick)).unwrap();
    count(&world, "0.1", 1).await;
    ail(&world, "0.1", "w1", Some(Ailment::Hangs));
    let gone = count(&world, "0.1", 0).await;
    assert!(gone < Duration::from_secs(3), "{gone:?}");
    let why = nodes[0].health()[&name("w1")].to_string();
    assert_eq!(why, "failing: cmd:ask: no answer within 500ms");
}

#[tokio::test(start_paused = true)]
async fn the_engine_s_own_check_has_to_pass_too() {
    let (world, nodes) = World::with_clusters(1).await;
    world
        .start_foreign("0.1", &web("w1", check("tcp")))
        .unwrap();
    count(&world, "0.1", 1).await;
    for (ailment, engine, found) in [
        (None, EngineHealth::Starting, 0),
        (None, EngineHealth::Healthy, 1),
        (None, EngineHealth::Unhealthy, 0),
        (fails("no"), EngineHealth::Unhealthy, 0),
        (fails("no"), EngineHealth::Healthy, 0),
        (None, EngineHealth::Healthy, 1),
    ] {
        ail(&world, "0.1", "w1", ailment);
        world.set_health("0.1", &name("w1"), Some(engine)).unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(world.lookup("0.1", "web").len(), found, "{engine:?}");
        assert_eq!(nodes[0].health()[&name("w1")].is_passing(), found == 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_container_has_to_pass_anew_and_an_ended_one_is_not_asked() {
    let asked = Asked::default();
    let (world, cluster) = asked.node(1).await;
    world
        .start_foreign("0.1", &web("w1", check("tcp")))
        .unwrap();
    count(&world, "0.1", 1).await;
    // Between two looks nobody sees that it was gone.
    ail(&world, "0.1", "w1", fails("starting"));
    world.end_container("0.1", &name("w1"), 1).unwrap();
    let gone = count(&world, "0.1", 0).await;
    assert!(gone < Duration::from_millis(200), "{gone:?}");
    steady(&world, "0.1", 0, Duration::from_secs(5)).await;
    ail(&world, "0.1", "w1", None);
    count(&world, "0.1", 1).await;

    cluster.stop_container(&name("w1")).await.unwrap();
    world.settle().await;
    assert!(cluster.health().is_empty());
    let before = asked.times().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked.times().len(), before);
    // One that is removed while it is asked ends the question.
    world
        .start_foreign("0.1", &web("w2", check("tcp")))
        .unwrap();
    count(&world, "0.1", 1).await;
    ail(&world, "0.1", "w2", Some(Ailment::Hangs));
    while asked.under_way() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.remove(&name("w2")).await.unwrap();
    world.settle().await;
    assert_eq!(asked.under_way(), 0);
    assert!(cluster.health().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_keeps_what_serves_in_lookups_and_leaves_nothing_stale() {
    let (world, mut nodes) = World::with_clusters(2).await;
    for name in ["w1", "w2"] {
        world
            .start_foreign("0.2", &web(name, check("http:/")))
            .unwrap();
    }
    count(&world, "0.1", 2).await;
    world.crash("0.2");
    nodes.pop();
    // While nobody asks, one of them comes to fail.
    ail(&world, "0.2", "w2", fails("no database"));
    world.settle().await;
    let watch = nodes[0].discovery().watch(Selector::All).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let following = tokio::spawn(follow(watch, Arc::clone(&seen)));
    let membership = world.store("0.2").load().unwrap().unwrap();
    let cluster = world.cluster("0.2");
    cluster.resume(membership).await.unwrap();
    following.abort();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let of_w1 = seen.iter().filter(|(id, _)| id.as_str().contains(":w1:"));
    let of_w1: Vec<Health> = of_w1.map(|(_, health)| *health).collect();
    assert_eq!(of_w1, [Health::Suspended, Health::Passing]);
    // The one that passes is back with its agent, with no moment out of lookups after that; the other is not.
    steady(&world, "0.1", 1, Duration::from_secs(60)).await;
    assert!(matches!(
        cluster.health()[&name("w2")],
        ContainerHealth::Failing { .. }
    ));
    ail(&world, "0.2", "w2", None);
    count(&world, "0.1", 2).await;
    // And when its agent stops in order, nothing asks any more.
    cluster.stop().await.unwrap();
    assert!(cluster.health().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_prober_it_gets_no_traffic_and_says_why() {
    let world = World::new(1);
    let node: NodeAddr = "0.1".parse().unwrap();
    let cluster = builder(&world, node).build().unwrap();
    cluster
        .boot(&Password::new("Apples").unwrap())
        .await
        .unwrap();
    let slow = check("tcp").starting_within(Duration::ZERO);
    world.start_foreign("0.1", &web("w1", slow)).unwrap();
    world
        .start_foreign("0.1", &web("w2", check("cmd:true")))
        .unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.lookup("0.1", "web").len(), 1);
    let why = cluster.health()[&name("w1")].to_string();
    assert!(why.contains("nothing to ask containers with"), "{why}");
}

fn builder(world: &World, node: NodeAddr) -> arpanet_core::cluster::ClusterBuilder {
    Cluster::builder()
        .node(node)
        .overlay(Arc::new(world.overlay(node)))
        .discovery(Arc::new(world.discovery(node)))
        .runtime(Arc::new(world.runtime(node)))
        .admission(Arc::new(world.admission(node)))
}

/// A prober that notes when it was asked for whom, and how often at once.
#[derive(Debug, Clone, Default)]
struct Asked {
    notes: Arc<Mutex<Notes>>,
    world: Option<World>,
    takes: Duration,
}

#[derive(Debug, Default)]
struct Notes {
    times: Vec<(SocketAddrV4, Instant)>,
    under_way: usize,
    most: usize,
}

impl Asked {
    async fn node(&self, seed: u64) -> (World, Cluster) {
        let world = World::new(1);
        let prober = Self {
            world: Some(world.clone()),
            ..self.clone()
        };
        let builder = builder(&world, "0.1".parse().unwrap()).seed(seed);
        let cluster = builder.prober(Arc::new(prober)).build().unwrap();
        cluster
            .boot(&Password::new("Apples").unwrap())
            .await
            .unwrap();
        (world, cluster)
    }

    fn times(&self) -> Vec<(SocketAddrV4, Instant)> {
        self.notes.lock().unwrap().times.clone()
    }

    fn under_way(&self) -> usize {
        self.notes.lock().unwrap().under_way
    }
}

/// Counts a question for as long as it is under way, also when it is dropped.
struct UnderWay(Arc<Mutex<Notes>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().unwrap().under_way -= 1;
    }
}

#[async_trait]
impl Prober for Asked {
    fn name(&self) -> &'static str {
        "noted"
    }

    async fn connect(&self, to: SocketAddrV4) -> Result<()> {
        let _under_way = {
            let mut notes = self.notes.lock().unwrap();
            notes.times.push((to, Instant::now()));
            notes.under_way += 1;
            notes.most = notes.most.max(notes.under_way);
            UnderWay(Arc::clone(&self.notes))
        };
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        let world = self.world.as_ref().unwrap();
        world.prober("0.1").connect(to).await
    }
}

async fn two_hundred(asked: &Asked) -> (World, Cluster) {
    let (world, cluster) = asked.node(7).await;
    for number in 0..200 {
        let mut spec = web(&format!("w{number}"), check("tcp"));
        spec.nets = vec![format!("10.1.1.{}/16", number + 1).parse().unwrap()];
        world.start_foreign("0.1", &spec).unwrap();
    }
    count(&world, "0.1", 200).await;
    (world, cluster)
}

#[tokio::test(start_paused = true)]
async fn two_hundred_are_asked_at_their_interval_each_in_its_own_moment() {
    let asked = Asked::default();
    let (_world, _cluster) = two_hundred(&asked).await;
    // Behind the first of them, which were asked as soon as they were there.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let from = Instant::now();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let times = asked.times();
    let mut by_container: BTreeMap<SocketAddrV4, Vec<Instant>> = BTreeMap::new();
    for (to, at) in times.into_iter().filter(|(_, at)| *at >= from) {
        by_container.entry(to).or_default().push(at);
    }
    assert_eq!(by_container.len(), 200);
    let mut moments = BTreeSet::new();
    let mut tenths: BTreeMap<u128, usize> = BTreeMap::new();
    for times in by_container.values() {
        assert!((9..=11).contains(&times.len()), "{}", times.len());
        for pair in times.windows(2) {
            let gap = (pair[1] - pair[0]).as_secs_f64();
            assert!((9.0..=11.01).contains(&gap), "{gap}");
        }
        for at in times {
            moments.insert(*at);
            *tenths.entry((*at - from).as_millis() / 100).or_default() += 1;
        }
    }
    // 20 a second, and never many at once.
    let most = tenths.values().max().unwrap();
    assert!(*most <= 12, "{most} in a tenth of a second");
    assert!(moments.len() > 1_000, "{}", moments.len());
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_bounded_number_is_asked_at_once_and_all_have_their_turn() {
    let asked = Asked {
        takes: Duration::from_secs(2),
        ..Asked::default()
    };
    let (_world, cluster) = two_hundred(&asked).await;
    assert_eq!(asked.notes.lock().unwrap().most, 64);
    assert_eq!(cluster.health().len(), 200);
}
