//! A node on mocks that all write into one journal.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Password, Secret, Seed};
use arpanet_core::discovery::{DiscoveryCapabilities, Member, Record, RecordKey, Spread};
use arpanet_core::mock::{
    MockAdmission, MockDiscovery, MockFacility, MockMembershipStore, MockOverlay, MockRuntime,
};
use arpanet_core::overlay::{Announcement, NetNamespace, OverlayCapabilities};
use arpanet_core::roster::{ClusterId, Identity, Role, Roster, RosterEntry};
use arpanet_core::runtime::{Container, ContainerSpec, ContainerState, RuntimeCapabilities};
use arpanet_core::watch::WatchHub;
use arpanet_core::{Cluster, ContainerName, Error, ErrorKind, NodeAddr, Result};

use crate::journal::Journal;

/// A node that is put together from mocks, and what they tell of the world.
pub(crate) struct Rig {
    pub(crate) journal: Journal,
    pub(crate) cluster: Cluster,
    pub(crate) members: WatchHub<NodeAddr, Member>,
    pub(crate) records: WatchHub<(NodeAddr, RecordKey), Record>,
    pub(crate) engine: Engine,
}

/// The containers that the mocked runtime has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Engine(Arc<Mutex<Vec<Container>>>);

impl Engine {
    pub(crate) fn names(&self) -> Vec<String> {
        let containers = self.0.lock().unwrap();
        containers.iter().map(|one| one.name.to_string()).collect()
    }

    fn put(&self, spec: &ContainerSpec) -> Container {
        let container = Container::new(
            spec.name.clone().unwrap(),
            "1",
            spec.clone(),
            SystemTime::UNIX_EPOCH,
        )
        .namespace(Some(NetNamespace::Simulated(1)));
        self.0.lock().unwrap().push(container.clone());
        container
    }

    fn get(&self, name: &ContainerName) -> Result<Container> {
        let containers = self.0.lock().unwrap();
        let found = containers.iter().find(|one| one.name == *name);
        found
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no such container"))
    }

    fn start(&self, name: &ContainerName) {
        let mut containers = self.0.lock().unwrap();
        for one in containers.iter_mut().filter(|one| one.name == *name) {
            one.state = ContainerState::Running;
        }
    }

    fn remove(&self, name: &ContainerName) {
        self.0.lock().unwrap().retain(|one| one.name != *name);
    }
}

pub(crate) fn me() -> NodeAddr {
    "0.2".parse().unwrap()
}

pub(crate) fn seed() -> Seed {
    Seed::new("0.1".parse().unwrap(), "192.0.2.1:51820".parse().unwrap())
}

pub(crate) fn password() -> Password {
    Password::new("Apples").unwrap()
}

pub(crate) fn membership(me: &NodeInfo) -> Membership {
    let identity = Identity::from_bytes([2; 32]);
    Membership::new(
        me.clone(),
        identity,
        ClusterId::from_bytes([1; 16]),
        ClusterKey::new(1, Secret::from_bytes([3; 32])),
        [RosterEntry::new(
            me.node,
            me.name.clone(),
            me.role,
            identity,
            0,
        )]
        .into_iter()
        .collect(),
    )
}

impl Rig {
    pub(crate) fn new() -> Self {
        let journal = Journal::default();
        let (members, records, engine) = (WatchHub::new(), WatchHub::new(), Engine::default());
        let cluster = Cluster::builder()
            .node(me())
            .name("n2".parse().unwrap())
            .overlay(Arc::new(overlay(&journal)))
            .discovery(Arc::new(discovery(&journal, &members, &records)))
            .runtime(Arc::new(runtime(&journal, &engine)))
            .admission(Arc::new(admission(&journal)))
            .store(Arc::new(store(&journal)))
            .facility(Arc::new(facility(&journal, "dns")))
            .facility(Arc::new(facility(&journal, "docker")))
            .build()
            .unwrap();
        Self {
            journal,
            cluster,
            members,
            records,
            engine,
        }
    }

    /// The seed is a member, and has announced its overlay.
    pub(crate) fn seed_is_heard(&self) {
        let seed = seed().node;
        let member = Member::new(seed, "n1".parse().unwrap(), Role::Boot);
        self.members.upsert(seed, member);
        for (key, value) in [("node", r#"{"version": "0.1.0"}"#), ("overlay", "key")] {
            self.records
                .upsert((seed, key.to_owned()), Record::new(value.into()));
        }
    }

    /// Lets the node's task do what it has to do.
    pub(crate) async fn rest(&self) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

fn overlay(journal: &Journal) -> MockOverlay {
    let mut mock = MockOverlay::new();
    mock.expect_name().return_const("mock");
    mock.expect_capabilities()
        .returning(OverlayCapabilities::all);
    let log = journal.clone();
    mock.expect_preflight()
        .returning(move |_| log.call("overlay.preflight"));
    let log = journal.clone();
    mock.expect_launch().returning(move |_| {
        log.call("overlay.launch")
            .map(|()| Announcement("mine".into()))
    });
    let log = journal.clone();
    mock.expect_expose()
        .returning(move |plane| log.call(format!("overlay.expose {plane:?}")));
    let log = journal.clone();
    mock.expect_connect()
        .returning(move |peer| log.call(format!("overlay.connect {}", peer.node)));
    let log = journal.clone();
    mock.expect_attach()
        .returning(move |attachment| log.call(format!("overlay.attach {}", attachment.container)));
    let log = journal.clone();
    mock.expect_detach()
        .returning(move |container, _| log.call(format!("overlay.detach {container}")));
    let log = journal.clone();
    mock.expect_attached()
        .returning(move || log.call("overlay.attached").map(|()| Vec::new()));
    let log = journal.clone();
    mock.expect_wait_reachable()
        .returning(move |node, _| log.call(format!("overlay.wait_reachable {node}")));
    let log = journal.clone();
    mock.expect_stop()
        .returning(move || log.call("overlay.stop"));
    let log = journal.clone();
    mock.expect_reset()
        .returning(move || log.call("overlay.reset"));
    mock
}

fn discovery(
    journal: &Journal,
    members: &WatchHub<NodeAddr, Member>,
    records: &WatchHub<(NodeAddr, RecordKey), Record>,
) -> MockDiscovery {
    let mut mock = MockDiscovery::new();
    mock.expect_name().return_const("mock");
    mock.expect_capabilities()
        .returning(DiscoveryCapabilities::all);
    let log = journal.clone();
    mock.expect_start()
        .returning(move |_| log.call("discovery.start"));
    let log = journal.clone();
    mock.expect_start_on_overlay()
        .returning(move |_| log.call("discovery.start_on_overlay"));
    let log = journal.clone();
    mock.expect_publish().returning(move |key, _| {
        log.call(format!("discovery.publish {key}"))
            .map(|()| Spread::default())
    });
    let log = journal.clone();
    mock.expect_retract()
        .returning(move |key| log.call(format!("discovery.retract {key}")));
    let log = journal.clone();
    mock.expect_register().returning(move |instance| {
        log.call(format!("discovery.register {}", instance.id))
            .map(|()| Spread::default())
    });
    let log = journal.clone();
    mock.expect_deregister()
        .returning(move |id| log.call(format!("discovery.deregister {id}")));
    let (log, hub) = (journal.clone(), members.clone());
    mock.expect_watch_members()
        .returning(move || log.call("discovery.watch_members").map(|()| hub.watch()));
    let (log, hub) = (journal.clone(), records.clone());
    mock.expect_watch_records()
        .returning(move |_| log.call("discovery.watch_records").map(|()| hub.watch()));
    let log = journal.clone();
    mock.expect_roster()
        .returning(move || log.call("discovery.roster").map(|()| Roster::new()));
    let log = journal.clone();
    mock.expect_forget()
        .returning(move |node| log.call(format!("discovery.forget {node}")));
    let log = journal.clone();
    mock.expect_leave()
        .returning(move |_| log.call("discovery.leave"));
    let log = journal.clone();
    mock.expect_stop()
        .returning(move || log.call("discovery.stop"));
    mock
}

fn runtime(journal: &Journal, engine: &Engine) -> MockRuntime {
    let mut mock = MockRuntime::new();
    mock.expect_capabilities()
        .returning(|| RuntimeCapabilities::all().without_resolver());
    let log = journal.clone();
    mock.expect_watch()
        .returning(move || log.call("runtime.watch").map(|()| WatchHub::new().watch()));
    let (log, containers) = (journal.clone(), engine.clone());
    mock.expect_inspect().returning(move |name| {
        log.call(format!("runtime.inspect {name}"))?;
        containers.get(name)
    });
    let (log, containers) = (journal.clone(), engine.clone());
    mock.expect_create().returning(move |spec| {
        log.call(format!("runtime.create {}", spec.name.clone().unwrap()))?;
        Ok(containers.put(spec))
    });
    let (log, containers) = (journal.clone(), engine.clone());
    mock.expect_start().returning(move |name| {
        log.call(format!("runtime.start {name}"))?;
        containers.start(name);
        Ok(())
    });
    let (log, containers) = (journal.clone(), engine.clone());
    mock.expect_remove().returning(move |name| {
        log.call(format!("runtime.remove {name}"))?;
        containers.remove(name);
        Ok(())
    });
    let (log, containers) = (journal.clone(), engine.clone());
    mock.expect_list().returning(move || {
        log.call("runtime.list")?;
        Ok(containers.0.lock().unwrap().clone())
    });
    mock
}

fn admission(journal: &Journal) -> MockAdmission {
    let mut mock = MockAdmission::new();
    let log = journal.clone();
    mock.expect_found()
        .returning(move |_, me| log.call("admission.found").map(|()| membership(me)));
    let log = journal.clone();
    mock.expect_join()
        .returning(move |_, me, _, _| log.call("admission.join").map(|()| membership(me)));
    let log = journal.clone();
    mock.expect_withdraw()
        .returning(move |_, _, _| log.call("admission.withdraw").map(|()| false));
    let log = journal.clone();
    mock.expect_serve()
        .returning(move |_, _| log.call("admission.serve"));
    let log = journal.clone();
    mock.expect_stop()
        .returning(move || log.call("admission.stop"));
    mock
}

fn store(journal: &Journal) -> MockMembershipStore {
    let mut mock = MockMembershipStore::new();
    let log = journal.clone();
    mock.expect_save()
        .returning(move |_| log.call("store.save"));
    let log = journal.clone();
    mock.expect_clear()
        .returning(move || log.call("store.clear"));
    mock
}

fn facility(journal: &Journal, name: &'static str) -> MockFacility {
    let mut mock = MockFacility::new();
    mock.expect_name().return_const(name);
    let log = journal.clone();
    mock.expect_start()
        .returning(move |_| log.call(format!("{name}.start")));
    let log = journal.clone();
    mock.expect_stop()
        .returning(move || log.call(format!("{name}.stop")));
    mock
}
