//! Consul in a container: with the image's files, processes of its own and a volume of docker's, and with the router's network in
//! the place of one of its own. So 10.253.A.B is where it is for a process of the host, behind the same rules, and the container
//! itself has no network at all.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use arpanet_consul::agent::Spawn;
use arpanet_core::{Error, ErrorKind, Result};
use arpanet_docker::{Part, PartConfig};
use arpanet_netlink::Namespace;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::commands::Context;

/// The official image, where none is chosen.
pub(crate) const DEFAULT_IMAGE: &str = "hashicorp/consul:1.22";

/// What the container and its volume are called on the engine.
pub(crate) const NAME: &str = "arpanet2-consul";

/// Where programs are in an image.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The namespaces that are the container's: all but the network's.
const NAMESPACES: [(&str, CloneFlags); 5] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    // Of the children.
    ("pid", CloneFlags::CLONE_NEWPID),
    // The last: the others are opened by the host's paths.
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// The container of this host's consul.
#[derive(Debug)]
pub(crate) struct Container {
    part: Part,
    folder: PathBuf,
}

impl Container {
    /// Of this image. Nothing is asked yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what can't be an image's name.
    pub(crate) fn new(context: &Context, image: &str) -> Result<Self> {
        let folder = context.paths.consul();
        let mut config = PartConfig::new(NAME.parse()?, image)
            .folder(&folder)
            .volume(NAME, folder.join("data"));
        let settings = &context.config;
        let files = [
            &settings.consul_ca,
            &settings.consul_certificate,
            &settings.consul_key,
            &settings.consul_token_file,
        ];
        for file in files.into_iter().flatten() {
            config = config.folder(file);
        }
        Ok(Self {
            part: Part::new(&context.config.docker(), config)?,
            folder,
        })
    }

    /// Makes the image present.
    pub(crate) async fn prepare(&self) -> Result<()> {
        self.part.prepare().await.map_err(|error| {
            let kind = error.kind();
            let hint = format!(
                "{}; or install consul on this host, and name it in config.toml: consul = \"/PATH\"",
                error.hint().unwrap_or("is the engine well?")
            );
            Error::new(kind, "consul's container can't be made")
                .with_source(error)
                .with_hint(hint)
        })
    }

    /// Starts a command in it, in the router's network.
    fn spawn(&self, router: &Path, command: &mut Command) -> io::Result<Child> {
        let run = async {
            if !self.folder.join("data").exists() {
                // What an earlier node left is nobody's to go on with.
                self.part.remove().await?;
            }
            std::fs::write(marker(&self.folder), NAME).map_err(|source| {
                let message = format!("{} can't be written", marker(&self.folder).display());
                Error::new(ErrorKind::Internal, message).with_source(source)
            })?;
            self.part.run().await
        };
        let run = || tokio::runtime::Handle::current().block_on(run);
        let first = tokio::task::block_in_place(run).map_err(io::Error::other)?;
        let namespaces = open(first)?;
        let router = Namespace::open(router).map_err(io::Error::other)?;
        command.env_clear().env("PATH", PATH).current_dir("/");
        router
            .run(|| {
                enter(&namespaces)?;
                give_up_capabilities()?;
                command.spawn()
            })
            .map_err(io::Error::other)?
    }

    /// Starts commands in it, in the router's network.
    pub(super) fn spawning(self: Arc<Self>, router: PathBuf) -> Spawn {
        Arc::new(move |command| self.spawn(&router, command))
    }
}

/// Present while there may be a container.
fn marker(folder: &Path) -> PathBuf {
    folder.join("container")
}

/// Where consul answers the agent from in there.
pub(crate) fn socket(context: &Context) -> PathBuf {
    context.paths.consul().join("consul.sock")
}

/// Whether consul is in a container on this host.
pub(crate) fn is_there(context: &Context) -> bool {
    marker(&context.paths.consul()).exists()
}

/// Ends what there is of a container, after consul itself has ended. Its data stays.
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) when there may be one, and the engine does not answer.
pub(crate) async fn stop(context: &Context) -> Result<()> {
    if !is_there(context) {
        return Ok(());
    }
    Container::new(context, DEFAULT_IMAGE)?.part.stop().await
}

/// Removes what there is of a container, whoever started it. The image stays.
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) when there may be one, and the engine does not answer.
pub(crate) async fn clean(context: &Context) -> Result<()> {
    if !is_there(context) {
        return Ok(());
    }
    let container = Container::new(context, DEFAULT_IMAGE)?;
    container.part.remove().await.map_err(|error| {
        Error::new(error.kind(), "consul's container can't be removed")
            .with_hint("start the engine, and try again")
            .with_source(error)
    })
}

/// A process's namespaces, each with what it is.
fn open(process: i32) -> io::Result<Vec<(File, CloneFlags)>> {
    let mut opened = Vec::new();
    for (name, kind) in NAMESPACES {
        match File::open(format!("/proc/{process}/ns/{name}")) {
            Ok(file) => opened.push((file, kind)),
            // A kernel without them.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "cgroup" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}

/// Has the present thread, which has to be one of its own, be in these.
fn enter(namespaces: &[(File, CloneFlags)]) -> io::Result<()> {
    // Its root is about to be another than that of its process.
    unshare(CloneFlags::CLONE_FS)?;
    for (namespace, kind) in namespaces {
        setns(namespace.as_fd(), *kind)?;
    }
    Ok(())
}

/// Leaves the present thread, and what it starts, root's name and nothing of root's power.
fn give_up_capabilities() -> io::Result<()> {
    for one in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // The kernel does not know it.
            Err(rustix::io::Errno::INVAL) => {}
            outcome => outcome?,
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
