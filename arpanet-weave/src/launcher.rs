//! The router's life: found, launched, or refused; and ended.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::runtime::HostEngine;
use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::{Namespace, Netlink};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::PeerName;
use crate::client::Client;
use crate::command::{CONTAINER, Wanted, is_own};
use crate::config::{ForeignRouter, WeaveConfig};
use crate::error::{is_nobody, own, system};
use crate::leftovers::{self, DATABASE, LOG, SENTINEL};
use crate::log;
use crate::record::{Process, Record};
use crate::report::Report;

/// How often a router that starts is asked.
const ASKING: Duration = Duration::from_millis(50);
/// How long one that is told to end may take, before it is killed.
const ENDING: Duration = Duration::from_secs(5);
/// The weave router that carries the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weaver {
    pub(crate) name: PeerName,
    /// arpanet2 launched it, now or in an earlier process.
    pub(crate) is_ours: bool,
    /// This call launched it.
    pub(crate) is_new: bool,
}

/// What is known of who answers at the router's HTTP address.
#[derive(Debug)]
enum Found {
    Nobody,
    /// The one that was launched, and as it is wanted now.
    Ours,
    /// The one that was launched, but not as it is wanted now.
    Outdated,
    /// One that somebody else launched.
    Foreign(Box<Report>),
}

/// What is launched.
#[derive(Debug)]
enum Source<'a> {
    Program(&'a Path),
    Image(&'a dyn HostEngine),
}

/// Finds, launches and ends the router of a host.
#[derive(Debug)]
pub(crate) struct Launcher {
    config: WeaveConfig,
    host: Namespace,
    client: Client,
    engine: Option<Arc<dyn HostEngine>>,
    /// One thing at a time.
    turn: Mutex<()>,
}

impl Launcher {
    pub(crate) fn new(
        config: &WeaveConfig,
        host: &Namespace,
        engine: Option<Arc<dyn HostEngine>>,
    ) -> Result<Self> {
        Ok(Self {
            engine,
            config: config.clone(),
            host: host.clone(),
            client: Client::new(&config.http, config.request_limit())?,
            turn: Mutex::default(),
        })
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Sees to it that a router runs, and is ready. A second call finds it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where another router, or something else, is in its place, or holds its database;
    /// [`ErrorKind::Unavailable`] and [`ErrorKind::Timeout`] where it does not start, with what it wrote.
    pub(crate) async fn ensure(&self, membership: &Membership) -> Result<Weaver> {
        let _turn = self.turn.lock().await;
        let wanted = self.wanted(membership)?;
        let record = Record::read(&self.config.folder)?;
        if let Some(record) = &record
            && record.process.is_none()
        {
            // Whoever launched it was killed between the launch and the note of its process.
            self.remove_container(record).await?;
        }
        match self.find(record.as_ref(), &wanted).await? {
            Found::Ours => match self.wait(&wanted, record.as_ref()).await {
                Ok(()) => return Ok(wanted.weaver(false)),
                // It runs, but does not work any more.
                Err(error) => tracing::warn!(%error, "the weave router is launched again"),
            },
            Found::Outdated => {
                tracing::info!("the weave router is launched again, as it is wanted now")
            }
            Found::Foreign(report) => return self.take(&report),
            Found::Nobody => {}
        }
        if let Some(record) = &record {
            self.end(record).await?;
        }
        self.launch(&wanted, record).await
    }

    /// Looks for what would make [`ensure`](Self::ensure) fail, and changes nothing.
    pub(crate) async fn preflight(&self) -> Result<()> {
        let record = Record::read(&self.config.folder)?;
        if record
            .as_ref()
            .is_some_and(|record| record.alive().is_some())
        {
            return Ok(());
        }
        match self.client.report().await {
            Ok(report) => self.take(&report).map(drop),
            Err(error) if is_nobody(&error) => {
                self.source()?;
                self.database_is_free()
            }
            Err(error) => Err(self.occupied(error)),
        }
    }

    /// Whether the router that was launched has ended by itself.
    pub(crate) fn has_died(&self) -> bool {
        Record::read(&self.config.folder)
            .is_ok_and(|record| record.is_some_and(|record| record.alive().is_none()))
    }

    /// Ends the router that was launched and removes what it leaves. What somebody else launched, or a bridge that was there
    /// before, stays. A second call does nothing.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub(crate) async fn remove(&self, host: &Netlink) -> Result<()> {
        let _turn = self.turn.lock().await;
        let Some(record) = Record::read(&self.config.folder)? else {
            return Ok(());
        };
        self.clean(host, &record).await
    }

    async fn clean(&self, host: &Netlink, record: &Record) -> Result<()> {
        self.end(record).await?;
        let mut outcome = Ok(());
        if !record.found_bridge {
            outcome = leftovers::remove_network(host, &self.config.bridge).await;
        }
        if let Some(socket) = self.config.http.strip_prefix('/') {
            let socket = Path::new("/").join(socket);
            outcome = outcome.and(crate::record::remove_file(&socket));
        }
        // The last: as long as it stands, the next reset tries again.
        outcome?;
        leftovers::remove_files(&self.config.folder)
    }

    fn wanted(&self, membership: &Membership) -> Result<Wanted> {
        let advertised = membership.me.advertise.map(|endpoint| endpoint.ip());
        // Only an address of this host can be listened on; what is advertised may be a gateway's.
        let host = match advertised {
            Some(ip) => self.host.run(|| is_own(ip))?.then_some(ip),
            None => None,
        };
        let image = self.engine.is_some().then_some(&*self.config.image);
        Ok(Wanted::new(&self.config, image, membership, host))
    }

    async fn find(&self, record: Option<&Record>, wanted: &Wanted) -> Result<Found> {
        let runs = record.is_some_and(|record| record.alive().is_some());
        let is_as_wanted = record.is_some_and(|record| record.fingerprint == wanted.fingerprint);
        let mine = || {
            if is_as_wanted {
                Found::Ours
            } else {
                Found::Outdated
            }
        };
        match self.client.report().await {
            Ok(report) if runs && report.router.peer_name().and_then(PeerName::node).is_some() => {
                Ok(mine())
            }
            Ok(report) => Ok(Found::Foreign(Box::new(report))),
            // It is starting, or hangs: that is for the wait to see.
            Err(_) if runs => Ok(mine()),
            Err(error) if is_nobody(&error) => Ok(Found::Nobody),
            Err(error) => Err(self.occupied(error)),
        }
    }

    /// Somebody answers, or takes the connection, and is no router that works.
    fn occupied(&self, error: Error) -> Error {
        let at = &self.client.at;
        let is_silent = matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable);
        let message = if is_silent {
            format!("something runs at {at}, where weave's HTTP API should be, and does not answer")
        } else {
            format!("what runs at {at}, where weave's HTTP API should be, is no router that works")
        };
        own(ErrorKind::Conflict, message)
            .with_source(error)
            .with_hint("end it, or choose another place for the API of arpanet2's own router")
    }

    /// Uses a router that somebody else launched, or says why not.
    fn take(&self, report: &Report) -> Result<Weaver> {
        let router = &report.router;
        let conflict = |why: &str, way_out: &str| {
            let message = format!(
                "a weave router that arpanet2 has not launched runs at {} already (version {}, name {}, of {}){why}",
                self.client.at, report.version, router.name, router.nick_name
            );
            Err(own(ErrorKind::Conflict, message).with_hint(way_out))
        };
        if self.config.foreign == ForeignRouter::Refuse {
            return conflict(
                "",
                "stop it, with \"weave reset\", or let it carry the overlay: foreign = \"use\" and its password (--weave-password)",
            );
        }
        let Some(name) = router.peer_name() else {
            return conflict(
                ", whose name is no Ethernet address",
                "arpanet2 can't tell such routers apart: give it another with --name",
            );
        };
        if router.port != self.config.port {
            return conflict(
                &format!(", on port {} of the underlay", router.port),
                "say so in port, on all nodes",
            );
        }
        if self.config.encryption && !router.encryption {
            return conflict(
                ", and does not encrypt",
                "give it a password, or say encryption = false",
            );
        }
        Ok(Weaver {
            name,
            is_ours: false,
            is_new: false,
        })
    }

    fn source(&self) -> Result<Source<'_>> {
        let program = match (self.config.binary.as_deref(), &self.engine) {
            (Some(program), _) => program,
            (None, Some(engine)) => return Ok(Source::Image(&**engine)),
            (None, None) => {
                return Err(own(
                    ErrorKind::Unavailable,
                    format!("no weave router runs at {}", self.client.at),
                )
                .with_hint(
                    "start one, or say where the program weaver is: weaver = \"/usr/local/bin/weaver\" in config.toml; with a docker engine its image is launched",
                ));
            }
        };
        match fs::metadata(program) {
            Ok(file) if file.is_file() => Ok(Source::Program(program)),
            Ok(_) => Err(own(
                ErrorKind::InvalidInput,
                format!("{} is no program", program.display()),
            )),
            Err(error) => Err(system(
                format!("weave's program {} is not there", program.display()),
                error,
            )),
        }
    }

    /// A second router on one database waits for ever, without a word.
    fn database_is_free(&self) -> Result<()> {
        let path = self.config.folder.join(DATABASE);
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else {
            return Ok(());
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((_, nix::Error::EWOULDBLOCK)) => Err(own(
                ErrorKind::Conflict,
                format!(
                    "another weave router has the database {} open",
                    path.display()
                ),
            )
            .with_hint("end that one, or choose another folder")),
            _ => Ok(()),
        }
    }

    async fn launch(&self, wanted: &Wanted, earlier: Option<Record>) -> Result<Weaver> {
        let source = self.source()?;
        self.database_is_free()?;
        let host = self.host.handle()?;
        let found_bridge = match earlier {
            Some(earlier) => earlier.found_bridge,
            None => host.link(&self.config.bridge).await?.is_some(),
        };
        // From here to the second note nothing of a process is awaited: a call that is dropped has done nothing, or noted it. A
        // container is found by its name.
        let folder = &self.config.folder;
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.map_err(|error| system(format!("{} can't be made", folder.display()), error))?;
        // With it the router would connect to whom it was connected to before, and to nobody it is told of now.
        crate::record::remove_file(&folder.join(SENTINEL))?;
        let mut record = Record {
            process: None,
            container: matches!(source, Source::Image(_)),
            fingerprint: wanted.fingerprint.clone(),
            found_bridge,
        };
        record.write(folder)?;
        let started = match source {
            Source::Program(program) => wanted.spawn(program, folder, &self.host),
            Source::Image(engine) => {
                let started = engine.start(&wanted.container(&self.config)).await;
                started.map(Process::running).map_err(|error| {
                    let image = &self.config.image;
                    error.context(format!("weave's image {image} can't be launched"))
                })
            }
        };
        let started = started.and_then(|process| {
            record.process = process;
            record.write(folder)
        });
        let outcome = match started {
            Ok(()) => self.wait(wanted, Some(&record)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            if let Err(failure) = self.clean(&host, &record).await {
                tracing::error!(error = %failure, "the weave router has left something");
            }
            return Err(error);
        }
        Ok(wanted.weaver(true))
    }

    /// Waits until the router is ready.
    async fn wait(&self, wanted: &Wanted, record: Option<&Record>) -> Result<()> {
        let limit = self.config.launch_limit();
        let deadline = Instant::now() + limit;
        let mut last = None;
        loop {
            if record.is_none_or(|record| record.alive().is_none()) {
                return Err(self
                    .told(
                        ErrorKind::Unavailable,
                        "the weave router ended while it started",
                        last,
                    )
                    .await);
            }
            let asked = async {
                let ready = self.client.is_ready().await?;
                Ok::<_, Error>((ready, self.client.report().await?))
            };
            match tokio::time::timeout_at(deadline, asked).await {
                Ok(Ok((true, report))) if report.ready => {
                    if report.router.peer_name() == Some(wanted.name) {
                        return Ok(());
                    }
                    let message = format!(
                        "the router at {} calls itself {} instead of {}",
                        self.client.at,
                        Error::words(&report.router.name),
                        wanted.name
                    );
                    return Err(own(ErrorKind::Conflict, message));
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => last = Some(error),
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                let message = format!("the weave router is not ready after {limit:?}");
                return Err(self.told(ErrorKind::Timeout, &message, last).await);
            }
            tokio::time::sleep(ASKING).await;
        }
    }

    /// With what the router wrote, or else the last answer, as the cause.
    async fn told(&self, kind: ErrorKind, message: &str, last: Option<Error>) -> Error {
        let error = own(kind, message);
        let words = match self.source() {
            Ok(Source::Image(engine)) => engine.words(CONTAINER).await.ok(),
            _ => log::tail(&self.config.folder.join(LOG)).ok(),
        };
        match words {
            Some(words) if !words.is_empty() => error.with_source(own(kind, words)),
            _ => match last {
                Some(last) => error.with_source(last),
                None => error.with_hint(
                    "it has not written a word: a second router on one database waits so",
                ),
            },
        }
    }

    /// Ends the process, and removes the container that it was the program of.
    async fn end(&self, record: &Record) -> Result<()> {
        end(record).await?;
        self.remove_container(record).await
    }

    async fn remove_container(&self, record: &Record) -> Result<()> {
        match &self.engine {
            Some(engine) if record.container => engine.remove(CONTAINER).await,
            _ => Ok(()),
        }
    }

    /// Keeps the router's log from growing without end. What an engine keeps has a bound of its own.
    pub(crate) fn bound_log(&self) -> Result<()> {
        let path = self.config.folder.join(LOG);
        log::bound(&path)
            .map_err(|error| system(format!("{} can't be shortened", path.display()), error))
    }
}

async fn end(record: &Record) -> Result<()> {
    let Some(process) = record.alive() else {
        return Ok(());
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        process.signal(signal)?;
        let deadline = Instant::now() + ENDING;
        while process.is_alive() && Instant::now() < deadline {
            tokio::time::sleep(ASKING / 5).await;
        }
        if !process.is_alive() {
            return Ok(());
        }
    }
    Err(own(
        ErrorKind::Internal,
        format!("the weave router, process {}, does not end", process.id),
    ))
}
