//! The hosts that all of it happens on.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arpanet_core::Result;
use arpanet_lab::Lab;
use arpanet_netlink::Namespace;
use ipnet::{IpNet, Ipv4Net};
use tokio::runtime::Handle;

use super::peer::{Outcome, Path as Way, Why};

/// Seconds that a command may take before it is ended: then something is wrong.
const COMMAND_LIMIT: &str = "60";
/// Between two looks at something that is awaited.
const PACE: Duration = Duration::from_millis(2);

/// A lab, and what is run in it, from a thread that may block.
#[derive(Debug)]
pub(super) struct Hosts {
    lab: Lab,
    /// This program.
    program: String,
    handle: Handle,
    count: u8,
    /// Whether each has a docker engine, or why not.
    engines: Outcome<()>,
}

impl Hosts {
    pub(super) fn new(
        lab: Lab,
        program: &Path,
        handle: Handle,
        count: u8,
        engines: Outcome<()>,
    ) -> Self {
        Self {
            lab,
            program: program.display().to_string(),
            handle,
            count,
            engines,
        }
    }

    pub(super) const fn count(&self) -> u8 {
        self.count
    }

    pub(super) fn engines(&self) -> Outcome<()> {
        self.engines.clone()
    }

    /// A host's address on the underlay.
    pub(super) const fn ip(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 8, 119 + host)
    }

    /// Runs a command in a host, which has to succeed; what it printed. One that hangs is ended.
    pub(super) fn run(&self, host: u8, words: &[&str]) -> Outcome<String> {
        let name = format!("node{host}");
        let line: Vec<&str> = [&["timeout", "-k", "1", COMMAND_LIMIT], words].concat();
        let output = self.lab.output(&name, &line)?;
        if output.status.success() {
            let printed = String::from_utf8_lossy(&output.stdout);
            return Ok(printed.trim_end().to_owned());
        }
        let told = crate::failure::said(&output.stderr);
        let told = reason(&told);
        let command = words.iter().take(3).copied().collect::<Vec<_>>().join(" ");
        let command = command.replace(&self.program, "arpanet2");
        Err(Why::failed(format!("{command} on {name}: {told}")))
    }

    /// Runs this program in a host. Words are separated by single spaces.
    pub(super) fn arpanet2(&self, host: u8, line: &str) -> Outcome<String> {
        let words: Vec<&str> = std::iter::once(self.program.as_str())
            .chain(line.split(' '))
            .collect();
        self.run(host, &words)
    }

    /// Runs the docker client in a host. Words are separated by single spaces.
    pub(super) fn docker(&self, host: u8, line: &str) -> Outcome<String> {
        let words: Vec<&str> = std::iter::once(super::swarm::CLIENT)
            .chain(line.split(' '))
            .collect();
        self.run(host, &words)
    }

    /// Runs a script in a host.
    pub(super) fn script(&self, host: u8, script: &str) -> Outcome<String> {
        self.run(host, &["sh", "-c", script])
    }

    /// The network namespace of a host.
    pub(super) fn namespace(&self, host: u8) -> Outcome<Namespace> {
        Ok(self.lab.namespace(&format!("node{host}"))?)
    }

    /// The way from the first host to the second, by this address of the second's.
    pub(super) fn path(&self, ip: Ipv4Addr) -> Outcome<Way> {
        Ok(Way {
            from: self.namespace(1)?,
            to: self.namespace(2)?,
            ip,
        })
    }

    /// The network namespace that one in it calls by this name, as the link `/proc/self/ns/net` has it.
    pub(super) fn namespace_called(name: &str) -> Outcome<Namespace> {
        let process = processes_in(name).next();
        let process = process.ok_or_else(|| Why::failed(format!("nothing runs in {name}")))?;
        Ok(Namespace::open(process.join("ns/net"))?)
    }

    /// The address that is in this network, of those in a namespace.
    pub(super) fn address_in(&self, namespace: &Namespace, net: Ipv4Net) -> Outcome<Ipv4Addr> {
        let addresses: Result<Vec<_>> = self
            .handle
            .block_on(async { namespace.handle()?.addresses().await });
        let mut ips = addresses?.into_iter().filter_map(|it| match it.address {
            IpNet::V4(address) => Some(address.addr()),
            IpNet::V6(_) => None,
        });
        let found = ips.find(|ip| net.contains(ip));
        found.ok_or_else(|| Why::failed(format!("a container has no address in {net}")))
    }

    /// Processes in a host's network, by their command lines.
    pub(super) fn processes(
        &self,
        host: u8,
        is_it: impl Fn(&[String]) -> bool,
    ) -> Outcome<Vec<i32>> {
        let own = self.run(host, &["readlink", "/proc/self/ns/net"])?;
        let found = processes_in(&own).filter(|process| is_it(&command_line(process)));
        let number = |process: PathBuf| process.file_name()?.to_str()?.parse().ok();
        Ok(found.filter_map(number).collect())
    }

    /// Kills these, and returns once they are gone.
    pub(super) fn kill(pids: &[i32]) -> Outcome<()> {
        for pid in pids {
            // One that is gone is what is wanted.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(*pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let gone = |pid: &i32| {
            let process = PathBuf::from(format!("/proc/{pid}"));
            command_line(&process).is_empty()
        };
        until("a killed process is gone", Duration::from_secs(10), || {
            pids.iter().all(gone).then_some(())
        })
    }

    /// Pulls the cable of the last host.
    pub(super) fn cut(&self) -> Outcome<()> {
        let last = format!("node{}", self.count);
        Ok(self.handle.block_on(self.lab.cut(&last, None))?)
    }

    /// Puts it back.
    pub(super) fn heal(&self) -> Outcome<()> {
        Ok(self.handle.block_on(self.lab.heal(None))?)
    }

    /// Does what takes an event loop.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Outcome<T> {
        Ok(self.handle.block_on(work)?)
    }
}

/// What a program that failed said, in a line: this one's causes belong to it, and hints do not.
fn reason(told: &str) -> String {
    let mut lines = told.lines().filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("it says nothing");
    let causes = lines.filter_map(|line| line.strip_prefix("caused by: "));
    let parts: Vec<&str> = std::iter::once(first).chain(causes).collect();
    parts.join(": ")
}

/// Processes whose network namespace has this name, as folders.
fn processes_in(name: &str) -> impl Iterator<Item = PathBuf> {
    let name = name.to_owned();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.map(|entry| entry.path()).filter(move |process| {
        let link = fs::read_link(process.join("ns/net"));
        link.is_ok_and(|link| link.as_os_str().as_bytes() == name.as_bytes())
    })
}

/// A process's program and arguments; empty for one that is gone.
fn command_line(process: &Path) -> Vec<String> {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut words: Vec<String> = words.map(|word| word.into_owned()).collect();
    words.pop();
    words
}

/// Whether the first of these words is this program, wherever it is.
pub(super) fn runs(words: &[String], program: &str) -> bool {
    let first = words.first().map(Path::new);
    first.and_then(Path::file_name) == Some(program.as_ref())
}

/// Looks again and again until it is there.
pub(super) fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Outcome<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if began.elapsed() > limit {
            let seconds = limit.as_secs();
            return Err(Why::failed(format!("not within {seconds} s: {what}")));
        }
        std::thread::park_timeout(PACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_its_causes_and_no_hint() {
        let told = "could not boot\ncaused by: no overlay\ncaused by: no device\nhint: make one";
        assert_eq!(reason(told), "could not boot: no overlay: no device");
        assert_eq!(
            reason("docker: no such image\nSee docker run --help"),
            "docker: no such image"
        );
        assert_eq!(reason(""), "it says nothing");
    }

    #[test]
    fn a_program_is_known_wherever_it_is() {
        let words = ["/usr/bin/consul", "agent"].map(str::to_owned);
        assert!(runs(&words, "consul") && !runs(&words, "agent") && !runs(&[], "consul"));
    }
}
