//! Asking a host what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use serde_json::Value;

use super::plan::{HOSTS, Slot};
use super::seen::{self, ALIAS, Host, Placed, Provided};
use crate::site::Site;

/// The docker network of those that are driven.
pub(super) const NETWORK: &str = "shop";
/// The nodes of the hosts, in their order.
pub(super) const NODES: [&str; 3] = ["0.1", "0.2", "0.14"];

const RUNNING: &str = "ids=$(/usr/bin/docker ps -q --no-trunc) || exit 1; [ -z \"$ids\" ] || /usr/bin/docker inspect -f \
    '{{.Name}} {{.State.Pid}} {{with index .NetworkSettings.Networks \"shop\"}}{{.IPAddress}} {{range .Aliases}}{{.}} {{end}}{{end}}' $ids";

/// All hosts at once. What can't be asked at the moment says why.
pub(super) fn look(site: &Site, slots: &[Slot]) -> Result<Vec<Host>, String> {
    std::thread::scope(|threads| {
        let asked: Vec<_> = (0..HOSTS.len())
            .map(|host| threads.spawn(move || look_at(site, host, slots)))
            .collect();
        let answers = asked.into_iter().map(|asked| asked.join().unwrap());
        answers.collect()
    })
}

fn look_at(site: &Site, host: usize, slots: &[Slot]) -> Result<Host, String> {
    let mut pids = BTreeMap::new();
    let mut docker = BTreeMap::new();
    let mut aliased = BTreeSet::new();
    for line in output(site, HOSTS[host], RUNNING)?.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default().trim_start_matches('/');
        pids.insert(name.to_owned(), words.next().unwrap_or_default().to_owned());
        docker.insert(name.to_owned(), words.next().and_then(|ip| ip.parse().ok()));
        aliased.extend(
            words
                .filter(|word| word.starts_with(ALIAS))
                .map(str::to_owned),
        );
    }
    Ok(Host {
        docker,
        aliased,
        links: links(site, HOSTS[host])?,
        inside: inside(site, host, &pids)?,
        promised: promised(site, host)?,
        catalogue: catalogue(site, host)?,
        dns: dns(site, host, slots)?,
    })
}

fn output(site: &Site, host: &str, script: &str) -> Result<String, String> {
    let outcome = site.command(host, &["sh", "-c", script]);
    match outcome.code {
        Some(0) => Ok(outcome.out),
        _ => Err(format!("{host}: {outcome:?}")),
    }
}

fn json(site: &Site, host: &str, script: &str) -> Result<Value, String> {
    let text = output(site, host, script)?;
    serde_json::from_str(&text).map_err(|error| format!("{host}: {error}: {text}"))
}

/// By the notes on the router's links.
pub(crate) fn links(site: &Site, host: &str) -> Result<BTreeSet<Placed>, String> {
    let links = json(site, host, "nsenter --net=/run/arpanet2/router ip -j link")?;
    let links = links.as_array().into_iter().flatten();
    Ok(links
        .filter_map(|link| link["ifalias"].as_str())
        .filter_map(|note| {
            let mut words = note.split(' ');
            let holder = words.next()?.split('+').next()?.to_owned();
            let ip = words.next()?.split('/').next()?.parse().ok()?;
            Some((holder, ip))
        })
        .collect())
}

fn inside(
    site: &Site,
    host: usize,
    pids: &BTreeMap<String, String>,
) -> Result<BTreeSet<Placed>, String> {
    let mut script = "true".to_owned();
    for (name, pid) in pids {
        script +=
            &format!("; nsenter -t {pid} -n ip -o -4 addr show scope global | sed 's/^/{name} /'");
    }
    let shown = output(site, HOSTS[host], &script)?;
    Ok(shown
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "inet")?;
            let ip: Ipv4Addr = words.get(at + 1)?.split('/').next()?.parse().ok()?;
            (ip.octets()[0] == 10).then(|| (words[0].to_owned(), ip))
        })
        .collect())
}

fn promised(site: &Site, host: usize) -> Result<BTreeSet<Ipv4Addr>, String> {
    let kept = json(site, HOSTS[host], "cat /var/lib/arpanet2/driver.json")?;
    let endpoints = kept["endpoints"].as_object().into_iter().flatten();
    Ok(endpoints
        .filter_map(|(_, endpoint)| endpoint["addr"].as_str()?.split('/').next()?.parse().ok())
        .collect())
}

fn catalogue(site: &Site, host: usize) -> Result<BTreeSet<Provided>, String> {
    let status = json(
        site,
        HOSTS[host],
        &format!("{} status --json", crate::site::BINARY),
    )?;
    let mut provided = BTreeSet::new();
    for service in status["services"].as_array().into_iter().flatten() {
        let name = service["name"].as_str().unwrap_or_default();
        for instance in service["instances"].as_array().into_iter().flatten() {
            let parts: Vec<&str> = instance["id"]
                .as_str()
                .unwrap_or_default()
                .split(':')
                .collect();
            let node = instance["node"].as_str().unwrap_or_default();
            let ip = instance["ip"].as_str().and_then(|ip| ip.parse().ok());
            // Those of nodes have no address in their id.
            if let ([_, container, _] | [_, container, _, _], Some(ip)) = (&parts[..], ip) {
                let node = NODES.iter().position(|known| *known == node);
                provided.insert((
                    name.to_owned(),
                    (*container).to_owned(),
                    ip,
                    node.ok_or_else(|| format!("an instance of no node: {instance}"))?,
                ));
            }
        }
    }
    Ok(provided)
}

fn dns(
    site: &Site,
    host: usize,
    slots: &[Slot],
) -> Result<BTreeMap<String, BTreeSet<Ipv4Addr>>, String> {
    let names: BTreeSet<String> = slots.iter().flat_map(seen::names).collect();
    ask(site, HOSTS[host], NODES[host], names)
}

/// What the DNS server of a node says to its host of these services.
pub(crate) fn ask(
    site: &Site,
    host: &str,
    node: &str,
    names: impl IntoIterator<Item = String>,
) -> Result<BTreeMap<String, BTreeSet<Ipv4Addr>>, String> {
    let failed = |error: std::io::Error| format!("{host}: DNS: {error}");
    let namespace = site
        .lab
        .namespace(host)
        .map_err(|error| error.to_string())?;
    let socket = namespace.run(|| UdpSocket::bind("0.0.0.0:0"));
    let socket = socket.map_err(|error| error.to_string())?.map_err(failed)?;
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .map_err(failed)?;
    socket
        .connect(format!("10.253.{node}:53"))
        .map_err(failed)?;
    let mut answers = BTreeMap::new();
    for name in names {
        let mut question = Message::query();
        let full = Name::from_ascii(format!("{name}.service.consul.")).unwrap();
        question.add_query(Query::query(full, RecordType::A));
        socket.send(&question.to_vec().unwrap()).map_err(failed)?;
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).map_err(failed)?;
        let answer = Message::from_vec(&buffer[..length]).map_err(|error| error.to_string())?;
        let ips = answer
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(ip) => Some(ip.0),
                _ => None,
            });
        answers.insert(name, ips.collect());
    }
    Ok(answers)
}
