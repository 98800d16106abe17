//! What a container of any docker client wants, as its labels and its environment say. Pure.
//!
//! | label | says | example |
//! | --- | --- | --- |
//! | `arpanet.net` | networks it is in, at any free address: a CIDR or a network's name | `10.1.0.0/16,shop` |
//! | `arpanet.ip` | addresses it has; the prefix may be left out where `arpanet.net` says the network | `10.1.0.5/16` |
//! | `arpanet.service` | the service it provides | `web` |
//! | `arpanet.port` | the service's port | `80` |
//! | `arpanet.tags` | names within the service | `v2,blue` |
//! | `arpanet.check` | what tells whether it should get traffic: `http:/PATH`, `http:PORT/PATH`, `tcp`, `tcp:PORT`, `cmd:COMMAND` | `http:/health` |
//! | `arpanet.check.interval`, `arpanet.check.timeout` | how often that is asked, and how long the answer may take: 10 s and 3 s unless they say otherwise | `500ms`, `5s`, `1m` |
//! | `arpanet.check.rise`, `arpanet.check.fall` | after how many passes or failures in a row it passes or fails: 1 and 3 unless they say otherwise | `2` |
//! | `arpanet.check.start` | how long after the start failures do not count: 30 s unless it says otherwise | `2m` |
//! | `arpanet.plugin` | makes it a plugin: this node's address in that block | `241` |
//!
//! `WEAVE_CIDR` in the environment is read as weave does: `10.1.0.5/16`, `ip:10.1.0.5/16` and `net:10.1.0.0/16`, several
//! with spaces; `net:default` is the network called `default`, and `none` is none.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::addr::PluginBlock;
use crate::runtime::{Check, ContainerSpec, NetRequest, Probe, ServiceRequest};
use crate::{AppAddr, AppNet, Error, ErrorKind, Result, ServiceName, Tag};

/// The networks.
pub const NET: &str = "arpanet.net";
/// The addresses.
pub const IP: &str = "arpanet.ip";
/// The service.
pub const SERVICE: &str = "arpanet.service";
/// Its port.
pub const PORT: &str = "arpanet.port";
/// Its tags.
pub const TAGS: &str = "arpanet.tags";
/// The check.
pub const CHECK: &str = "arpanet.check";
/// How often.
pub const CHECK_INTERVAL: &str = "arpanet.check.interval";
/// How long.
pub const CHECK_TIMEOUT: &str = "arpanet.check.timeout";
/// How many passes.
pub const CHECK_RISE: &str = "arpanet.check.rise";
/// How many failures.
pub const CHECK_FALL: &str = "arpanet.check.fall";
/// How long the start may take.
pub const CHECK_START: &str = "arpanet.check.start";
/// The plugin block.
pub const PLUGIN: &str = "arpanet.plugin";
/// The variable that weave users have in their files.
pub const WEAVE_CIDR: &str = "WEAVE_CIDR";

/// What a container wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wants {
    /// Its networks; an address stands for the network it is in.
    pub nets: Vec<NetRequest>,
    /// The service it provides.
    pub service: Option<ServiceRequest>,
    /// What tells whether it should get traffic.
    pub checks: Vec<Check>,
    /// The plugin block it has this node's address of.
    pub plugin: Option<PluginBlock>,
    /// What can't be read, a sentence for each; the rest stands.
    pub problems: Vec<String>,
}

impl Wants {
    /// Whether it wants nothing of the cluster, and nothing was misread.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts it into a spec, in place of what stood there. What can't be read is for the
    /// [container](crate::runtime::Container::problems).
    pub fn put_into(self, spec: &mut ContainerSpec) -> Vec<String> {
        spec.nets = self.nets;
        spec.service = self.service;
        spec.checks = self.checks;
        spec.plugin = self.plugin;
        self.problems
    }
}

/// Reads what a container wants from its labels and the value of its `WEAVE_CIDR`.
///
/// ```
/// use arpanet_core::label;
/// let labels = [(label::NET, "10.1.0.0/16"), (label::SERVICE, "web"), (label::PORT, "80")]
///     .map(|(name, value)| (name.to_owned(), value.to_owned()));
/// let wants = label::read(&labels.into(), None);
/// assert!(wants.problems.is_empty());
/// assert_eq!(wants.service.unwrap().port, 80);
/// assert_eq!(wants.nets, ["10.1.0.0/16".parse()?]);
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[must_use]
pub fn read(labels: &BTreeMap<String, String>, weave_cidr: Option<&str>) -> Wants {
    let mut reader = Reader {
        labels,
        problems: Vec::new(),
    };
    let nets = reader.nets(weave_cidr.unwrap_or_default());
    let service = reader.service();
    let checks = reader.check(service.as_ref()).into_iter().collect();
    let plugin = reader.one(PLUGIN, |text| {
        let block = text.parse().ok().and_then(PluginBlock::new);
        block.ok_or_else(|| refused("a plugin block is 241 to 252"))
    });
    Wants {
        nets,
        service,
        checks,
        plugin,
        problems: reader.problems,
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

struct Reader<'a> {
    labels: &'a BTreeMap<String, String>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn get(&self, label: &str) -> Option<&'a str> {
        self.labels.get(label).map(|value| value.trim())
    }

    fn refuse(&mut self, name: &str, value: impl fmt::Display, error: &Error) {
        let hint = error.hint().map(|hint| format!(" ({hint})"));
        let hint = hint.unwrap_or_default();
        self.problems
            .push(format!("{name}={value} can't be used: {error}{hint}"));
    }

    /// A label with one value.
    fn one<T>(&mut self, label: &str, read: impl FnOnce(&str) -> Result<T>) -> Option<T> {
        let text = self.get(label)?;
        read(text)
            .map_err(|error| self.refuse(label, text, &error))
            .ok()
    }

    /// Values between commas or spaces.
    fn each<T>(
        &mut self,
        name: &str,
        text: &str,
        between: char,
        mut read: impl FnMut(&str) -> Result<T>,
    ) -> Vec<T> {
        let parts = text.split(between).map(str::trim);
        let parts = parts.filter(|part| !part.is_empty());
        let mut values = Vec::new();
        for part in parts {
            match read(part) {
                Ok(value) => values.push(value),
                Err(error) => self.refuse(name, part, &error),
            }
        }
        values
    }

    fn nets(&mut self, weave_cidr: &str) -> Vec<NetRequest> {
        let text = self.get(NET).unwrap_or_default();
        let mut asked = self.each(NET, text, ',', |part| match part.parse()? {
            NetRequest::Addr(addr) => Err(refused(format!("{addr} is an address, no network"))
                .with_hint(format!("write {IP}={addr}"))),
            net => Ok(net),
        });
        let text = self.get(IP).unwrap_or_default();
        let nets = asked.clone();
        asked.extend(self.each(IP, text, ',', |part| address(part, &nets)));
        asked.extend(
            self.each(WEAVE_CIDR, weave_cidr, ' ', weave)
                .into_iter()
                .flatten(),
        );
        whole(&asked)
    }

    fn service(&mut self) -> Option<ServiceRequest> {
        let port = self.one(PORT, |text| match text.parse() {
            Ok(0) | Err(_) => Err(refused("a port is a number from 1 to 65535")),
            Ok(port) => Ok(port),
        });
        let text = self.get(TAGS).unwrap_or_default();
        let tags: Vec<Tag> = self.each(TAGS, text, ',', str::parse);
        let Some(name) = self.one::<ServiceName>(SERVICE, str::parse) else {
            if self.get(SERVICE).is_none() {
                for label in [PORT, TAGS] {
                    if self.get(label).is_some() {
                        self.problems
                            .push(format!("{label} says nothing without {SERVICE}"));
                    }
                }
            }
            return None;
        };
        let mut service = ServiceRequest::new(name, port.unwrap_or(0));
        service.tags = tags;
        Some(service)
    }

    fn check(&mut self, service: Option<&ServiceRequest>) -> Option<Check> {
        let known = service.is_some_and(|service| service.port != 0);
        let interval = self.one(CHECK_INTERVAL, duration);
        let timeout = self.one(CHECK_TIMEOUT, duration);
        let start_period = self.one(CHECK_START, duration);
        let rise = self.one(CHECK_RISE, count);
        let fall = self.one(CHECK_FALL, count);
        let Some(probe) = self.one(CHECK, |text| {
            let probe: Probe = text.parse()?;
            match probe {
                Probe::Http { port: None, .. } | Probe::Tcp { port: None } if !known => {
                    Err(refused("no port is known")
                        .with_hint(format!("say it here, or by {SERVICE} and {PORT}")))
                }
                probe => Ok(probe),
            }
        }) else {
            if self.get(CHECK).is_none() {
                let rest = [
                    CHECK_INTERVAL,
                    CHECK_TIMEOUT,
                    CHECK_RISE,
                    CHECK_FALL,
                    CHECK_START,
                ];
                for label in rest {
                    if self.get(label).is_some() {
                        self.problems
                            .push(format!("{label} says nothing without {CHECK}"));
                    }
                }
            }
            return None;
        };
        let mut check = Check::new(probe);
        check.interval = interval;
        check.timeout = timeout;
        check.rise = rise;
        check.fall = fall;
        check.start_period = start_period;
        Some(check)
    }
}

/// An address, with its own prefix or that of a network beside it.
fn address(text: &str, nets: &[NetRequest]) -> Result<NetRequest> {
    let Ok(ip) = text.parse::<Ipv4Addr>() else {
        return text.parse().map(NetRequest::Addr);
    };
    let beside = nets.iter().find_map(|net| match net {
        NetRequest::Net(net) if net.contains(ip) => Some(net.cidr().prefix_len()),
        _ => None,
    });
    let prefix = beside.ok_or_else(|| {
        refused("the address has no prefix")
            .with_hint(format!("write {ip}/16, or its network's as {NET}"))
    })?;
    let addr = Ipv4Net::new(ip, prefix).map_err(|_| refused("the prefix is out of range"))?;
    AppAddr::new(addr).map(NetRequest::Addr)
}

/// A part of WEAVE_CIDR; `None` for `none`.
fn weave(text: &str) -> Result<Option<NetRequest>> {
    if text == "none" {
        return Ok(None);
    }
    if text == "net:default" {
        return Ok(Some(NetRequest::Named("default".parse()?)));
    }
    if let Some(net) = text.strip_prefix("net:") {
        return net.parse::<AppNet>().map(NetRequest::Net).map(Some);
    }
    let addr = text.strip_prefix("ip:").unwrap_or(text);
    addr.parse().map(NetRequest::Addr).map(Some)
}

/// Each once, and no network beside an address in it.
fn whole(asked: &[NetRequest]) -> Vec<NetRequest> {
    let mut nets: Vec<NetRequest> = Vec::new();
    for request in asked {
        let covered = matches!(request, NetRequest::Net(net) if asked
            .iter()
            .any(|other| matches!(other, NetRequest::Addr(addr) if addr.net() == Some(*net))));
        if !covered && !nets.contains(request) {
            nets.push(request.clone());
        }
    }
    nets
}

fn count(text: &str) -> Result<NonZeroU32> {
    let count = text
        .parse()
        .ok()
        .filter(|count: &NonZeroU32| count.get() <= 100);
    count.ok_or_else(|| refused("it is no number from 1 to 100"))
}

/// `500ms`, `5s`, `1m`, or plain seconds: 100 ms to an hour.
fn duration(text: &str) -> Result<Duration> {
    let split = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => Some(1),
        "s" | "" => Some(1_000),
        "m" => Some(60_000),
        _ => None,
    };
    let millis = scale
        .zip(number.parse::<u64>().ok())
        .and_then(|(scale, number)| number.checked_mul(scale))
        .filter(|millis| (100..=3_600_000).contains(millis));
    millis.map(Duration::from_millis).ok_or_else(|| {
        refused("it is no time from 100ms to 60m").with_hint("as in 500ms, 5s or 1m")
    })
}

#[cfg(test)]
mod tests;
