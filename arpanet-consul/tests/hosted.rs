//! The life of a node's consul process, with a real one: founded once, found again, started again, left.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod consuls;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arpanet_consul::agent::{AgentState, Connect, ConsulAgentConfig, Spawn};
use arpanet_consul::{ConsulAgent, ConsulConfig, ConsulDiscovery, ConsulKeyValue, HostedConsul};
use arpanet_core::admission::{ClusterKey, Membership, Secret};
use arpanet_core::kv::KeyValue;
use arpanet_core::roster::Role;
use arpanet_core::{Discovery, ErrorKind};
use arpanet_netlink::Namespace;
use serde_json::Value;
use tempfile::TempDir;

use crate::consuls::{binary, get, hosts, memberships, memberships_as, told, until, until_ok};

/// A host for a node's consul. Its process ends with it.
struct Host {
    folder: PathBuf,
    namespace: Arc<Namespace>,
    /// Where all have their folders: the last one's drop removes it, once its process was ended by what is in there.
    _all: Arc<TempDir>,
}

impl Host {
    /// So many on one switch, which lives as long as the last value.
    async fn several(count: u8) -> (Vec<Self>, Namespace) {
        let folder = Arc::new(TempDir::with_prefix("arpanet-hosted-").unwrap());
        let (switch, namespaces) = hosts(count).await;
        let host = |(number, namespace): (usize, Namespace)| Self {
            folder: folder.path().join(number.to_string()),
            namespace: Arc::new(namespace),
            _all: Arc::clone(&folder),
        };
        let all = namespaces.into_iter().enumerate().map(host).collect();
        (all, switch)
    }

    fn socket(&self) -> PathBuf {
        self.folder.with_extension("sock")
    }

    fn agent_of(&self, program: &Path) -> Arc<ConsulAgent> {
        let namespace = Arc::clone(&self.namespace);
        let spawn: Spawn = Arc::new(move |command| {
            let spawned = namespace.run(|| command.spawn());
            spawned.map_err(std::io::Error::other)?
        });
        let namespace = Arc::clone(&self.namespace);
        let connect: Connect = Arc::new(move |at| {
            let connected = namespace.run(|| TcpStream::connect(at));
            connected.map_err(std::io::Error::other)?
        });
        let config = ConsulAgentConfig::new(program, &self.folder, self.socket());
        let agent = ConsulAgent::new(config, spawn).unwrap();
        Arc::new(agent.connecting(connect))
    }

    fn agent(&self) -> Arc<ConsulAgent> {
        self.agent_of(&binary().unwrap())
    }

    fn config(&self) -> ConsulConfig {
        ConsulConfig::default().address(format!("unix:{}", self.socket().display()))
    }

    fn hosted(&self) -> HostedConsul {
        HostedConsul::new(self.agent(), ConsulDiscovery::new(self.config()).unwrap())
    }

    fn store(&self) -> ConsulKeyValue {
        ConsulKeyValue::new(self.config()).unwrap()
    }

    fn pid(&self) -> Option<i64> {
        let process = fs::read(self.folder.join("process.json")).ok()?;
        serde_json::from_slice::<Value>(&process).ok()?["pid"].as_i64()
    }

    fn kill(&self) {
        if let Some(pid) = self.pid() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }

    /// The addresses of the servers that have to agree.
    fn peers(&self) -> Option<usize> {
        get(&self.socket(), "/v1/status/peers")?
            .as_array()
            .map(Vec::len)
    }

    /// By how many agents each key of gossip is had, in rising order.
    fn keys(&self) -> Vec<u64> {
        let told = get(&self.socket(), "/v1/operator/keyring").unwrap();
        let keys = told[0]["Keys"].as_object().unwrap();
        let mut counts: Vec<u64> = keys.values().map(|had| had.as_u64().unwrap()).collect();
        counts.sort_unstable();
        counts
    }

    /// What consul here thinks of another: 1 alive, 3 left, 4 failed (serf's states).
    fn thinks_of(&self, name: &str) -> Option<i64> {
        let members = get(&self.socket(), "/v1/agent/members")?;
        let mut members = members.as_array()?.iter();
        members.find(|member| member["Name"] == name)?["Status"].as_i64()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

fn running(agent: &ConsulAgent) -> Option<i32> {
    match *agent.state().borrow() {
        AgentState::Running { pid } => Some(pid),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_founded_once_and_its_process_is_found_again() {
    require_consul!();
    let (hosts, _switch) = Host::several(1).await;
    let [host] = &hosts[..] else { unreachable!() };
    let me = &memberships(1)[0];
    let agent = host.agent();
    agent.start(me).await.unwrap();
    let first = running(&agent).unwrap();
    agent.start(me).await.unwrap();
    assert_eq!(running(&agent), Some(first));
    // It stood for election because it was asked to, and not because it had waited for a leader.
    let log = fs::read_dir(host.folder.join("log")).unwrap().flatten();
    let log: String = log
        .map(|log| fs::read_to_string(log.path()).unwrap())
        .collect();
    assert!(log.contains("entering candidate state"), "{log}");
    assert!(!log.contains("heartbeat timeout reached"), "{log}");
    let key = "paas/web".parse().unwrap();
    until_ok("it takes values", async || {
        host.store().put(&key, "one".into()).await.ok()
    })
    .await;

    // As a later process of ours does.
    agent.release().await;
    assert_eq!(running(&agent), None);
    let later = host.agent();
    later.start(me).await.unwrap();
    assert_eq!(running(&later), Some(first));

    later.stop().await.unwrap();
    later.stop().await.unwrap();
    let process = PathBuf::from(format!("/proc/{first}"));
    until("it is gone", || (!process.exists()).then_some(())).await;
    later.start(me).await.unwrap();
    assert_ne!(running(&later), Some(first));
    let kept = until_ok("it reads", async || host.store().get(&key).await.ok()).await;
    assert_eq!(kept.unwrap().value, "one");
    for (name, mode) in [("", 0o700), ("consul.json", 0o600), ("process.json", 0o600)] {
        let path = host.folder.join(name);
        let found = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_joins_and_one_that_is_killed_is_started_again_and_meets_the_others() {
    require_consul!();
    let (hosts, _switch) = Host::several(2).await;
    let first = hosts[0].agent();
    first.start(&memberships(1)[0]).await.unwrap();
    let second = hosts[1].agent();
    second.start(&memberships(2)[1]).await.unwrap();
    until("both are servers", || {
        (hosts[0].peers() == Some(2)).then_some(())
    })
    .await;

    let pid = running(&second).unwrap();
    let mut state = second.state();
    hosts[1].kill();
    let other = async {
        loop {
            state.changed().await.unwrap();
            if let AgentState::Running { pid: now } = *state.borrow_and_update()
                && now != pid
            {
                return;
            }
        }
    };
    tokio::time::timeout(consuls::LIMIT, other).await.unwrap();
    let key = "paas/web".parse().unwrap();
    until_ok("it takes values", async || {
        hosts[1].store().put(&key, "one".into()).await.ok()
    })
    .await;
    until("it is alive", || {
        (hosts[0].thinks_of("node2") == Some(1)).then_some(())
    })
    .await;
    assert_eq!(hosts[0].peers(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_node_that_lost_its_data_founds_no_second_cluster() {
    require_consul!();
    let (hosts, _switch) = Host::several(2).await;
    let agents = [hosts[0].agent(), hosts[1].agent()];
    agents[0].start(&memberships(1)[0]).await.unwrap();
    let both = memberships(2);
    agents[1].start(&both[1]).await.unwrap();
    let key = "paas/web".parse().unwrap();
    until_ok("it takes values", async || {
        hosts[1].store().put(&key, "one".into()).await.ok()
    })
    .await;

    // The others are in its roster, and don't answer: it waits for them, and stays without a leader.
    for agent in &agents {
        agent.stop().await.unwrap();
    }
    fs::remove_dir_all(&hosts[0].folder).unwrap();
    let alone = agents[0].start(&both[0]).await.unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::Unavailable);
    assert!(alone.to_string().contains("finds no leader"), "{alone}");
    assert!(alone.hint().is_some());
    let store = hosts[0].store();
    assert!(store.get(&key).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_run_is_told_with_its_last_words() {
    require_consul!();
    let (hosts, _switch) = Host::several(1).await;
    let me = &memberships(1)[0];
    let missing = hosts[0].agent_of(Path::new("/nowhere/consul"));
    let error = missing.start(me).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        told(&error).contains("/nowhere/consul can't be started"),
        "{error}"
    );

    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    fs::write(
        &broken,
        "#!/bin/sh\necho listen tcp: address already in use >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let agent = hosts[0].agent_of(&broken);
    let error = agent.start(me).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let told = told(&error);
    assert!(
        told.contains("ended by itself") && told.contains("address already in use"),
        "{told}"
    );
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consuls_gossip_follows_the_clusters_key() {
    require_consul!();
    let (hosts, _switch) = Host::several(4).await;
    let all = memberships(4);
    let turned = |node: usize| {
        let mut membership = all[node].clone();
        membership.key = ClusterKey::new(2, Secret::from_bytes([7; 32]));
        membership
    };
    let agents: Vec<_> = hosts.iter().map(Host::agent).collect();
    agents[0].start(&memberships(1)[0]).await.unwrap();
    for node in [1, 2] {
        agents[node].start(&all[node]).await.unwrap();
    }
    let is_seen = |name: &'static str, state: i64| {
        let seen = move |host: &Host| host.thinks_of(name) == Some(state);
        let hosts = &hosts;
        async move { until(name, || hosts[..2].iter().all(seen).then_some(())).await }
    };
    is_seen("node3", 1).await;
    agents[2].stop().await.unwrap();
    is_seen("node3", 4).await;

    // By two at once, as nodes hear of it; one that is away does not.
    let key = turned(0).key;
    for agent in &agents[..2] {
        until_ok("the key is there", async || agent.turn_key(&key).await.ok()).await;
    }
    let before = running(&agents[1]);
    agents[1].release().await;
    agents[1].start(&turned(1)).await.unwrap();
    assert_eq!(running(&agents[1]), before, "it is what it was");
    // A newcomer has the new key only, and who was away has kept the old one.
    agents[3].start(&turned(3)).await.unwrap();
    is_seen("node4", 1).await;
    agents[2].start(&turned(2)).await.unwrap();
    is_seen("node3", 1).await;
    until("all are servers", || {
        (hosts[0].peers() == Some(4)).then_some(())
    })
    .await;

    // None of them is left that understands the former one.
    assert_eq!(
        hosts[0].keys(),
        [2, 4],
        "who was not started since has both"
    );
    let former = &all[0].key;
    until_ok("it is dropped", async || {
        agents[1].drop_key(former, &key).await.ok()
    })
    .await;
    assert_eq!(hosts[0].keys(), [4]);
    agents[0].drop_key(former, &key).await.unwrap();
    // Its own is not to be had by this: nobody would be understood.
    assert!(agents[0].drop_key(&key, &key).await.is_err());
    assert_eq!(hosts[0].keys(), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_while_the_key_turned_is_understood_again() {
    require_consul!();
    let (hosts, switch) = Host::several(3).await;
    let all = memberships_as(&[Role::Boot, Role::Server, Role::Client]);
    let key = ClusterKey::new(2, Secret::from_bytes([7; 32]));
    let agents: Vec<_> = hosts.iter().map(Host::agent).collect();
    agents[0].start(&memberships(1)[0]).await.unwrap();
    for node in [1, 2] {
        agents[node].start(&all[node]).await.unwrap();
    }
    let others = ["node2", "node3"];
    let seen = |state| {
        let seen = others.map(|name| hosts[0].thinks_of(name));
        (seen == [Some(state); 2]).then_some(())
    };
    until("all are there", || seen(1)).await;
    let netlink = switch.handle().unwrap();
    for name in others {
        netlink.set_up(name, false).await.unwrap();
    }
    until("they are gone", || seen(4)).await;
    for node in [1, 2] {
        until("it is alone", || {
            (hosts[node].thinks_of("node1") == Some(4)).then_some(())
        })
        .await;
    }
    agents[0].turn_key(&key).await.unwrap();
    agents[0].drop_key(&all[0].key, &key).await.unwrap();
    assert_eq!(hosts[0].keys(), [1]);
    // One after the other: while they have the former key, they would find each other, and the server help the client too.
    let first = [all[0].me.node.discovery()];
    netlink.set_up("node2", true).await.unwrap();
    // It has the former key, and nobody else that it reaches.
    assert!(agents[1].join(&first).await.is_err());
    // A server helps itself, and goes on.
    let before = running(&agents[1]);
    until_ok("it has turned", async || {
        agents[1].turn_key(&key).await.ok()
    })
    .await;
    agents[1].join(&first).await.unwrap();
    assert_eq!(running(&agents[1]), before);
    netlink.set_up("node3", true).await.unwrap();
    assert!(agents[2].join(&first).await.is_err());
    // A client has nobody to ask.
    assert!(agents[2].turn_key(&key).await.is_err());
    agents[2].restart_with_key(&key).await.unwrap();
    until("all are there again", || seen(1)).await;
    until_ok("a server answers", async || {
        agents[2].turn_key(&key).await.ok()
    })
    .await;
    for node in [1, 2] {
        let mut turned = all[node].clone();
        turned.key = key.clone();
        let before = running(&agents[node]);
        agents[node].release().await;
        agents[node].start(&turned).await.unwrap();
        assert_eq!(running(&agents[node]), before, "it is what it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_may_not_have_the_key_is_started_with_it() {
    require_consul!();
    let (hosts, _switch) = Host::several(1).await;
    let me = &memberships(1)[0];
    let mut turned = me.clone();
    turned.key = ClusterKey::new(2, Secret::from_bytes([7; 32]));
    let agent = hosts[0].agent();
    agent.start(me).await.unwrap();
    let before = running(&agent);
    // Dropped after consul's configuration was written, and before consul has answered.
    let mut turning = Box::pin(agent.turn_key(&turned.key));
    let marker = hosts[0].folder.join("turning");
    std::future::poll_fn(|context| {
        let polled = turning.as_mut().poll(context);
        assert!(polled.is_pending() || marker.exists());
        match marker.exists() {
            true => std::task::Poll::Ready(()),
            false => polled.map(drop),
        }
    })
    .await;
    drop(turning);
    agent.release().await;
    let later = hosts[0].agent();
    later.start(&turned).await.unwrap();
    assert_ne!(running(&later), before);
    assert!(!marker.exists());
    let before = running(&later);
    later.turn_key(&turned.key).await.unwrap();
    later.release().await;
    later.start(&turned).await.unwrap();
    assert_eq!(running(&later), before);
}

async fn start(hosted: &HostedConsul, membership: &Membership) {
    hosted.start(membership).await.unwrap();
    hosted.start_on_overlay(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_leaves_and_a_server_stays_until_it_is_forgotten() {
    require_consul!();
    const LEAVE: Duration = Duration::from_secs(5);
    let (hosts, _switch) = Host::several(3).await;
    let all = memberships_as(&[Role::Boot, Role::Client, Role::Server]);
    let first = hosts[0].hosted();
    start(&first, &memberships(1)[0]).await;
    let [client, server] = [1, 2].map(|at| hosts[at].hosted());
    start(&client, &all[1]).await;
    start(&server, &all[2]).await;
    until("both are there", || {
        let seen = ["node2", "node3"].map(|name| hosts[0].thinks_of(name));
        (seen == [Some(1), Some(1)] && hosts[0].peers() == Some(2)).then_some(())
    })
    .await;

    client.leave(LEAVE).await.unwrap();
    until("the client left", || {
        (hosts[0].thinks_of("node2") == Some(3)).then_some(())
    })
    .await;
    assert_eq!(hosts[1].pid(), None);

    // Without the server there is no majority, so it is waited for.
    server.leave(LEAVE).await.unwrap();
    assert_eq!(hosts[2].pid(), None);
    assert_eq!(hosts[0].peers(), Some(2));
    start(&server, &all[2]).await;
    until_ok("there is a leader", async || {
        hosts[0]
            .store()
            .put(&"k".parse().unwrap(), "v".into())
            .await
            .ok()
    })
    .await;

    server.forget(all[2].me.node).await.unwrap();
    server.leave(LEAVE).await.unwrap();
    until("the server left", || {
        (hosts[0].thinks_of("node3") == Some(3)).then_some(())
    })
    .await;
    until("it is no server", || {
        (hosts[0].peers() == Some(1)).then_some(())
    })
    .await;
    first.stop().await.unwrap();
    assert!(hosts[0].pid().is_some());
}
