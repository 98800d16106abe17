//! Between a spec and what the engine calls a container.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use arpanet_core::overlay::NetNamespace;
use arpanet_core::runtime::{Container, ContainerSpec, ContainerState, RestartPolicy};
use arpanet_core::{ContainerName, ErrorKind, Result};
use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum,
    HostConfig, RestartPolicy as EnginePolicy, RestartPolicyNameEnum,
};

use crate::error::own;

/// The label that keeps the spec of a container that arpanet2 made, without the values of its environment: the engine has
/// those.
pub(crate) const SPEC_LABEL: &str = "arpanet.spec";

/// What a shell tells of signal 9.
const KILLED: i32 = 137;

/// What the engine is asked for.
pub(crate) fn body(name: &ContainerName, spec: &ContainerSpec) -> Result<ContainerCreateBody> {
    let image = spec.image.clone().ok_or_else(|| {
        own(
            ErrorKind::InvalidInput,
            "a container of docker needs an image",
        )
        .with_hint("name one, as in --image nginx:1")
    })?;
    let mut kept = spec.clone();
    kept.name = Some(name.clone());
    kept.env.0.values_mut().for_each(String::clear);
    let kept = serde_json::to_string(&kept)
        .map_err(|source| own(ErrorKind::Internal, "the spec can't be kept").with_source(source))?;
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    labels.insert(SPEC_LABEL.to_owned(), kept);
    let policy = match spec.restart {
        RestartPolicy::OnFailure => RestartPolicyNameEnum::ON_FAILURE,
        // One that was stopped stays so, also when the engine is restarted.
        RestartPolicy::Always => RestartPolicyNameEnum::UNLESS_STOPPED,
        _ => RestartPolicyNameEnum::NO,
    };
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let env = spec
        .env
        .0
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    Ok(ContainerCreateBody {
        image: Some(image),
        cmd: some(spec.command.clone()),
        env: some(env.collect()),
        user: spec.user.clone(),
        working_dir: spec.workdir.clone(),
        labels: Some(labels),
        stop_timeout: spec.stop_grace.map(seconds).map(i64::from),
        host_config: Some(HostConfig {
            restart_policy: Some(EnginePolicy {
                name: Some(policy),
                maximum_retry_count: None,
            }),
            dns: some(spec.dns.iter().map(ToString::to_string).collect()),
            dns_search: some(spec.dns_search.clone()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

/// Whole seconds, as the engine counts them: no less than was asked for.
pub(crate) fn seconds(time: Duration) -> i32 {
    let more = u64::from(time.subsec_nanos() > 0);
    i32::try_from(time.as_secs().saturating_add(more)).unwrap_or(i32::MAX)
}

/// A container as the engine shows it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) container: Container,
    /// Whether arpanet2 made it.
    pub(crate) is_own: bool,
    /// As it was given when arpanet2 made it, whatever labels were changed since.
    pub(crate) made_of: Option<ContainerSpec>,
}

/// Reads what the engine shows. `None` for what is no container yet, or no more.
pub(crate) fn found(
    shown: ContainerInspectResponse,
    relabel: impl FnOnce(&str, &mut BTreeMap<String, String>),
) -> Option<Found> {
    let id = shown.id?;
    let name = name(shown.name.as_deref().unwrap_or_default(), &id)?;
    let config = shown.config.unwrap_or_default();
    let made_of = own_spec(&name, &config);
    let is_own = made_of.is_some();
    let mut spec = made_of
        .clone()
        .unwrap_or_else(|| foreign_spec(&name, &config));
    relabel(&id, &mut spec.labels);
    let created = shown
        .created
        .map_or(SystemTime::UNIX_EPOCH, SystemTime::from);
    let (state, pid) = state(shown.state.as_ref()?);
    // A namespace that it shares is not its own to be given addresses.
    let mode = shown.host_config.and_then(|host| host.network_mode);
    let shares = mode.is_some_and(|mode| mode == "host" || mode.starts_with("container:"));
    let namespace = pid
        .filter(|_| !shares)
        .map(|pid| NetNamespace::Path(PathBuf::from(format!("/proc/{pid}/ns/net"))));
    let container = Container::new(name, id.clone(), spec, created)
        .state(state)
        .namespace(namespace);
    Some(Found {
        id,
        container,
        is_own,
        made_of,
    })
}

/// The engine's name for it, or the short id where that can't be a name here.
pub(crate) fn name(shown: &str, id: &str) -> Option<ContainerName> {
    let name = shown.trim_start_matches('/').parse();
    name.or_else(|_| id.get(..12).unwrap_or(id).parse()).ok()
}

/// The spec that arpanet2 made this very container of: an image that was made of one has its labels, too.
fn own_spec(name: &ContainerName, config: &ContainerConfig) -> Option<ContainerSpec> {
    let label = config.labels.as_ref()?.get(SPEC_LABEL)?;
    let mut spec: ContainerSpec = serde_json::from_str(label).ok()?;
    if spec.name.as_ref() != Some(name) {
        return None;
    }
    for variable in config.env.iter().flatten() {
        if let Some((name, value)) = variable.split_once('=')
            && let Some(kept) = spec.env.0.get_mut(name)
        {
            value.clone_into(kept);
        }
    }
    Some(spec)
}

fn foreign_spec(name: &ContainerName, config: &ContainerConfig) -> ContainerSpec {
    let mut spec = ContainerSpec::default();
    spec.name = Some(name.clone());
    spec.image.clone_from(&config.image);
    spec.command = config.cmd.clone().unwrap_or_default();
    let labels = config.labels.clone().unwrap_or_default();
    spec.labels = labels
        .into_iter()
        .filter(|(label, _)| label != SPEC_LABEL)
        .collect();
    spec
}

/// The state, and the process while it runs.
fn state(shown: &bollard::models::ContainerState) -> (ContainerState, Option<i64>) {
    let pid = shown.pid.filter(|pid| *pid > 0);
    let code = shown.exit_code.unwrap_or_default();
    match shown.status {
        Some(ContainerStateStatusEnum::CREATED) => (ContainerState::Created, None),
        // Not while the engine waits to start it anew.
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::STOPPING,
        ) if pid.is_some() => (ContainerState::Running, pid),
        _ => {
            let code = i32::try_from(code).unwrap_or(KILLED);
            (ContainerState::Exited { code }, None)
        }
    }
}
