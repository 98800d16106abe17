//! Nodes in one backend, services in another.
#![allow(clippy::unwrap_used)]

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arpanet_core::admission::{Membership, Password, Seed};
use arpanet_core::discovery::{Health, Instance, LayeredDiscovery, MemberState, Selector, Spread};
use arpanet_core::memory::World;
use arpanet_core::mock::{MockDiscovery, MockOverlay, Sequence};
use arpanet_core::overlay::{Announcement, OverlayCapabilities};
use arpanet_core::roster::Role;
use arpanet_core::watch::{Change, WatchHub};
use arpanet_core::{Cluster, Discovery, Error, ErrorKind, NodeAddr, Overlay};

/// Two nodes, in two worlds: one for each layer.
struct Scene {
    members: World,
    catalogue: World,
    memberships: Vec<Membership>,
    nodes: Vec<LayeredDiscovery>,
}

impl Scene {
    async fn new() -> Self {
        let (members, catalogue) = (World::new(1), World::new(2));
        let memberships = members.memberships(2).await.unwrap();
        catalogue.memberships(2).await.unwrap();
        let layered = |membership: &Membership| {
            let node = membership.me.node;
            let (low, high) = (members.discovery(node), catalogue.discovery(node));
            LayeredDiscovery::new(Arc::new(low), Arc::new(high))
        };
        let nodes = memberships.iter().map(layered).collect();
        Self {
            members,
            catalogue,
            memberships,
            nodes,
        }
    }

    fn place(&self, node: usize) -> NodeAddr {
        self.memberships[node].me.node
    }

    fn web(&self, node: usize) -> Instance {
        let at = self.place(node);
        let id = format!("{at}:web").parse().unwrap();
        Instance::new(id, "web".parse().unwrap(), at.overlay(), 80, at)
    }

    async fn start(&self, node: usize) {
        self.nodes[node]
            .start(&self.memberships[node])
            .await
            .unwrap();
    }

    async fn found(&self, node: usize) -> Vec<Instance> {
        self.nodes[node]
            .lookup(&"web".parse().unwrap())
            .await
            .unwrap()
    }

    /// Waits until a watch on a node has told this health of an instance.
    async fn comes_to(&self, node: usize, instance: &Instance, health: Health) {
        let wanted = instance.clone().health(health);
        let mut watch = self.nodes[node].watch(Selector::All).await.unwrap();
        let told = async {
            loop {
                match watch.next().await.unwrap() {
                    Change::Snapshot(set) if set.get(&wanted.id) == Some(&wanted) => return,
                    Change::Upsert(_, seen) if seen == wanted => return,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told)
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_before_the_catalogue_is_up_is_handed_to_it() {
    let scene = Scene::new().await;
    for node in 0..2 {
        scene.start(node).await;
    }
    let (web, other) = (scene.web(0), scene.web(1));
    let spread = scene.nodes[0].register(web.clone()).await.unwrap();
    assert!(spread.unconfirmed.contains(&scene.place(1)), "{spread:?}");
    scene.nodes[1].register(other.clone()).await.unwrap();
    scene.nodes[1].deregister(&other.id).await.unwrap();
    let refused = scene.nodes[0].register(other).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(scene.found(0).await.is_empty());
    for node in &scene.nodes {
        node.start_on_overlay(false).await.unwrap();
    }
    assert_eq!(scene.found(0).await, std::slice::from_ref(&web));
    assert_eq!(scene.found(1).await, [web]);
}

#[tokio::test(start_paused = true)]
async fn a_node_returns_without_its_catalogue_and_has_it_as_soon_as_it_is_there() {
    let scene = Scene::new().await;
    let is_up = Arc::new(AtomicBool::new(false));
    let engine = WatchHub::new();
    let mut catalogue = MockDiscovery::new();
    catalogue.expect_name().return_const("mock");
    let up = Arc::clone(&is_up);
    catalogue.expect_start().returning(move |_| {
        let refused = || Error::new(ErrorKind::Unavailable, "no leader");
        up.load(Ordering::Relaxed).then_some(()).ok_or_else(refused)
    });
    catalogue.expect_start_on_overlay().returning(|_| Ok(()));
    let hub = engine.clone();
    catalogue.expect_watch().returning(move |_| Ok(hub.watch()));
    let hub = engine.clone();
    catalogue.expect_register().returning(move |instance| {
        hub.upsert(instance.id.clone(), instance);
        Ok(Spread::default())
    });
    let members = Arc::new(scene.members.discovery(scene.place(0)));
    let node = LayeredDiscovery::new(members, Arc::new(catalogue));

    node.start(&scene.memberships[0]).await.unwrap();
    let refused = node.start_on_overlay(false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    node.start_on_overlay(true).await.unwrap();
    node.start_on_overlay(true).await.unwrap();
    let mut watch = node.watch(Selector::All).await.unwrap();
    assert!(matches!(watch.next().await, Some(Change::Snapshot(set)) if set.is_empty()));
    assert_eq!(watch.next().await, Some(Change::Stale));
    let web = scene.web(0);
    node.register(web.clone()).await.unwrap();

    is_up.store(true, Ordering::Relaxed);
    assert_eq!(watch.next().await, Some(Change::Fresh));
    assert_eq!(
        watch.next().await,
        Some(Change::Upsert(web.id.clone(), web.clone()))
    );
    // A catalogue that takes a change and does not show it is told of, at once while it is out of reach.
    engine.set_stale(true);
    assert_eq!(watch.next().await, Some(Change::Stale));
    let refused = node.register(web.tagged(["blue".parse().unwrap()])).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_returning_catalogue_is_given_the_key_as_it_is_by_now() {
    let scene = Scene::new().await;
    let given = Arc::new(Mutex::new(Vec::new()));
    let mut catalogue = MockDiscovery::new();
    catalogue.expect_name().return_const("mock");
    let told = Arc::clone(&given);
    catalogue.expect_start().returning(move |membership| {
        told.lock().unwrap().push(membership.key.clone());
        Err(Error::new(ErrorKind::Unavailable, "no leader"))
    });
    let members = Arc::new(scene.members.discovery(scene.place(0)));
    let node = LayeredDiscovery::new(members, Arc::new(catalogue));
    node.start(&scene.memberships[0]).await.unwrap();
    node.start_on_overlay(false).await.unwrap_err();
    let founded = given.lock().unwrap().pop().unwrap();
    assert_eq!(founded, scene.memberships[0].key);
    node.turn_over(None).await.unwrap();
    let now = node.watch_keys().await.unwrap().borrow().key.clone();
    assert_ne!(now, founded);
    node.start_on_overlay(true).await.unwrap();
    assert_eq!(given.lock().unwrap().first(), Some(&now));
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_in_lookups_only_where_both_layers_see_its_node_alive() {
    let scene = Scene::new().await;
    for node in 0..2 {
        scene.start(node).await;
        scene.nodes[node].start_on_overlay(false).await.unwrap();
    }
    let web = scene.web(1);
    scene.nodes[1].register(web.clone()).await.unwrap();
    for world in [&scene.members, &scene.catalogue] {
        scene.comes_to(0, &web, Health::Passing).await;
        world.cut(scene.place(1));
        scene.comes_to(0, &web, Health::Suspended).await;
        assert!(scene.found(0).await.is_empty());
        world.heal(scene.place(1));
    }
    scene.comes_to(0, &web, Health::Passing).await;
    let members = scene.nodes[0].members().await.unwrap();
    assert!(members.iter().all(|it| it.state == MemberState::Alive));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_node_answers_nothing_and_can_be_started_again() {
    let scene = Scene::new().await;
    scene.start(0).await;
    scene.nodes[0].start_on_overlay(false).await.unwrap();
    let web = scene.web(0);
    scene.nodes[0].register(web.clone()).await.unwrap();
    let mut watch = scene.nodes[0].watch(Selector::All).await.unwrap();
    scene.nodes[0].stop().await.unwrap();
    let refused = scene.nodes[0].register(web.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let end = async { while watch.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(1), end)
        .await
        .unwrap();
    scene.start(0).await;
    scene.nodes[0].start_on_overlay(false).await.unwrap();
    scene.nodes[0].register(web.clone()).await.unwrap();
    assert_eq!(scene.found(0).await, [web]);
}

/// A node of this world on these layers.
fn node_on(
    world: &World,
    node: &str,
    overlay: Arc<dyn Overlay>,
    discovery: Arc<dyn Discovery>,
) -> Cluster {
    let node = node.parse::<NodeAddr>().unwrap();
    let host = world.host(node);
    Cluster::builder()
        .node(node)
        .overlay(overlay)
        .discovery(discovery)
        .admission(Arc::new(host.admission()))
        .store(Arc::new(host.store()))
        .build()
        .unwrap()
}

/// Has 0.2 on these layers join a cluster whose layers are in memory, and says why it is refused.
async fn refused(world: &World, overlay: Arc<dyn Overlay>, discovery: Arc<dyn Discovery>) -> Error {
    let host = world.host("0.1");
    let (below, members) = (Arc::new(host.overlay()), Arc::new(host.discovery()));
    let boot = node_on(world, "0.1", below, members);
    let password = Password::new("Apples").unwrap();
    boot.boot(&password).await.unwrap();
    let joining = node_on(world, "0.2", overlay, discovery);
    let seed = Seed::new("0.1".parse().unwrap(), world.endpoint("0.1"));
    let joined = joining.join(&password, Role::Server, seed, false).await;
    let members = boot.discovery().members().await.unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    joined.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_node_with_another_discovery_than_the_cluster_is_refused() {
    let world = World::new(1);
    let host = world.host("0.2");
    let mut catalogue = MockDiscovery::new();
    catalogue.expect_name().return_const("mock");
    // It may have come half way.
    catalogue.expect_forget().returning(|_| Ok(()));
    catalogue.expect_leave().returning(|_| Ok(()));
    let layered = LayeredDiscovery::new(Arc::new(host.discovery()), Arc::new(catalogue));
    let refused = refused(&world, Arc::new(host.overlay()), Arc::new(layered)).await;
    assert_eq!(refused.kind(), ErrorKind::Incompatible, "{refused}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("memory")));
}

#[tokio::test(start_paused = true)]
async fn a_node_with_another_overlay_than_the_cluster_is_refused_whether_or_not_it_can_read_the_others()
 {
    for can_read in [true, false] {
        let world = World::new(1);
        let host = world.host("0.2");
        let mut overlay = MockOverlay::new();
        overlay.expect_name().return_const("mock");
        overlay
            .expect_capabilities()
            .return_const(OverlayCapabilities::all());
        overlay.expect_preflight().returning(|_| Ok(()));
        overlay
            .expect_launch()
            .returning(|_| Ok(Announcement::default()));
        overlay.expect_expose().returning(|_| Ok(()));
        overlay.expect_attached().returning(|| Ok(Vec::new()));
        overlay.expect_allow_wide().returning(|_| Ok(()));
        overlay.expect_connect().returning(move |_| match can_read {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::InvalidInput, "unreadable")),
        });
        overlay.expect_forget().returning(|_| Ok(()));
        overlay.expect_reset().times(1).returning(|| Ok(()));
        let refused = refused(&world, Arc::new(overlay), Arc::new(host.discovery())).await;
        assert_eq!(refused.kind(), ErrorKind::Incompatible, "{refused}");
        let words = refused.source().map(ToString::to_string);
        let words = format!("{refused} {words:?}");
        assert!(words.contains("this node's overlay is mock"), "{words}");
        assert!(
            refused
                .hint()
                .is_some_and(|hint| hint.contains("overlay memory"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_gives_itself_up_leaves_the_catalogue_while_the_overlay_still_works() {
    let world = World::new(1);
    let membership = world.memberships(1).await.unwrap().remove(0);
    let me = membership.me.node;
    let mut order = Sequence::new();
    let (mut members, mut catalogue) = (MockDiscovery::new(), MockDiscovery::new());
    members.expect_name().return_const("mock");
    catalogue.expect_name().return_const("mock");
    members.expect_start().returning(|_| Ok(()));
    let stays = || Err(Error::unsupported("mock", "tell the cluster's key"));
    members.expect_watch_keys().returning(stays);
    members
        .expect_watch_members()
        .returning(|| Ok(WatchHub::new().watch()));
    catalogue.expect_start().returning(|_| Ok(()));
    catalogue.expect_start_on_overlay().returning(|_| Ok(()));
    catalogue
        .expect_watch()
        .returning(|_| Ok(WatchHub::new().watch()));
    let forgets = catalogue.expect_forget().times(1);
    forgets.in_sequence(&mut order).returning(|_| Ok(()));
    let leaves = catalogue.expect_leave().times(1);
    leaves.in_sequence(&mut order).returning(|_| Ok(()));
    let forgets = members.expect_forget().times(1);
    forgets.in_sequence(&mut order).returning(|_| Ok(()));
    let leaves = members.expect_leave().times(1);
    leaves.in_sequence(&mut order).returning(|_| Ok(()));
    // A second call does nothing.
    catalogue.expect_leave().returning(|_| Ok(()));
    let node = LayeredDiscovery::new(Arc::new(members), Arc::new(catalogue));
    node.start(&membership).await.unwrap();
    node.start_on_overlay(false).await.unwrap();
    node.forget(me).await.unwrap();
    node.leave(Duration::from_secs(1)).await.unwrap();
}
