//! `arpanet2 demo`: three hosts, one cluster, on this machine and for a few seconds.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_lab::{HolderCommand, Lab, LabConfig};
use serde::Serialize;
use tokio::runtime::Handle;

use super::Context;
use crate::output::{Printer, Progress, say_result};
use crate::{failure, host};

/// How long DNS may take to let go of a host, and to have it back.
const CHANGE: Duration = Duration::from_secs(10);

/// One thing that was shown.
#[derive(Debug, Clone, Serialize)]
struct Step {
    step: &'static str,
    ms: f64,
    shows: String,
}

#[derive(Debug, Serialize)]
struct Shown {
    steps: Vec<Step>,
    total_ms: f64,
}

pub(crate) async fn run(context: &Context) -> Result<()> {
    let began = Instant::now();
    let program = host::program()?;
    let config = LabConfig::new(folder(), HolderCommand::new(&program, ["holder"]));
    let (told, steps) = channel();
    let shown = show_all(context.printer, &config, program, told, &steps).await;
    // Whatever happened, nothing of it stays.
    let teardown = Instant::now();
    if let Ok(lab) = Lab::open(config) {
        lab.down().await?;
    }
    let mut steps = shown?;
    steps.push(Step {
        step: "down",
        ms: milliseconds(teardown.elapsed()),
        shows: "everything is removed again".to_owned(),
    });
    if !context.printer.is_json() {
        print(steps.last())?;
    }
    let shown = Shown {
        steps,
        total_ms: milliseconds(began.elapsed()),
    };
    context.printer.result(&shown, |shown| {
        format!("all of it in {:.1} s", shown.total_ms / 1000.0)
    })
}

/// Where the lab's folder is. Its layers need a file system that is no layer itself, as `/run` is.
fn folder() -> PathBuf {
    let run = Path::new("/run");
    let is_writable = nix::unistd::access(run, nix::unistd::AccessFlags::W_OK).is_ok();
    let base = if is_writable {
        run.to_owned()
    } else {
        std::env::temp_dir()
    };
    base.join(format!("arpanet2-demo-{}", std::process::id()))
}

/// Makes an ordinary user root of a user namespace of its own, where this machine allows that. To be called before the
/// process has threads.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] says what is in the way.
pub(crate) fn become_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let denied = |what: &str, hint: &str, source: std::io::Error| {
        Error::new(
            ErrorKind::PermissionDenied,
            format!("the demo can't run as an ordinary user here: {what}"),
        )
        .with_hint(hint)
        .with_source(source)
    };
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|source| {
            denied(
                "/dev/net/tun can't be opened",
                "run it with sudo, or open the device to this user",
                source,
            )
        })?;
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    let become_root = || -> std::io::Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
    };
    become_root().map_err(|source| {
        denied(
            "it may not make a user namespace",
            "run it with sudo; or see the settings user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns",
            source,
        )
    })
}

async fn show_all(
    printer: Printer,
    config: &LabConfig,
    program: PathBuf,
    told: Sender<Step>,
    steps: &Receiver<Step>,
) -> Result<Vec<Step>> {
    let began = Instant::now();
    let lab = Arc::new(Lab::up(config.clone(), 3).await?);
    let first = Step {
        step: "lab",
        ms: milliseconds(began.elapsed()),
        shows: "three hosts on one switch: 192.168.8.120, .121 and .122".to_owned(),
    };
    let _ = told.send(first);
    let progress = Progress::begin("showing");
    let show = Show {
        lab,
        program,
        told,
        handle: Handle::current(),
    };
    let mut shown = Vec::new();
    let mut work = tokio::task::spawn_blocking(move || show.all());
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let outcome = loop {
        let finished = tokio::select! {
            outcome = &mut work => Some(outcome),
            _ = ticks.tick() => None,
            _ = tokio::signal::ctrl_c() => {
                progress.end();
                return Err(Error::new(ErrorKind::Unavailable, "interrupted; everything is removed again"));
            }
        };
        for step in steps.try_iter() {
            progress.step(&step.shows);
            if !printer.is_json() {
                print(Some(&step))?;
            }
            shown.push(step);
        }
        if let Some(outcome) = finished {
            break outcome;
        }
    };
    progress.end();
    outcome.map_err(|source| {
        Error::new(ErrorKind::Internal, "the demo broke").with_source(source)
    })??;
    Ok(shown)
}

fn print(step: Option<&Step>) -> Result<()> {
    step.map_or(Ok(()), |step| {
        say_result(&format!("{:>8.0} ms  {}", step.ms, step.shows))
    })
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 1e2
}

/// What is shown, in a thread that may block.
struct Show {
    lab: Arc<Lab>,
    program: PathBuf,
    told: Sender<Step>,
    handle: Handle,
}

impl Show {
    fn all(&self) -> Result<()> {
        self.step(
            "boot",
            "node1 founds a cluster as 0.1: arpanet2 boot 0.1 Apples",
            || self.arpanet2("node1", &["boot", "0.1", "Apples"]).map(drop),
        )?;
        self.step(
            "server",
            "node2 joins as 0.2: arpanet2 server 0.2 Apples 0.1 192.168.8.120",
            || {
                self.arpanet2(
                    "node2",
                    &["server", "0.2", "Apples", "0.1", "192.168.8.120"],
                )
                .map(drop)
            },
        )?;
        self.step(
            "client",
            "node3 joins as 0.14: arpanet2 client 0.14 Apples 0.1 192.168.8.120",
            || {
                self.arpanet2(
                    "node3",
                    &["client", "0.14", "Apples", "0.1", "192.168.8.120"],
                )
                .map(drop)
            },
        )?;
        self.step(
            "run",
            "node3 runs the service web in the network 10.1.0.0/16",
            || {
                let flags = [
                    "run",
                    "--net",
                    "10.1.0.0/16",
                    "--service",
                    "web",
                    "--port",
                    "80",
                    "--name",
                    "w1",
                    "--",
                ];
                self.container("node3", &flags, &["hello", "--port", "80"])
            },
        )?;
        self.step("resolve", "node2 resolves web", || {
            self.until(|| !self.resolve().is_empty(), "web had no address on node2")
        })?;
        self.step(
            "fetch",
            "a container on node2 in the same network fetches http://web.service.consul/",
            || self.fetch("c1", "10.1.0.0/16").map(drop),
        )?;
        self.step(
            "isolate",
            "one in 10.2.0.0/16 is refused, at once",
            || match self.fetch("c2", "10.2.0.0/16") {
                Ok(_) => Err(Error::new(
                    ErrorKind::Internal,
                    "the other network was not isolated",
                )),
                Err(_) => Ok(()),
            },
        )?;
        self.handle.block_on(self.lab.cut("node3", None))?;
        self.step(
            "cut",
            "node3 is cut off: DNS on node2 has let go of web",
            || {
                self.until(
                    || self.resolve().is_empty(),
                    "DNS kept a host that was cut off",
                )
            },
        )?;
        self.handle.block_on(self.lab.heal(None))?;
        self.step("heal", "node3 is healed: web is back", || {
            self.until(
                || !self.resolve().is_empty(),
                "DNS did not take the host back",
            )
        })?;
        self.step("reset", "arpanet2 reset on every host", || {
            ["node3", "node2", "node1"]
                .iter()
                .try_for_each(|host| self.arpanet2(host, &["reset"]).map(drop))
        })
    }

    fn step(
        &self,
        step: &'static str,
        shows: &str,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let began = Instant::now();
        work().map_err(|error| error.context(format!("the demo stopped at: {shows}")))?;
        let step = Step {
            step,
            ms: milliseconds(began.elapsed()),
            shows: shows.to_owned(),
        };
        // Whoever reads may have been interrupted.
        let _ = self.told.send(step);
        Ok(())
    }

    fn container(&self, host: &str, flags: &[&str], command: &[&str]) -> Result<()> {
        let program = self.program.display().to_string();
        let line: Vec<&str> = [flags, &[program.as_str()], command].concat();
        self.arpanet2(host, &line).map(drop)
    }

    /// What a new container on node2, in this network, gets from the service.
    fn fetch(&self, name: &str, net: &str) -> Result<String> {
        self.container(
            "node2",
            &["run", "--net", net, "--name", name, "--"],
            &["hello", "--port", "81"],
        )?;
        let program = self.program.display().to_string();
        let ip = self.resolve();
        // By name where the name is seen, and by address where it is not.
        let url = match name {
            "c1" => "http://web.service.consul/".to_owned(),
            _ => format!("http://{ip}/"),
        };
        self.arpanet2("node2", &["exec", name, "--", &program, "fetch", &url])
    }

    fn resolve(&self) -> String {
        self.arpanet2("node2", &["resolve", "web"])
            .unwrap_or_default()
    }

    fn until(&self, right: impl Fn() -> bool, otherwise: &'static str) -> Result<()> {
        let began = Instant::now();
        while !right() {
            if began.elapsed() > CHANGE {
                return Err(Error::new(ErrorKind::Timeout, otherwise));
            }
        }
        Ok(())
    }

    /// Runs this program in a host; what it printed.
    fn arpanet2(&self, host: &str, line: &[&str]) -> Result<String> {
        let command: Vec<OsString> = std::iter::once(self.program.clone().into_os_string())
            .chain(line.iter().map(OsString::from))
            .collect();
        let output = self.lab.output(host, &command)?;
        if output.status.success() {
            let printed = String::from_utf8_lossy(&output.stdout);
            return Ok(printed.trim_end().to_owned());
        }
        Err(Error::new(
            ErrorKind::Internal,
            failure::said(&output.stderr),
        ))
    }
}
