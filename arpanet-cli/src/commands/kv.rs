//! `arpanet2 kv get|put|del|ls|watch|lock`

mod lock;

use std::io::{Read, Write};
use std::process::ExitCode;

use arpanet_core::kv::Key;
use arpanet_core::{Error, ErrorKind, Result};
use clap::{Args, Subcommand};
use reqwest::Method;

use super::{Context, lines};
use crate::agent::kv::{KeyQuery, KvChange, KvEntry, PrefixQuery, REVISION};
use crate::client::Agent;
use crate::output::say_result;

#[derive(Debug, Args)]
pub(crate) struct KvArgs {
    #[command(subcommand)]
    command: KvCommand,
}

#[derive(Debug, Subcommand)]
enum KvCommand {
    /// Print a value as it is
    Get {
        /// Where it is stored
        key: Key,
    },
    /// Store a value
    Put {
        /// Where to store it
        key: Key,
        /// The value, or - for standard input
        value: String,
        /// Only over this revision, as --json tells it; 0 stands for none
        #[arg(long, value_name = "REVISION")]
        expect: Option<u64>,
    },
    /// Delete a value; one that is not there is no failure
    Del {
        /// Where it is stored
        key: Key,
    },
    /// List keys
    Ls {
        /// That start with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Print values, and every change from then on
    Watch {
        /// Of keys that start with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Wait for a lock, run a command while it is held, and end it if the lock is lost
    Lock {
        /// What is locked
        key: Key,
        /// The command and its arguments; ARPANET2_FENCING in its environment grows with every holder
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// A request for one entry.
fn entry(agent: &Agent, method: Method, key: &Key, expect: Option<u64>) -> reqwest::RequestBuilder {
    let key = key.to_string();
    agent
        .request(method, "/v1/kv/entry")
        .query(&KeyQuery { key, expect })
}

pub(crate) async fn run(context: &Context, args: KvArgs) -> Result<ExitCode> {
    let agent = context.agent()?;
    match args.command {
        KvCommand::Get { key } => get(context, &agent, &key).await,
        KvCommand::Put { key, value, expect } => put(context, &agent, &key, value, expect).await,
        KvCommand::Del { key } => {
            let request = entry(&agent, Method::DELETE, &key, None);
            agent.send(request).await.map(drop)
        }
        KvCommand::Ls { prefix } => {
            let request = agent.request(Method::GET, "/v1/kv");
            let keys: Vec<String> = agent.json(request.query(&PrefixQuery { prefix })).await?;
            context.printer.result(&keys, |keys| keys.join("\n"))
        }
        KvCommand::Watch { prefix } => watch(context, &agent, prefix).await,
        KvCommand::Lock { key, command } => return lock::run(&agent, &key, command).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

async fn get(context: &Context, agent: &Agent, key: &Key) -> Result<()> {
    let response = agent.send(entry(agent, Method::GET, key, None)).await?;
    let revision = response.headers().get(REVISION);
    let revision = revision
        .and_then(|revision| revision.to_str().ok()?.parse().ok())
        .unwrap_or_default();
    let value = response.bytes().await.map_err(|source| {
        Error::new(ErrorKind::Unavailable, "the agent broke off").with_source(source)
    })?;
    if context.printer.is_json() {
        let entry = KvEntry::new(key, &value, revision);
        return context.printer.result(&entry, |_| String::new());
    }
    let mut out = std::io::stdout().lock();
    let written = out.write_all(&value).and_then(|()| out.flush());
    written.map_err(|source| {
        Error::new(ErrorKind::Internal, "standard output can't be written").with_source(source)
    })
}

async fn put(
    context: &Context,
    agent: &Agent,
    key: &Key,
    value: String,
    expect: Option<u64>,
) -> Result<()> {
    let mut bytes = value.into_bytes();
    if bytes == b"-" {
        bytes.clear();
        std::io::stdin().read_to_end(&mut bytes).map_err(|source| {
            let message = "the value can't be read from standard input";
            Error::new(ErrorKind::InvalidInput, message).with_source(source)
        })?;
    }
    let request = entry(agent, Method::PUT, key, expect).body(bytes);
    let revision: u64 = agent.json(request).await?;
    if context.printer.is_json() {
        let revision = serde_json::json!({ "key": key.as_str(), "revision": revision });
        return context.printer.result(&revision, |_| String::new());
    }
    Ok(())
}

async fn watch(context: &Context, agent: &Agent, prefix: String) -> Result<()> {
    let request = agent.request(Method::GET, "/v1/kv/watch");
    let response = agent.send(request.query(&PrefixQuery { prefix })).await?;
    let mut lines = lines::of(response);
    while let Some(change) = lines.next::<KvChange>().await? {
        if context.printer.is_json() {
            let line = serde_json::to_string(&change).map_err(|source| {
                Error::new(ErrorKind::Internal, "the change can't be written").with_source(source)
            })?;
            say_result(&line)?;
            continue;
        }
        match change {
            KvChange::Snapshot(entries) => entries.iter().try_for_each(told)?,
            KvChange::Put(entry) => told(&entry)?,
            KvChange::Deleted(key) => say_result(&format!("deleted {key}"))?,
            KvChange::Stale => crate::output::say("the key-value store is out of reach"),
            KvChange::Fresh => crate::output::say("the key-value store is back"),
        }
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        "the agent ended the watch",
    ))
}

fn told(entry: &KvEntry) -> Result<()> {
    let value = entry.value.as_ref().or(entry.hex.as_ref());
    let value = value.map(String::as_str).unwrap_or_default();
    say_result(&format!("{} {value}", entry.key))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arpanet_core::kv::{Held, KeyValue};
    use arpanet_core::memory::{MemoryKeyValue, World};
    use arpanet_core::{Cluster, ErrorKind};
    use tempfile::TempDir;
    use tokio::net::UnixListener;

    use super::*;
    use crate::output::Printer;
    use crate::paths::Paths;

    /// An agent that serves the key-value store of a simulated world, and nothing else.
    struct Scene {
        folder: TempDir,
        store: Arc<MemoryKeyValue>,
        context: Context,
        server: tokio::task::JoinHandle<()>,
        _world: World,
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            self.server.abort();
        }
    }

    impl Scene {
        async fn new() -> Self {
            let world = World::with_nodes(3).await;
            let store = Arc::new(world.key_value("0.1"));
            let cluster = cluster(&world).key_value(Arc::clone(&store) as _);
            Self::of(world, store, cluster.build().unwrap())
        }

        fn of(world: World, store: Arc<MemoryKeyValue>, cluster: Cluster) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let paths = Paths::new(folder.path().join("state"), folder.path().to_owned());
            let listener = UnixListener::bind(paths.socket()).unwrap();
            let routes = axum::Router::new().nest("/v1/kv", crate::agent::kv::routes(cluster));
            let server = tokio::spawn(async move {
                axum::serve(listener, routes).await.unwrap();
            });
            let context = Context {
                global: crate::args::Global {
                    json: false,
                    config: None,
                    state_dir: None,
                    run_dir: None,
                },
                config: Default::default(),
                paths,
                printer: Printer::new(false),
            };
            Self {
                folder,
                store,
                context,
                server,
                _world: world,
            }
        }

        async fn put(&self, value: &str, expect: Option<u64>) -> Result<()> {
            let agent = self.context.agent().unwrap();
            put(&self.context, &agent, &key(), value.to_owned(), expect).await
        }

        async fn value(&self) -> Option<(String, u64)> {
            let entry = self.store.get(&key()).await.unwrap()?;
            let value = String::from_utf8(entry.value.to_vec()).unwrap();
            Some((value, entry.revision.0))
        }

        async fn comes_to(&self, what: impl Fn(Option<&Held>) -> bool) {
            let until = async {
                while !what(self.store.holder(&key()).await.unwrap().as_ref()) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(30), until)
                .await
                .unwrap();
        }

        /// Runs a command under the lock.
        fn lock(&self, script: &str) -> impl Future<Output = Result<ExitCode>> + use<> {
            let agent = self.context.agent().unwrap();
            let command = ["sh", "-c", script].map(str::to_owned).to_vec();
            async move { lock::run(&agent, &key(), command).await }
        }
    }

    fn cluster(world: &World) -> arpanet_core::cluster::ClusterBuilder {
        Cluster::builder()
            .node("0.1".parse().unwrap())
            .overlay(Arc::new(world.overlay("0.1")))
            .discovery(Arc::new(world.discovery("0.1")))
            .admission(Arc::new(world.admission("0.1")))
    }

    fn key() -> Key {
        "paas/web".parse().unwrap()
    }

    #[tokio::test]
    async fn a_value_is_stored_replaced_by_revision_and_deleted() {
        let scene = Scene::new().await;
        scene.put("one", None).await.unwrap();
        let (value, revision) = scene.value().await.unwrap();
        assert_eq!(value, "one");
        scene.put("two", Some(revision)).await.unwrap();
        let refused = scene.put("three", Some(revision)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        let refused = scene.put("three", Some(0)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert_eq!(scene.value().await.unwrap().0, "two");
        let agent = scene.context.agent().unwrap();
        for prefix in ["", "paas/"] {
            let prefix = prefix.to_owned();
            let request = agent.request(Method::GET, "/v1/kv");
            let request = request.query(&PrefixQuery { prefix });
            let keys: Vec<String> = agent.json(request).await.unwrap();
            assert_eq!(keys, ["paas/web"]);
        }
        let command = KvCommand::Ls {
            prefix: "other".to_owned(),
        };
        run(&scene.context, KvArgs { command }).await.unwrap();
        get(&scene.context, &agent, &key()).await.unwrap();
        for _ in 0..2 {
            let command = KvCommand::Del { key: key() };
            run(&scene.context, KvArgs { command }).await.unwrap();
        }
        assert_eq!(scene.value().await, None);
        let refused = get(&scene.context, &agent, &key()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        scene.put("four", Some(0)).await.unwrap();
    }

    #[tokio::test]
    async fn a_watch_tells_what_is_there_and_every_change() {
        let scene = Scene::new().await;
        scene.put("one", None).await.unwrap();
        let agent = scene.context.agent().unwrap();
        let prefix = "paas/".to_owned();
        let request = agent.request(Method::GET, "/v1/kv/watch");
        let request = request.query(&PrefixQuery { prefix });
        let mut told = lines::of(agent.send(request).await.unwrap());
        let first: KvChange = told.next().await.unwrap().unwrap();
        let (_, revision) = scene.value().await.unwrap();
        let there = vec![KvEntry::new(key(), b"one", revision)];
        assert_eq!(first, KvChange::Snapshot(there));
        let store = &scene.store;
        store.put(&key(), vec![255].into()).await.unwrap();
        let change: KvChange = told.next().await.unwrap().unwrap();
        assert!(matches!(&change, KvChange::Put(entry) if entry.hex.as_deref() == Some("ff")));
        store.delete(&key()).await.unwrap();
        let change: KvChange = told.next().await.unwrap().unwrap();
        assert_eq!(change, KvChange::Deleted("paas/web".into()));
    }

    #[tokio::test]
    async fn a_lock_is_held_while_the_command_runs_and_freed_after_it() {
        let scene = Scene::new().await;
        let file = scene.folder.path().join("fencing");
        let script = format!("echo $ARPANET2_FENCING > {}; exit 7", file.display());
        let code = scene.lock(&script).await.unwrap();
        assert_eq!(code, ExitCode::from(7));
        let fencing: u64 = std::fs::read_to_string(&file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(fencing > 0);
        scene.comes_to(|holder| holder.is_none()).await;

        // A second one waits for the first, which goes away in the middle.
        let first = tokio::spawn(scene.lock("sleep 60"));
        scene.comes_to(|holder| holder.is_some()).await;
        let second = tokio::spawn(scene.lock("true"));
        first.abort();
        let code = second.await.unwrap().unwrap();
        assert_eq!(code, ExitCode::SUCCESS);
    }

    #[tokio::test]
    async fn a_command_is_ended_when_its_lock_is_lost() {
        let scene = Scene::new().await;
        let file = scene.folder.path().join("ended");
        let script = format!(
            "trap 'echo yes > {}; exit' TERM; while :; do sleep 0.05; done",
            file.display()
        );
        let running = tokio::spawn(scene.lock(&script));
        scene.comes_to(|holder| holder.is_some()).await;
        let held = scene.store.holder(&key()).await.unwrap().unwrap();
        scene.store.close_session(&held.session).await.unwrap();
        let lost = running.await.unwrap().unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::NotFound);
        assert!(lost.to_string().contains("paas/web"), "{lost}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "yes\n");
    }

    #[tokio::test]
    async fn a_cluster_without_a_store_says_what_would_have_one() {
        let world = World::with_nodes(1).await;
        let store = Arc::new(world.key_value("0.1"));
        let without = cluster(&world).build().unwrap();
        let scene = Scene::of(world, store, without);
        let refused = scene.put("one", None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert!(refused.hint().is_some_and(|hint| hint.contains("consul")));
    }
}
