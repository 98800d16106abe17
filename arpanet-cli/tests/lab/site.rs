//! A lab of the test's own, and the binary in its hosts as an operator types it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use arpanet_consul::agent::find_program;
use arpanet_core::conformance::live;
use arpanet_lab::{HolderCommand, Lab, LabConfig};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_arpanet2");
/// What names the program of a real weave router.
const REAL_WEAVER: &str = "ARPANET_WEAVER";
/// Starts the tests' own weave router.
pub(crate) const WEAVER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../arpanet-weave/tests/fake/weaver.sh"
);
/// Docker's client, as Debian has it.
const DOCKER: &str = "/usr/bin/docker";
/// The underlay address of `node1`.
pub(crate) const SEED: &str = "192.168.8.120";

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned(),
            err: String::from_utf8_lossy(&output.stderr)
                .trim_end()
                .to_owned(),
        }
    }
}

/// Whether there is a docker engine to be had. Says that the test is skipped where not, and fails where one is promised.
fn docker() -> bool {
    let is_there = Path::new("/usr/sbin/dockerd").exists() && Path::new(DOCKER).exists();
    live::have("docker", is_there, "Debian's package docker.io")
}

/// Whether this is root. Says that the test is skipped where not, and fails where root is promised.
pub(crate) fn root() -> bool {
    live::have("root", nix::unistd::geteuid().is_root(), "root, for a lab")
}

/// The consul program: what `ARPANET_CONSUL` names, or the one on the path. Says that the test is skipped where there is none,
/// and fails where one is promised.
pub(crate) fn consul() -> Option<PathBuf> {
    let named = std::env::var_os("ARPANET_CONSUL").map(PathBuf::from);
    let found = named.or_else(|| find_program("consul", &std::env::var_os("PATH")?));
    let why = "there is no consul on the path or in ARPANET_CONSUL";
    live::found_or_skip("consul", found.ok_or(why))
}

/// A lab that is removed also when its test fails.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) lab: Lab,
    config: LabConfig,
    folder: TempDir,
}

/// The program of the real weave router, where somebody says where it is.
pub(crate) fn weaver() -> Option<PathBuf> {
    let program = PathBuf::from(std::env::var_os(REAL_WEAVER)?);
    assert!(
        program.is_file(),
        "{REAL_WEAVER} names {}",
        program.display()
    );
    Some(program)
}

impl Site {
    /// `None`, with a word why, where there is no root; a failure where root is promised.
    pub(crate) async fn up(hosts: u8) -> Option<Self> {
        root().then_some(())?;
        Some(Self::make(hosts, false).await)
    }

    /// With a docker engine in each host. `None`, with a word why, where none can be had.
    pub(crate) async fn up_with_docker(hosts: u8) -> Option<Self> {
        (root() && docker()).then_some(())?;
        Some(Self::make(hosts, true).await)
    }

    /// With services in consul, by the hosts' settings. `None`, with a word why, where there is no root or no consul.
    pub(crate) async fn up_with_consul(hosts: u8) -> Option<Self> {
        root().then_some(())?;
        let consul = consul()?;
        Some(
            Self::make(hosts, false)
                .await
                .keeping_services_in(&consul, hosts),
        )
    }

    /// Both: a docker engine in each host, and services in consul.
    pub(crate) async fn up_with_docker_and_consul(hosts: u8) -> Option<Self> {
        (root() && docker()).then_some(())?;
        let consul = consul()?;
        Some(
            Self::make(hosts, true)
                .await
                .keeping_services_in(&consul, hosts),
        )
    }

    /// Over weave, by the hosts' settings, with the real router where `ARPANET_WEAVER` names its program, and the tests' own
    /// where not. `None`, with a word why, where there is no root.
    pub(crate) async fn up_over_weave(hosts: u8) -> Option<Self> {
        root().then_some(())?;
        let site = Self::make(hosts, false).await;
        Some(site.over_weave("overlay = \"weave\"", hosts, weaver()))
    }

    /// The same with the tests' own router, which fails as it is told, whatever there is.
    pub(crate) async fn up_over_our_weave(hosts: u8) -> Option<Self> {
        root().then_some(())?;
        let site = Self::make(hosts, false).await;
        Some(site.over_weave("overlay = \"weave\"", hosts, None))
    }

    /// Weave, consul and a docker engine in each host. `None`, with a word why, where one of them can't be had.
    pub(crate) async fn up_classic(hosts: u8) -> Option<Self> {
        (root() && docker()).then_some(())?;
        let consul = consul()?;
        let settings = format!("stack = \"classic\"\nconsul = \"{}\"", consul.display());
        let site = Self::make(hosts, true).await;
        Some(site.over_weave(&settings, hosts, weaver()))
    }

    /// The same with the router in a container of each host's engine, from an image that is there. `None` as above.
    pub(crate) async fn up_with_weave_s_image(hosts: u8) -> Option<Self> {
        (root() && docker()).then_some(())?;
        let site = Self::make(hosts, true).await;
        let site = site.over_weave("overlay = \"weave\"", hosts, None);
        for host in 1..=hosts {
            let host = format!("node{host}");
            let program = site.weave(&host).join("weaver");
            // As an image has it: its program is its entrypoint, and starts in the folder that it is told.
            let inside = format!(
                "[\"/bin/busybox\",\"nsenter\",\"-t\",\"1\",\"-m\",\"--\",\"/bin/sh\",\"-c\",\"cd /var/lib/arpanet2/weave && exec {} \\\"$@\\\"\",\"weaver\"]",
                program.display()
            );
            let script = format!(
                "{DOCKER} export $({DOCKER} create arpanet2-lab true) | {DOCKER} import --change 'ENTRYPOINT {inside}' - weaver:test && sed -i /weaver/d /etc/arpanet2/config.toml && {DOCKER} rm $({DOCKER} ps -aq)"
            );
            let made = site.command(&host, &["sh", "-c", &script]);
            assert_eq!(made.code, Some(0), "{made:?}");
            site.set(&host, "weave_image = \"weaver:test\"");
        }
        Some(site)
    }

    fn over_weave(self, settings: &str, hosts: u8, real: Option<PathBuf>) -> Self {
        for host in 1..=hosts {
            let host = format!("node{host}");
            let folder = self.weave(&host);
            std::fs::create_dir(&folder).unwrap();
            symlink(WEAVER, folder.join("weaver")).unwrap();
            symlink(std::env::current_exe().unwrap(), folder.join("program")).unwrap();
            let program = real.clone().unwrap_or_else(|| folder.join("weaver"));
            self.set(
                &host,
                &format!("{settings}\nweaver = \"{}\"", program.display()),
            );
            // The kernel makes them at the first look: they are no trace of anybody.
            self.run(&host, "iptables -S");
            self.run(&host, "iptables -t nat -S");
        }
        self
    }

    /// The folder by whose files a host's weave router is told what to do.
    pub(crate) fn weave(&self, host: &str) -> PathBuf {
        self.folder.path().join(format!("weave-{host}"))
    }

    fn keeping_services_in(self, consul: &Path, hosts: u8) -> Self {
        let settings = format!(
            "discovery = \"consul\"\nconsul = \"{}\"\n",
            consul.display()
        );
        for host in 1..=hosts {
            let host = format!("node{host}");
            self.set(&host, &settings);
        }
        self
    }

    /// Adds lines to a host's settings.
    pub(crate) fn set(&self, host: &str, settings: &str) {
        let script = format!(
            "mkdir -p /etc/arpanet2 && printf '%s\n' '{settings}' >> /etc/arpanet2/config.toml"
        );
        let written = self.command(host, &["sh", "-c", &script]);
        assert_eq!(written.code, Some(0), "{written:?}");
    }

    async fn make(hosts: u8, docker: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = LabConfig::new(
            folder.path().join("lab"),
            HolderCommand::new(PathBuf::from(BINARY), ["holder"]),
        )
        .docker(docker);
        Self {
            lab: Lab::up(config.clone(), hosts).await.unwrap(),
            config,
            folder,
        }
    }

    /// Runs the docker client in a host, which has to succeed; what it printed.
    pub(crate) fn docker(&self, host: &str, line: &str) -> String {
        let outcome = self.run(host, &format!("{DOCKER} {line}"));
        assert_eq!(outcome.code, Some(0), "{host}: docker {line}: {outcome:?}");
        outcome.out
    }

    /// Runs a command line in a host. Words are separated by single spaces.
    pub(crate) fn run(&self, host: &str, line: &str) -> Outcome {
        self.command(host, &line.split(' ').collect::<Vec<_>>())
    }

    /// Runs a command in a host.
    pub(crate) fn command(&self, host: &str, words: &[&str]) -> Outcome {
        self.lab.output(host, words).unwrap().into()
    }

    /// Runs `arpanet2` in a host.
    pub(crate) fn arpanet2(&self, host: &str, line: &str) -> Outcome {
        self.run(host, &format!("{BINARY} {line}"))
    }

    /// Runs `arpanet2` in a host, which has to succeed; what it printed.
    pub(crate) fn ok(&self, host: &str, line: &str) -> String {
        let outcome = self.arpanet2(host, line);
        assert_eq!(
            outcome.code,
            Some(0),
            "{host}: {line}: {outcome:?}\n{}",
            self.log(host)
        );
        outcome.out
    }

    /// What the agent of a host has logged.
    pub(crate) fn log(&self, host: &str) -> String {
        self.run(host, "tail -n 40 /var/lib/arpanet2/agent.log").out
    }

    /// `status --json` of a host.
    pub(crate) fn status(&self, host: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(host, "status --json")).unwrap()
    }

    /// node1 boots as 0.1, node2 joins as the server 0.2, node3 as the client 0.14, as many as there are.
    pub(crate) fn cluster(&self) {
        let joins = [
            ("node2", "server 0.2 Apples 0.1 192.168.8.120"),
            ("node3", "client 0.14 Apples 0.1 192.168.8.120"),
        ];
        self.ok("node1", "boot 0.1 Apples");
        let hosts = self.lab.status().unwrap().len();
        for (host, line) in &joins[..hosts - 1] {
            self.ok(host, line);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let config = self.config.clone();
        // Not on this test's own runtime, which may be the one that unwinds.
        let down = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async { Lab::open(config)?.down().await })
        });
        match down.join() {
            Ok(Ok(())) => {}
            failed if std::thread::panicking() => eprintln!("the lab is left: {failed:?}"),
            failed => panic!("the lab is left: {failed:?}"),
        }
    }
}

/// Asks again and again until the answer is right. How long it took.
pub(crate) fn until<T: std::fmt::Debug>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> T,
    right: impl Fn(&T) -> bool,
) -> Duration {
    let began = Instant::now();
    loop {
        let answer = ask();
        if right(&answer) {
            return began.elapsed();
        }
        assert!(
            began.elapsed() < limit,
            "{what}: still {answer:?} after {limit:?}"
        );
    }
}
