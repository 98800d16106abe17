//! Real agents on four hosts while, by a seed, wires are cut in one direction and both, lose and are late, agents are
//! killed, stalled and stopped, hosts lose their power, a disk is full, clocks jump, and services come and go. Then all is
//! mended but the clocks, and what must hold is looked at by what commands, DNS and routers say; then one dies, and what it said must be gone; then it
//! is back. So it goes on, and after the last `reset` each host is what it was.
//!
//! The seed decides what happens when, not every moment of it. `ARPANET_CHAOS_LAB=SEED:STEPS` says which seed and for how
//! long; `just chaos-lab SEED` is the long run, by the second. With `ARPANET_OTHER` naming another build of `arpanet2`,
//! node2 and node4 start that one every other time.
//!
//! Clocks jump where Debian's package libfaketime is installed (`chaos/clocks.rs`). With a docker engine on each host, which is
//! a run of its own, containers are those of engines, and engines are killed too; clocks don't jump then, since no library
//! stands before an engine's. (Engines, agents and nothing else, but thousands of containers: `churn.rs`.)

mod clocks;
mod plan;
mod secrets;
mod seen;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use arpanet_lab::{Ending, IMAGE};
use serde_json::Value;

use self::clocks::Clocks;
use self::plan::{Act, HOSTS, NODES, Plan, Round, SMALL};
use self::secrets::{is_told, kept_in};
use self::seen::{Seen, WEB, Wanted, claimant, container, contested, names, registration};
use self::wire::Wires;
use crate::churn::look::{ask, links};
use crate::churn::trace::Trace;
use crate::site::{BINARY, Outcome, SEED, Site};

const STATE: &str = "/var/lib/arpanet2";
const PASSWORD: &str = "Apples-and-nothing-else";
/// What containers run: no other process of a host is it.
const PROGRAM: &str = "sleep 98765";

/// So soon all is well on a machine that does nothing else, and what the dead one said is gone.
const WELL: Duration = Duration::from_secs(3);
const DEAD: Duration = Duration::from_secs(5);
/// A machine that tests run on does other things besides, with builds that are not optimized.
const UNDER_LOAD: u32 = 5;
/// Seed and steps in CI: few, and of nearly every kind one.
const SHORT: (u64, usize) = (99_510, 18);
/// With engines, which take their time.
const SHORT_WITH_ENGINES: (u64, usize) = (44, 12);

#[tokio::test]
async fn whatever_happens_all_is_well_soon_after() {
    let Some(site) = Site::up(HOSTS.len() as u8).await else {
        return;
    };
    let clocks = Clocks::new(&HOSTS);
    chaos(
        site,
        clocks,
        false,
        "what",
        asked().unwrap_or(SHORT),
        UNDER_LOAD,
    )
    .await;
}

#[tokio::test]
async fn engines_too_and_all_is_well_soon_after() {
    let Some(site) = Site::up_with_docker(HOSTS.len() as u8).await else {
        return;
    };
    let extent = asked().unwrap_or(SHORT_WITH_ENGINES);
    chaos(site, None, true, "engines_too", extent, UNDER_LOAD).await;
}

#[tokio::test]
#[ignore = "it takes minutes of a machine that does nothing else: just chaos-lab"]
async fn whatever_happens_all_is_well_within_three_seconds() {
    let Some(site) = Site::up(HOSTS.len() as u8).await else {
        return;
    };
    let clocks = Clocks::new(&HOSTS);
    let extent = asked().unwrap_or((1, 60));
    chaos(site, clocks, false, "what -- --ignored", extent, 1).await;
}

fn asked() -> Option<(u64, usize)> {
    let named = std::env::var("ARPANET_CHAOS_LAB").ok()?;
    let (seed, steps) = named.split_once(':').expect("ARPANET_CHAOS_LAB=SEED:STEPS");
    Some((seed.parse().unwrap(), steps.parse().unwrap()))
}

/// Tells how a run that fails is had again.
struct Replay(String);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again: {}", self.0);
        }
    }
}

struct Case {
    // Before the site: its device is in a namespace of it.
    wires: Wires,
    site: Site,
    clocks: Option<Clocks>,
    wanted: Wanted,
    /// Hosts without power, those with a dead agent, and those whose agent has left.
    off: BTreeSet<usize>,
    dead: BTreeSet<usize>,
    patience: u32,
    /// Another build, and how often it or this one was started.
    other: Option<PathBuf>,
    starts: usize,
    /// All that commands have said.
    said: String,
}

async fn chaos(
    site: Site,
    clocks: Option<Clocks>,
    engines: bool,
    how: &str,
    (seed, steps): (u64, usize),
    patience: u32,
) {
    let _replay = Replay(format!(
        "ARPANET_CHAOS_LAB={seed}:{steps} cargo test -p arpanet-cli --test lab chaos::{how}"
    ));
    let plan = Plan::new(seed, steps);
    let switch = site.lab.switch_namespace().unwrap();
    let mut case = Case {
        wires: Wires::new(switch, &HOSTS, seed).await,
        site,
        clocks,
        wanted: Wanted {
            engines,
            ..Wanted::default()
        },
        off: BTreeSet::new(),
        dead: BTreeSet::new(),
        patience,
        other: std::env::var_os("ARPANET_OTHER").map(PathBuf::from),
        starts: 0,
        said: String::new(),
    };
    // Some lines of a host's mounts are other ones from its second start on.
    for host in HOSTS {
        case.site.lab.kill(host).await.unwrap();
        case.site.lab.start(host).await.unwrap();
        case.start_engine(host).await;
    }
    let small = format!("mkdir -p {STATE} && mount -t tmpfs -o size=4m,mode=700 none {STATE}");
    case.shell(SMALL, &small);
    let mut before = Vec::new();
    for host in HOSTS {
        before.push(Trace::of(&case.site, host).await);
    }
    case.begin();
    for (number, round) in plan.rounds.iter().enumerate() {
        eprintln!("round {number}");
        case.go_through(round).await;
    }
    case.no_secret_was_told();
    for host in plan.rounds.last().map_or(&[][..], |round| &round.order) {
        case.ok(*host, "reset");
    }
    for (host, before) in HOSTS.into_iter().zip(&before) {
        let left = before.difference(&Trace::of(&case.site, host).await);
        assert!(left.is_empty(), "{host}:\n{}", left.join("\n"));
        let runs = case.site.run(host, "ps -e -o args=").out;
        assert!(!runs.contains(PROGRAM), "{host}: {runs}");
    }
}

impl Case {
    fn shell(&self, host: usize, script: &str) -> String {
        let outcome = self.site.command(HOSTS[host], &["sh", "-c", script]);
        assert_eq!(outcome.code, Some(0), "{script}: {outcome:?}");
        outcome.out
    }

    /// Runs `arpanet2` on a host.
    fn arpanet2(&mut self, host: usize, line: &str) -> Outcome {
        let other = self
            .other
            .as_ref()
            .filter(|_| host % 2 == 1 && self.starts % 2 == 1);
        let binary = other.map_or(BINARY.to_owned(), |other| other.display().to_string());
        let mut whole = format!("{binary} {line}");
        if let Some(clocks) = &self.clocks {
            whole = format!("{} {whole}", clocks.before(HOSTS[host]));
        }
        let outcome = self.site.run(HOSTS[host], &whole);
        self.said += &outcome.out;
        self.said += &outcome.err;
        if outcome.code != Some(0) {
            eprintln!("{}: {line}: {outcome:?}", HOSTS[host]);
        }
        outcome
    }

    fn ok(&mut self, host: usize, line: &str) -> String {
        let outcome = self.arpanet2(host, line);
        if outcome.code != Some(0) {
            panic!(
                "{}: {line}: {outcome:?}\n{}",
                HOSTS[host],
                self.site.log(HOSTS[host])
            );
        }
        outcome.out
    }

    fn begin(&mut self) {
        self.ok(0, &format!("boot 0.1 {PASSWORD}"));
        for (host, role) in [(1, "server"), (2, "client"), (3, "server")] {
            self.ok(
                host,
                &format!("{role} {} {PASSWORD} 0.1 {SEED}", NODES[host]),
            );
        }
        for host in 0..HOSTS.len() {
            self.register(host, 0);
            self.run(host, 0);
        }
        self.within("all is well", Instant::now(), WELL);
    }

    async fn go_through(&mut self, round: &Round) {
        for step in &round.steps {
            eprintln!("{:?}", step.act);
            self.act(step.act).await;
            // The plan's own pace, and no waiting for something to happen.
            std::thread::sleep(step.pause);
        }
        let calm = self.mend(&round.order).await;
        self.within("all is well", calm, WELL);
        self.give_back();

        eprintln!("{:?}", round.death);
        let died = Instant::now();
        self.act(round.death).await;
        let down = self.off.union(&self.dead).next().copied();
        self.wanted.dead = Some(down.unwrap());
        self.within("what the dead one said is gone", died, DEAD);
        self.wanted.dead = None;
        let back = self.mend(&round.order).await;
        self.within("it is back", back, WELL);
    }

    /// Whether the agent of a host runs.
    fn is_up(&self, host: usize) -> bool {
        !self.off.contains(&host) && !self.dead.contains(&host)
    }

    async fn act(&mut self, act: Act) {
        let lab = &self.site.lab;
        match act {
            Act::Unplug(host) => lab.cut(HOSTS[host], None).await.unwrap(),
            Act::Part(one, other) => lab.cut(HOSTS[one], Some(HOSTS[other])).await.unwrap(),
            Act::Mute { from, to } => {
                let to = Ipv4Addr::new(192, 168, 8, 120 + u8::try_from(to).unwrap());
                self.wires.mute(HOSTS[from], to).await;
            }
            Act::Weather { loss, delay } => {
                let delay = Duration::from_millis(delay.into());
                self.wires.be_bad(loss, delay).await;
            }
            Act::Heal => self.heal().await,
            Act::KillAgent(host) if self.is_up(host) => {
                self.signal(host, "KILL");
                self.dead.insert(host);
            }
            Act::KillAgents => {
                for host in (0..HOSTS.len()).filter(|host| self.is_up(*host)) {
                    self.signal(host, "KILL");
                }
                let all = (0..HOSTS.len()).filter(|host| !self.off.contains(host));
                self.dead.extend(all);
            }
            Act::Stall(host, span) if self.is_up(host) => {
                self.signal(host, "STOP");
                std::thread::sleep(span);
                self.signal(host, "CONT");
            }
            Act::Stop(host) if self.is_up(host) => {
                let stopped = self.arpanet2(host, "stop").code == Some(0);
                self.dead.extend(stopped.then_some(host));
            }
            Act::KillHost(host) => {
                lab.kill(HOSTS[host]).await.unwrap();
                self.dead.remove(&host);
                self.off.insert(host);
            }
            Act::KillEngine(host) if self.wanted.engines && !self.off.contains(&host) => {
                lab.end_docker(HOSTS[host], Ending::AtOnce).await.unwrap();
            }
            Act::Start(host) => self.start(host).await,
            // As much as there is: it fails when there is none left.
            Act::FillDisk => {
                let fill = format!("dd if=/dev/zero of={STATE}/filler bs=4k || true");
                self.shell(SMALL, &fill);
            }
            Act::Register(host, slot) if self.is_up(host) => self.register(host, slot),
            Act::Run(host, slot) if self.is_up(host) => self.run(host, slot),
            Act::Claim {
                one,
                other,
                address,
            } => {
                for host in [one, other] {
                    if self.is_up(host) {
                        self.claim(host, address);
                    }
                }
            }
            Act::Rekey(host) if self.is_up(host) => {
                self.arpanet2(host, "rekey");
            }
            Act::SetClock(host, seconds) => {
                if let Some(clocks) = &self.clocks {
                    clocks.set(HOSTS[host], seconds);
                }
            }
            _ => {}
        }
    }

    fn signal(&self, host: usize, signal: &str) {
        self.shell(
            host,
            &format!("kill -{signal} $(cat /run/arpanet2/agent.lock)"),
        );
    }

    async fn heal(&self) {
        self.site.lab.heal(None).await.unwrap();
        self.wires.heal().await;
    }

    /// Where there are engines; one that runs goes on.
    async fn start_engine(&self, host: &str) {
        if self.wanted.engines {
            self.site.lab.start_docker(host).await.unwrap();
        }
    }

    /// Its power, its engine, its agent. While it is cut off, or its disk is full, an agent may not come up, and says so.
    async fn start(&mut self, host: usize) {
        if self.off.remove(&host) {
            self.site.lab.start(HOSTS[host]).await.unwrap();
            self.dead.insert(host);
        }
        self.start_engine(HOSTS[host]).await;
        if self.dead.contains(&host) {
            self.starts += 1;
            if self.arpanet2(host, "start").code == Some(0) {
                self.dead.remove(&host);
            }
        }
    }

    fn register(&mut self, host: usize, slot: usize) {
        let name = registration(host, slot);
        if !self.wanted.registered.contains(&(host, slot)) {
            let line = format!("register {name} --port 80 --id {name}");
            if self.arpanet2(host, &line).code == Some(0) {
                self.wanted.registered.insert((host, slot));
            }
        } else if self.arpanet2(host, &format!("deregister {name}")).code == Some(0) {
            self.wanted.registered.remove(&(host, slot));
        }
    }

    fn run(&mut self, host: usize, slot: usize) {
        let name = container(host, slot);
        if !self.wanted.running.contains(&(host, slot)) {
            if self.run_at(host, &name, "10.1.0.0/16") {
                self.wanted.running.insert((host, slot));
            }
        } else if self.arpanet2(host, &format!("rm -f {name}")).code == Some(0) {
            self.wanted.running.remove(&(host, slot));
        }
    }

    fn claim(&mut self, host: usize, address: usize) {
        let claims = self.wanted.claimed.entry(address).or_default();
        if !claims.contains(&host) {
            let at = format!("{}/16", contested(address));
            if self.run_at(host, &claimant(host, address), &at) {
                self.wanted.claimed.entry(address).or_default().insert(host);
            }
        }
    }

    fn run_at(&mut self, host: usize, name: &str, net: &str) -> bool {
        let image = if self.wanted.engines {
            format!("--image {IMAGE} ")
        } else {
            String::new()
        };
        let line = format!(
            "run {image}--net {net} --service {WEB} --port 80 --restart always --name {name} -- {PROGRAM}"
        );
        self.arpanet2(host, &line).code == Some(0)
    }

    /// Whoever asked for an address that another has is left with a container without one: both are removed.
    fn give_back(&mut self) {
        for (address, hosts) in std::mem::take(&mut self.wanted.claimed) {
            for host in hosts {
                self.ok(host, &format!("rm -f {}", claimant(host, address)));
            }
        }
    }

    /// All that was done is taken back; when that was, or when the last one was back after it.
    async fn mend(&mut self, order: &[usize]) -> Instant {
        self.heal().await;
        self.shell(SMALL, &format!("rm -f {STATE}/filler"));
        for host in order {
            self.start(*host).await;
            assert!(
                self.is_up(*host),
                "{}: {}",
                HOSTS[*host],
                self.site.log(HOSTS[*host])
            );
        }
        Instant::now()
    }

    /// Looks again and again until all is as it should be; it must be so soon.
    fn within(&self, what: &str, since: Instant, limit: Duration) {
        let limit = limit * self.patience;
        loop {
            let asked = Instant::now();
            let lines = match self.look() {
                Ok(seen) => seen::differences(&self.wanted, &seen),
                Err(line) => vec![line],
            };
            if lines.is_empty() {
                eprintln!("{what} within {:.2?}", asked - since);
                return;
            }
            if asked - since > limit {
                eprintln!("{:?}", self.wanted);
                for host in (0..HOSTS.len()).filter(|host| !self.off.contains(host)) {
                    eprintln!("{}: {}", HOSTS[host], self.site.log(HOSTS[host]));
                    if self.wanted.engines {
                        eprintln!("{:?}", self.site.run(HOSTS[host], "/usr/bin/docker ps -a"));
                    }
                }
                panic!("not {what} after {limit:?}:\n{}", lines.join("\n"));
            }
        }
    }

    /// What the living say, all at once.
    fn look(&self) -> Result<BTreeMap<usize, Seen>, String> {
        let living = (0..HOSTS.len()).filter(|host| self.is_up(*host));
        std::thread::scope(|threads| {
            let asked: Vec<_> = living
                .map(|host| (host, threads.spawn(move || look_at(&self.site, host))))
                .collect();
            let told = asked.into_iter();
            told.map(|(host, asked)| Ok((host, asked.join().unwrap()?)))
                .collect()
        })
    }

    /// Not by a command, not in a log, not by `ps`.
    fn no_secret_was_told(&self) {
        for (host, name) in HOSTS.into_iter().enumerate() {
            let told = self.shell(host, &format!("cat {STATE}/agent.log*; ps -e -o args="));
            for file in ["node.json", "identity.json"] {
                let kept = self.shell(host, &format!("cat {STATE}/{file}"));
                let secrets = kept_in(&serde_json::from_str(&kept).unwrap());
                assert!(!secrets.is_empty(), "{file} keeps no secret");
                for secret in secrets {
                    assert!(
                        !is_told(&secret, &told),
                        "{name}: a secret of {file} is told"
                    );
                    assert!(
                        !is_told(&secret, &self.said),
                        "{name}: a command told a secret of {file}"
                    );
                }
            }
            assert!(!told.contains(PASSWORD), "{name}: the password is told");
        }
        assert!(!self.said.contains(PASSWORD), "a command told the password");
    }
}

fn look_at(site: &Site, host: usize) -> Result<Seen, String> {
    let outcome = site.arpanet2(HOSTS[host], "status --json");
    let status: Value = serde_json::from_str(&outcome.out)
        .map_err(|error| format!("{}: {error}: {outcome:?}", HOSTS[host]))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut instances = BTreeSet::new();
    for service in list(&status["services"]) {
        let name = text(&service["name"]);
        for instance in list(&service["instances"]) {
            let Some(ip) = instance["ip"].as_str().and_then(|ip| ip.parse().ok()) else {
                return Err(format!("an instance without address: {instance}"));
            };
            let id = text(&instance["id"]);
            let container = id.split(':').nth(1).filter(|second| *second != name);
            let container = container.unwrap_or_default().to_owned();
            let (node, health) = (text(&instance["node"]), text(&instance["health"]));
            instances.insert((name.clone(), container, ip, node, health));
        }
    }
    let nodes = list(&status["nodes"]).into_iter().map(|node| {
        let described = format!("{} {}", text(&node["name"]), text(&node["role"]));
        (text(&node["address"]), (described, text(&node["state"])))
    });
    Ok(Seen {
        key: status["key"].as_u64().filter(|key| *key != 0),
        nodes: nodes.collect(),
        instances,
        names: ask(site, HOSTS[host], NODES[host], names())?,
        links: links(site, HOSTS[host])?,
    })
}
