//! The catalogue on records: how instances are written down, and what watchers are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use arpanet_core::discovery::{Health, Instance, Member, Record, RecordKey};
use arpanet_core::watch::WatchHub;
use arpanet_core::{AppNet, Error, ErrorKind, InstanceId, NodeAddr, Result, ServiceName, Tag};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::engine::Event;
use crate::wire::{decode, encode};

/// Before the ids of instances.
const INSTANCE: &str = "i/";
/// Before the keys of records.
const RECORD: &str = "r/";
/// The longest key that the trait allows.
const MAX_RECORD_KEY: usize = 128;

/// An instance as it is written down; its id is in the key, its node is the owner.
#[derive(Serialize, Deserialize)]
struct Written {
    service: ServiceName,
    ip: Ipv4Addr,
    port: u16,
    net: Option<AppNet>,
    tags: Vec<Tag>,
    critical: bool,
}

/// The key of an instance's record.
pub(crate) fn instance_key(id: &InstanceId) -> String {
    format!("{INSTANCE}{id}")
}

/// The key of a record of the trait's caller.
pub(crate) fn record_key(key: &str) -> Result<String> {
    let sound = (1..=MAX_RECORD_KEY).contains(&key.len()) && key.split('/').all(is_part);
    if sound {
        return Ok(format!("{RECORD}{key}"));
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{key:?} can't be the key of a record"),
    )
    .with_hint("a key is a path of names and addresses with /, at most 128 bytes"))
}

/// A DNS label, a name of several, a container's name, or an address.
fn is_part(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
}

/// An instance as a record's value.
pub(crate) fn write_instance(instance: &Instance) -> Bytes {
    encode(&Written {
        service: instance.service.clone(),
        ip: instance.ip,
        port: instance.port,
        net: instance.net,
        tags: instance.tags.iter().cloned().collect(),
        critical: instance.health == Health::Critical,
    })
    .into()
}

/// What can't be read was written by another version, and is passed over.
fn read_instance(node: NodeAddr, id: &InstanceId, value: &[u8]) -> Option<Instance> {
    let written: Written = decode(value)?;
    let health = if written.critical {
        Health::Critical
    } else {
        Health::Passing
    };
    let instance = Instance::new(id.clone(), written.service, written.ip, written.port, node);
    Some(
        instance
            .in_net(written.net)
            .tagged(written.tags)
            .health(health),
    )
}

/// What this node shows of the cluster, kept up to date by the engine's events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    pub(crate) instances: WatchHub<InstanceId, Instance>,
    pub(crate) members: WatchHub<NodeAddr, Member>,
    pub(crate) records: WatchHub<(NodeAddr, RecordKey), Record>,
}

/// The instances as their nodes told them, and which nodes are out of this node's own reach.
#[derive(Debug, Default)]
pub(crate) struct Told {
    by_id: BTreeMap<InstanceId, BTreeMap<NodeAddr, Word>>,
    by_node: BTreeMap<NodeAddr, BTreeSet<InstanceId>>,
    unreached: BTreeSet<NodeAddr>,
}

/// An instance as its node told it.
#[derive(Debug)]
struct Word {
    instance: Instance,
    suspended: bool,
}

impl Told {
    /// An instance as it is shown. Where several nodes tell of the same id, one of a node within reach comes first, then
    /// that of the lowest address: on every node alike.
    fn shown(&self, id: &InstanceId) -> Option<Instance> {
        let (node, word) =
            self.by_id.get(id)?.iter().min_by_key(|(node, word)| {
                (word.suspended || self.unreached.contains(node), **node)
            })?;
        let instance = word.instance.clone();
        Some(if word.suspended || self.unreached.contains(node) {
            instance.health(Health::Suspended)
        } else {
            instance
        })
    }

    fn tell(&mut self, node: NodeAddr, id: &InstanceId, word: Option<Word>) {
        match word {
            Some(word) => {
                self.by_id.entry(id.clone()).or_default().insert(node, word);
                self.by_node.entry(node).or_default().insert(id.clone());
            }
            None => {
                if let Some(words) = self.by_id.get_mut(id) {
                    words.remove(&node);
                    if words.is_empty() {
                        self.by_id.remove(id);
                    }
                }
                if let Some(ids) = self.by_node.get_mut(&node) {
                    ids.remove(id);
                    if ids.is_empty() {
                        self.by_node.remove(&node);
                    }
                }
            }
        }
    }

    /// Whether that changed anything.
    fn set_reached(&mut self, node: NodeAddr, reached: bool) -> bool {
        if reached {
            self.unreached.remove(&node)
        } else {
            self.unreached.insert(node)
        }
    }
}

impl Catalogue {
    /// Shows what has happened.
    pub(crate) fn note(&self, told: &mut Told, event: Event) {
        match event {
            Event::Member(member) => {
                let (node, reached) = (member.node, member.reachable);
                self.members.upsert(node, member);
                if told.set_reached(node, reached) {
                    for id in told.by_node.get(&node).into_iter().flatten() {
                        self.show(told, id);
                    }
                }
            }
            Event::MemberGone(node) => {
                self.members.remove(&node);
                told.set_reached(node, true);
            }
            Event::Record { owner, key, record } => {
                if let Some(id) = key.strip_prefix(INSTANCE) {
                    self.note_instance(told, owner, id, record.as_ref());
                } else if let Some(key) = key.strip_prefix(RECORD) {
                    let key = (owner, key.to_owned());
                    match record {
                        Some(record) => self.records.upsert(key, record),
                        None => self.records.remove(&key),
                    }
                }
            }
            _ => {}
        }
    }

    fn note_instance(&self, told: &mut Told, owner: NodeAddr, id: &str, record: Option<&Record>) {
        let Ok(id) = id.parse::<InstanceId>() else {
            return;
        };
        let word = record.and_then(|record| {
            Some(Word {
                instance: read_instance(owner, &id, &record.value)?,
                suspended: record.suspended,
            })
        });
        told.tell(owner, &id, word);
        self.show(told, &id);
    }

    fn show(&self, told: &Told, id: &InstanceId) {
        match told.shown(id) {
            Some(instance) => self.instances.upsert(id.clone(), instance),
            None => self.instances.remove(id),
        }
    }

    /// Says whether the source of all this is out of reach.
    pub(crate) fn set_stale(&self, stale: bool) {
        self.instances.set_stale(stale);
        self.members.set_stale(stale);
        self.records.set_stale(stale);
    }

    /// Ends every watch: readers get what is pending, then `None`.
    pub(crate) fn close(&self) {
        self.instances.close();
        self.members.close();
        self.records.close();
    }
}
