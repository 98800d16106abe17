//! Between a container as it is wanted and a container as docker has it. Pure.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use arpanet_core::label;
use arpanet_core::overlay::NetNamespace;
use arpanet_core::runtime::{
    Container, ContainerSpec, ContainerState, EngineHealth, RestartPolicy,
};
use arpanet_core::{ContainerName, ErrorKind, NodeName, Result};
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HealthStatusEnum, HostConfig,
    RestartPolicy as Restart, RestartPolicyNameEnum,
};

use crate::error::own;
use crate::keep::Changes;
use crate::moment;

/// The label with the spec as it was given, in JSON, without the values of its environment: these docker has.
pub(crate) const SPEC: &str = "arpanet.spec";

/// How many digits of an id stand for a container whose name is no name of ours.
const SHORT_ID: usize = 12;

/// Refuses a spec that docker can't run.
pub(crate) fn check(spec: &ContainerSpec) -> Result<&ContainerName> {
    let refused = |message: String| own(ErrorKind::InvalidInput, message);
    let name = spec
        .name
        .as_ref()
        .ok_or_else(|| refused("a container needs a name".to_owned()))?;
    match spec.image.as_deref() {
        None | Some("") => {
            let message = format!("the container {name} has no image");
            return Err(refused(message).with_hint("docker runs images; name one, as in busybox:1"));
        }
        Some(image) => check_image(image)?,
    }
    if let Some(bad) = spec.env.0.keys().find(|key| !is_variable(key)) {
        return Err(refused(format!("{bad:?} can't be the name of a variable")));
    }
    if spec.env.0.values().any(|value| value.contains('\0')) {
        return Err(refused("a variable can't hold a zero byte".to_owned()));
    }
    if spec.labels.contains_key(SPEC) {
        return Err(refused(format!("the label {SPEC} is arpanet2's own")));
    }
    Ok(name)
}

/// Names of images go into paths of requests: what could lead elsewhere is none.
pub(crate) fn check_image(image: &str) -> Result<()> {
    let plain = image
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte));
    if plain && !image.is_empty() && !image.contains("..") && !image.starts_with('/') {
        return Ok(());
    }
    Err(own(
        ErrorKind::InvalidInput,
        format!("{image:?} can't be the name of an image"),
    ))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// What docker is asked to make.
pub(crate) fn body(spec: &ContainerSpec, name: &ContainerName) -> Result<ContainerCreateBody> {
    let mut written = spec.clone();
    written.env.0.values_mut().for_each(String::clear);
    let written = serde_json::to_string(&written).map_err(|error| {
        own(ErrorKind::Internal, "the spec can't be written down").with_source(error)
    })?;
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    labels.insert(SPEC.to_owned(), written);
    let many = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let env = spec.env.0.iter();
    let env = env.map(|(key, value)| format!("{key}={value}")).collect();
    let policy = match spec.restart {
        RestartPolicy::OnFailure => RestartPolicyNameEnum::ON_FAILURE,
        // Until it is stopped.
        RestartPolicy::Always => RestartPolicyNameEnum::ALWAYS,
        _ => RestartPolicyNameEnum::NO,
    };
    let dns = spec.dns.iter().map(ToString::to_string).collect();
    Ok(ContainerCreateBody {
        hostname: is_host_name(name).then(|| name.to_string()),
        image: spec.image.clone(),
        cmd: many(spec.command.clone()),
        env: many(env),
        user: spec.user.clone(),
        working_dir: spec.workdir.clone(),
        stop_timeout: spec.stop_grace.map(whole_seconds),
        labels: Some(labels),
        // No network mode: it is on the engine's default bridge, for the world, and on the overlay by being attached.
        host_config: Some(HostConfig {
            restart_policy: Some(Restart {
                name: Some(policy),
                maximum_retry_count: None,
            }),
            dns: many(dns),
            dns_search: many(spec.dns_search.clone()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

/// Whether the kernel and resolvers take it for a host's name.
fn is_host_name(name: &ContainerName) -> bool {
    name.as_str().parse::<NodeName>().is_ok()
}

/// A grace as docker counts it: not shorter than it was asked for.
pub(crate) fn whole_seconds(grace: Duration) -> i64 {
    let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A container as docker has it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) container: Container,
    /// The spec that it was made of, where we made it.
    pub(crate) given: Option<ContainerSpec>,
    /// Whether arpanet2 made it or is to look after it.
    pub(crate) ours: bool,
    /// Its labels before they were changed.
    pub(crate) own_labels: BTreeMap<String, String>,
    /// Its terminal takes both streams.
    pub(crate) terminal: bool,
    /// Its output goes nowhere.
    pub(crate) keeps_no_output: bool,
    /// By which the engine starts it again.
    pub(crate) policy: Option<RestartPolicyNameEnum>,
    /// It ended, and is to be started again in a moment.
    pub(crate) restarting: bool,
    /// The last exit code, also of a start that failed.
    pub(crate) code: i32,
    /// How long it is given to stop.
    pub(crate) grace: Option<Duration>,
    /// When it was started last.
    pub(crate) started: Option<SystemTime>,
}

/// What we call it: by its name where that is one of ours, by the beginning of its id otherwise.
pub(crate) fn name_of(inspected: &ContainerInspectResponse) -> Result<ContainerName> {
    let name = inspected.name.as_deref().unwrap_or_default();
    let name = name.strip_prefix('/').unwrap_or(name);
    if let Ok(valid) = name.parse::<ContainerName>() {
        return Ok(valid);
    }
    let id = inspected.id.as_deref().unwrap_or_default();
    id.get(..SHORT_ID).unwrap_or(id).parse()
}

/// Reads what docker says of a container, with the changes of its labels that were kept.
pub(crate) fn read(inspected: &ContainerInspectResponse, changes: &Changes) -> Result<Seen> {
    let name = name_of(inspected)?;
    let config = inspected.config.clone().unwrap_or_default();
    let labels: BTreeMap<String, String> = config.labels.unwrap_or_default().into_iter().collect();
    let env = config.env.unwrap_or_default();
    let known = [Some(name.as_str()), config.hostname.as_deref()];
    let given = labels
        .get(SPEC)
        .and_then(|text| given(text, &env))
        // An image that was made of a container has its labels too; and one of ours may have been renamed.
        .filter(|given| known.contains(&given.name.as_ref().map(ContainerName::as_str)));
    let effective = changed(&labels, changes);
    let mut problems = Vec::new();
    let (spec, ours) = match &given {
        Some(given) => {
            let mut spec = given.clone();
            spec.labels = changed(&spec.labels, changes);
            (spec, true)
        }
        None => {
            let mut spec = ContainerSpec::default();
            spec.name = Some(name.clone());
            spec.image = config.image;
            spec.command = config.cmd.unwrap_or_default();
            spec.user = config.user.filter(|user| !user.is_empty());
            spec.workdir = config.working_dir.filter(|folder| !folder.is_empty());
            spec.labels = effective;
            // Of the container that its image was made of.
            spec.labels.remove(SPEC);
            let wants = label::read(&spec.labels, variable(&env, label::WEAVE_CIDR));
            let wanting = !wants.is_empty();
            problems = wants.put_into(&mut spec);
            (spec, wanting || !changes.is_empty())
        }
    };
    let state = inspected.state.clone().unwrap_or_default();
    let restarting = state.restarting == Some(true);
    let running = state.running == Some(true) && !restarting;
    let code = state.exit_code.unwrap_or_default();
    let code = i32::try_from(code).unwrap_or(i32::MAX);
    let started = state.started_at.as_deref().and_then(moment::parse);
    let now = if running {
        ContainerState::Running
    } else if started.is_none() {
        ContainerState::Created
    } else {
        ContainerState::Exited { code }
    };
    let host = inspected.host_config.as_ref();
    let mode = host.and_then(|host| host.network_mode.as_deref());
    let logging = host.and_then(|host| host.log_config.as_ref()?.typ.as_deref());
    let namespace = state
        .pid
        .filter(|pid| running && *pid > 0 && has_its_own(mode.unwrap_or_default()))
        .map(|pid| NetNamespace::Path(PathBuf::from(format!("/proc/{pid}/ns/net"))));
    let created = inspected.created.map(SystemTime::from);
    let id = inspected.id.clone().unwrap_or_default();
    let grace = match &given {
        Some(given) => given.stop_grace,
        None => config
            .stop_timeout
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
    };
    Ok(Seen {
        container: Container::new(name, id, spec, created.unwrap_or(SystemTime::UNIX_EPOCH))
            .state(now)
            .namespace(namespace)
            .health(health(&state).filter(|_| running))
            .problems(problems),
        own_labels: match &given {
            Some(given) => given.labels.clone(),
            None => labels,
        },
        policy: host.and_then(|host| host.restart_policy.as_ref()?.name),
        given,
        ours,
        terminal: config.tty == Some(true),
        keeps_no_output: logging == Some("none"),
        restarting,
        code,
        grace,
        started,
    })
}

/// Whether a container of this network mode has a network namespace that is no other's.
fn has_its_own(mode: &str) -> bool {
    mode != "host" && !mode.starts_with("container:") && !mode.starts_with("ns:")
}

/// The spec that a container of ours was made of. One that can't be read is not ours, as far as this version can tell.
fn given(text: &str, env: &[String]) -> Option<ContainerSpec> {
    let mut spec: ContainerSpec = serde_json::from_str(text).ok()?;
    for (name, value) in &mut spec.env.0 {
        *value = variable(env, name)?.to_owned();
    }
    Some(spec)
}

fn variable<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter()
        .filter_map(|entry| entry.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn changed(labels: &BTreeMap<String, String>, changes: &Changes) -> BTreeMap<String, String> {
    let mut labels = labels.clone();
    for (label, value) in changes {
        match value {
            Some(value) => labels.insert(label.clone(), value.clone()),
            None => labels.remove(label),
        };
    }
    labels
}

/// What docker's own check says.
fn health(state: &bollard::models::ContainerState) -> Option<EngineHealth> {
    match state.health.as_ref()?.status? {
        HealthStatusEnum::STARTING => Some(EngineHealth::Starting),
        HealthStatusEnum::HEALTHY => Some(EngineHealth::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(EngineHealth::Unhealthy),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ContainerConfig, ContainerState as State};

    fn spec() -> ContainerSpec {
        let mut spec = ContainerSpec::image("busybox:1")
            .named("w1".parse().unwrap())
            .env("COLOUR", "light=blue")
            .env("TOKEN", "secret")
            .label("team", "one")
            .addr("10.1.0.5/16".parse().unwrap())
            .service("web".parse().unwrap(), 80);
        spec.command = vec!["httpd".to_owned(), "-f".to_owned()];
        spec.stop_grace = Some(Duration::from_millis(1500));
        spec.restart = RestartPolicy::Always;
        spec.dns = vec!["169.254.1.1".parse().unwrap()];
        spec
    }

    /// As docker would show what it was asked to make.
    fn inspected(body: ContainerCreateBody, name: &str) -> ContainerInspectResponse {
        let mut env = vec!["PATH=/bin".to_owned()];
        env.extend(body.env.unwrap_or_default());
        let mut labels = body.labels.unwrap_or_default();
        labels.insert("of.the.image".to_owned(), "1".to_owned());
        ContainerInspectResponse {
            id: Some("0123456789abcdef".to_owned()),
            name: Some(format!("/{name}")),
            created: Some(SystemTime::UNIX_EPOCH.into()),
            state: Some(State {
                started_at: Some("0001-01-01T00:00:00Z".to_owned()),
                ..State::default()
            }),
            config: Some(ContainerConfig {
                env: Some(env),
                labels: Some(labels),
                cmd: body.cmd,
                image: body.image,
                ..ContainerConfig::default()
            }),
            host_config: body.host_config,
            ..ContainerInspectResponse::default()
        }
    }

    fn made(spec: &ContainerSpec) -> ContainerInspectResponse {
        let body = body(spec, spec.name.as_ref().unwrap()).unwrap();
        inspected(body, "w1")
    }

    fn running(mode: &str) -> ContainerInspectResponse {
        let mut seen = made(&spec());
        seen.host_config = Some(HostConfig {
            network_mode: Some(mode.to_owned()),
            ..HostConfig::default()
        });
        seen.state = Some(State {
            running: Some(true),
            pid: Some(77),
            started_at: Some("2026-11-24T21:45:30Z".to_owned()),
            ..State::default()
        });
        seen
    }

    #[test]
    fn a_spec_is_read_back_as_it_was_given() {
        let seen = read(&made(&spec()), &Changes::new()).unwrap();
        assert_eq!(seen.given, Some(spec()));
        assert_eq!(seen.container.spec, spec());
        assert_eq!(seen.container.state, ContainerState::Created);
        assert!(seen.ours);
    }

    #[test]
    fn values_of_the_environment_are_in_no_label() {
        let body = body(&spec(), &"w1".parse().unwrap()).unwrap();
        let labels = format!("{:?}", body.labels);
        assert!(labels.contains("TOKEN") && !labels.contains("secret"));
        assert!(body.env.unwrap().contains(&"TOKEN=secret".to_owned()));
        assert_eq!(body.stop_timeout, Some(2));
    }

    #[test]
    fn changed_labels_show_and_the_given_spec_stays() {
        let changes = [
            ("team".to_owned(), None),
            (
                "arpanet.given".to_owned(),
                Some("+10.3.0.5/16@1".to_owned()),
            ),
        ];
        let seen = read(&made(&spec()), &changes.into()).unwrap();
        let labels = &seen.container.spec.labels;
        assert_eq!(labels.len(), 1);
        assert_eq!(labels["arpanet.given"], "+10.3.0.5/16@1");
        assert_eq!(seen.given, Some(spec()));
    }

    #[test]
    fn what_docker_can_not_run_is_refused() {
        let mut none = spec();
        none.image = None;
        let error = check(&none).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.hint().unwrap().contains("image"));
        for bad in [
            spec().env("", "x"),
            spec().env("A=B", "x"),
            spec().env("A", "x\0"),
            spec().label(SPEC, "x"),
            ContainerSpec::image("../../containers").named("w1".parse().unwrap()),
            ContainerSpec::image("busybox?x").named("w1".parse().unwrap()),
            ContainerSpec::image("busybox"),
        ] {
            assert_eq!(check(&bad).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert!(check(&spec()).is_ok());
    }

    #[test]
    fn names_that_are_none_of_ours_become_short_ids() {
        for (docker, ours) in [
            ("w1", "w1"),
            ("shop_web_1", "shop_web_1"),
            ("Web", "Web"),
            ("", "0123456789ab"),
        ] {
            let seen = inspected(ContainerCreateBody::default(), docker);
            assert_eq!(name_of(&seen).unwrap().as_str(), ours);
        }
    }

    #[test]
    fn a_shared_namespace_is_none_of_the_containers() {
        for (mode, own) in [
            ("default", true),
            ("bridge", true),
            ("none", true),
            ("shop", true),
            ("host", false),
            ("container:0123", false),
            ("ns:/run/netns/x", false),
        ] {
            let seen = read(&running(mode), &Changes::new()).unwrap();
            assert_eq!(seen.container.state, ContainerState::Running);
            let path = NetNamespace::Path(PathBuf::from("/proc/77/ns/net"));
            assert_eq!(seen.container.namespace, own.then_some(path), "{mode}");
        }
    }

    #[test]
    fn one_that_waits_to_be_started_again_does_not_run() {
        let mut seen = running("default");
        let state = seen.state.as_mut().unwrap();
        state.restarting = Some(true);
        state.exit_code = Some(7);
        let seen = read(&seen, &Changes::new()).unwrap();
        assert_eq!(seen.container.state, ContainerState::Exited { code: 7 });
        assert_eq!(seen.container.namespace, None);
    }

    #[test]
    fn a_spec_that_can_not_be_read_makes_it_another_clients() {
        let mut seen = made(&spec());
        let labels = seen.config.as_mut().unwrap().labels.as_mut().unwrap();
        labels.insert(SPEC.to_owned(), "{\"later\":1}".to_owned());
        let seen = read(&seen, &Changes::new()).unwrap();
        assert_eq!(seen.given, None);
        assert_eq!(seen.container.name.as_str(), "w1");
    }

    #[test]
    fn a_container_that_wants_nothing_is_none_of_ours() {
        let body = ContainerCreateBody::default();
        assert!(!read(&inspected(body, "x"), &Changes::new()).unwrap().ours);
        let kept = [(
            "arpanet.given".to_owned(),
            Some("+10.3.0.5/16@1".to_owned()),
        )];
        let body = ContainerCreateBody::default();
        assert!(read(&inspected(body, "x"), &kept.into()).unwrap().ours);
    }
}
