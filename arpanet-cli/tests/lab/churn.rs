//! Containers come and go at random over three engines, half of them by labels and half on a network of the driver, while
//! agents and engines are killed at random. Soon after the last of it docker, the links, the catalogue and DNS on every host
//! are compared as sets; and after `reset`, each host with what it was before.
//!
//! The seed decides what happens when; how long engines take is theirs, so a seed brings back a run's pattern and not its
//! every moment. `just churn SEED` is the long run of five minutes with 200 containers.

pub(crate) mod look;
mod plan;
pub(crate) mod seen;
pub(crate) mod trace;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arpanet_lab::Ending;

use self::look::{NETWORK, look};
use self::plan::{Act, Deed, Extent, Fault, HOSTS, Plan, Slot, Victim};
use self::trace::Trace;
use crate::site::{Outcome, Site};

/// Within it all has to agree, after the last kill was mended.
const AGREED: Duration = Duration::from_secs(5);
/// On a machine that does other things besides.
const AGREED_UNDER_LOAD: Duration = Duration::from_secs(20);
/// For a time after an agent or an engine is back, a command may still fail on what it was.
const GRACE: Duration = Duration::from_secs(2);
/// How often a client looks for its engine.
const TICK: Duration = Duration::from_millis(10);
/// Clients of one engine that work at the same time.
const CLIENTS: usize = 2;
/// The host whose engine has `live-restore`.
const RESTORING: &str = "node2";

#[tokio::test]
async fn docker_links_catalogue_and_dns_agree_after_everything_was_killed_at_random() {
    let extent = Extent {
        containers: 30,
        length: Duration::from_secs(20),
        pace: Duration::from_millis(700),
        calm: Duration::from_secs(6),
    };
    churn(seed().unwrap_or(1), extent, AGREED_UNDER_LOAD).await;
}

#[tokio::test]
#[ignore = "it takes six minutes of the whole machine: just churn"]
async fn two_hundred_containers_for_five_minutes() {
    let extent = Extent {
        containers: 200,
        length: Duration::from_secs(300),
        pace: Duration::from_millis(900),
        calm: Duration::from_secs(15),
    };
    churn(seed().unwrap_or(1), extent, AGREED).await;
}

fn seed() -> Option<u64> {
    std::env::var("ARPANET_CHURN").ok()?.parse().ok()
}

/// Tells how a run that fails is had again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the seed was {0}: ARPANET_CHURN={0} brings the same plan again, as does just churn {0}",
                self.0
            );
        }
    }
}

/// When a host's agent or engine was not itself.
type Windows = Mutex<Vec<(usize, Instant, Instant)>>;

async fn churn(seed: u64, extent: Extent, limit: Duration) {
    let Some(site) = Site::up_with_docker(HOSTS.len() as u8).await else {
        return;
    };
    let _replay = Replay(seed);
    let plan = Plan::new(seed, extent);
    // One of the engines leaves its containers alone when it ends.
    site.lab
        .end_docker(RESTORING, Ending::InOrder)
        .await
        .unwrap();
    let live = "mkdir -p /etc/docker && echo '{\"live-restore\": true}' > /etc/docker/daemon.json";
    site.command(RESTORING, &["sh", "-c", live]);
    site.lab.start_docker(RESTORING).await.unwrap();
    let mut before = Vec::new();
    for host in HOSTS {
        before.push(Trace::of(&site, host).await);
    }
    site.cluster();
    site.docker(
        "node1",
        &format!("network create -d arpanet --ipam-driver arpanet --subnet 10.1.0.0/16 {NETWORK}"),
    );
    let mishaps = storm(&site, &plan);
    let calm = Instant::now();
    settle(&site, &plan, calm, limit);
    assert!(
        mishaps.is_empty(),
        "commands failed that nothing was in the way of:\n{}",
        mishaps.join("\n")
    );

    for host in HOSTS {
        site.ok(host, "reset");
    }
    for (host, before) in HOSTS.into_iter().zip(&before) {
        site.command(
            host,
            &[
                "sh",
                "-c",
                "ids=$(/usr/bin/docker ps -aq); [ -z \"$ids\" ] || /usr/bin/docker rm -f $ids",
            ],
        );
        let left = before.difference(&Trace::of(&site, host).await);
        assert!(
            left.is_empty(),
            "{host} is not as it was:\n{}",
            left.join("\n")
        );
    }
}

/// All of the plan; the commands that failed and should not have.
fn storm(site: &Site, plan: &Plan) -> Vec<String> {
    let began = Instant::now();
    let windows = Windows::default();
    let failed = Mutex::new(Vec::new());
    let done = Mutex::new(0);
    // Clients wait for their engine: what they do when it is back comes all at once.
    let away = [const { AtomicBool::new(false) }; HOSTS.len()];
    std::thread::scope(|threads| {
        let (windows, failed, done, away) = (&windows, &failed, &done, &away);
        for (host, away) in away.iter().enumerate() {
            for client in 0..CLIENTS {
                threads.spawn(move || {
                    let mine = |act: &&Act| {
                        plan.slots[act.slot].host == host
                            && act.slot / HOSTS.len() % CLIENTS == client
                    };
                    for act in plan.acts.iter().filter(mine) {
                        wait_until(began + act.at);
                        while away.load(Ordering::SeqCst) {
                            std::thread::park_timeout(TICK);
                        }
                        let (slot, from) = (&plan.slots[act.slot], Instant::now());
                        if let Err(outcome) = perform(site, slot, act.deed) {
                            failed.lock().unwrap().push((
                                host,
                                from,
                                Instant::now(),
                                format!("{:?} {}: {outcome:?}", act.deed, slot.name),
                            ));
                        } else {
                            *done.lock().unwrap() += 1;
                        }
                    }
                });
            }
            for engines in [false, true] {
                threads.spawn(move || {
                    let mine = |fault: &&Fault| {
                        fault.host == host && (fault.victim != Victim::Agent) == engines
                    };
                    for fault in plan.faults.iter().filter(mine) {
                        wait_until(began + fault.at);
                        let from = Instant::now();
                        away.fetch_or(engines, Ordering::SeqCst);
                        strike(site, fault);
                        away.fetch_and(!engines, Ordering::SeqCst);
                        windows.lock().unwrap().push((host, from, Instant::now()));
                    }
                });
            }
        }
    });
    let (windows, failed) = (windows.into_inner().unwrap(), failed.into_inner().unwrap());
    eprintln!(
        "{} acts done, {} failed, {} faults, in {:?}",
        done.into_inner().unwrap(),
        failed.len(),
        windows.len(),
        began.elapsed()
    );
    let excused = |host: usize, from: Instant, to: Instant| {
        windows
            .iter()
            .any(|(at, began, ended)| *at == host && *began <= to && from <= *ended + GRACE)
    };
    failed
        .into_iter()
        .filter(|(host, from, to, _)| !excused(*host, *from, *to))
        .map(|(host, from, _, what)| format!("{} at {:?}: {what}", HOSTS[host], from - began))
        .collect()
}

fn wait_until(moment: Instant) {
    // The plan's own pace, and no waiting for something to happen.
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

fn docker(site: &Site, slot: &Slot, line: &str) -> Outcome {
    site.run(HOSTS[slot.host], &format!("/usr/bin/docker {line}"))
}

/// Does it, or says how it failed. A container that is not there, or does not run, is no failure.
fn perform(site: &Site, slot: &Slot, deed: Deed) -> Result<(), Outcome> {
    let name = &slot.name;
    let outcome = match deed {
        Deed::Start => {
            let removed = docker(site, slot, &format!("rm -f {name}"));
            if !is_fine(&removed) {
                return Err(removed);
            }
            let place = match slot.driven {
                true => format!(
                    "--network {NETWORK} --network-alias {}",
                    seen::alias_of(slot)
                ),
                false => "--label arpanet.net=10.1.0.0/16".to_owned(),
            };
            let restart = if slot.always { "always" } else { "no" };
            let line = format!(
                "run -d --name {name} --restart {restart} {place} --label arpanet.service={} --label arpanet.port=80 arpanet2-lab httpd -f -p 80 -h /bin",
                slot.service
            );
            docker(site, slot, &line)
        }
        Deed::Remove => docker(site, slot, &format!("rm -f {name}")),
        Deed::Kill => docker(site, slot, &format!("kill {name}")),
        Deed::Restart => docker(site, slot, &format!("restart -t 0 {name}")),
    };
    if is_fine(&outcome) {
        Ok(())
    } else {
        Err(outcome)
    }
}

fn is_fine(outcome: &Outcome) -> bool {
    // The last are what docker says of a container that it was removing, or that outlived it, when it was killed.
    let absent = [
        "No such container",
        "is not running",
        "is marked for removal",
        "is already in progress",
        ": already exists",
        "id already in use",
    ];
    outcome.code == Some(0) || absent.iter().any(|words| outcome.err.contains(words))
}

/// Kills, waits, and mends.
fn strike(site: &Site, fault: &Fault) {
    let host = HOSTS[fault.host];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match fault.victim {
        Victim::Agent => {
            site.command(
                host,
                &["sh", "-c", "kill -9 $(cat /run/arpanet2/agent.lock)"],
            );
            std::thread::sleep(fault.away);
            site.ok(host, "start");
        }
        Victim::Engine | Victim::EngineInOrder => {
            let ending = match fault.victim {
                Victim::Engine => Ending::AtOnce,
                _ => Ending::InOrder,
            };
            runtime.block_on(site.lab.end_docker(host, ending)).unwrap();
            std::thread::sleep(fault.away);
            runtime.block_on(site.lab.start_docker(host)).unwrap();
        }
    }
}

/// Looks until all agree, and has every container reached from every host.
fn settle(site: &Site, plan: &Plan, calm: Instant, limit: Duration) {
    let seen = loop {
        let asked = Instant::now();
        let (lines, seen) = match look(site, &plan.slots) {
            Ok(seen) => (seen::differences(&plan.slots, &seen), seen),
            Err(error) => (vec![error], Vec::new()),
        };
        if lines.is_empty() {
            eprintln!(
                "all agree {:?} after the last, seen within {:?}",
                calm.elapsed(),
                asked.elapsed()
            );
            break seen;
        }
        if calm.elapsed() > limit {
            eprintln!("{}", lines.join("\n"));
            for (host, here) in HOSTS.iter().zip(&seen) {
                eprintln!(
                    "{host}: docker: {:?}\n{host}: links: {:?}\n{}",
                    here.docker,
                    here.links,
                    site.log(host)
                );
            }
            panic!("{} differences after {limit:?}", lines.len());
        }
    };
    let placed: Vec<_> = seen.iter().flat_map(|host| &host.links).collect();
    eprintln!("{} containers run", placed.len());
    assert!(
        placed.len() >= plan.slots.len() / 4,
        "too few are left to tell anything: {placed:?}"
    );
    let ips: Vec<String> = placed.iter().map(|(_, ip)| ip.to_string()).collect();
    for (host, here) in HOSTS.iter().zip(&seen) {
        let (from, _) = here
            .links
            .first()
            .unwrap_or_else(|| panic!("none on {host}"));
        let script = format!(
            "for ip in {}; do ping -c1 -W2 $ip > /dev/null || echo $ip; done",
            ips.join(" ")
        );
        let missed = site.command(
            host,
            &["/usr/bin/docker", "exec", from, "sh", "-c", &script],
        );
        assert_eq!(
            (missed.code, &missed.out[..]),
            (Some(0), ""),
            "{host}: from {from}: {missed:?}"
        );
    }
}
