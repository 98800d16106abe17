//! `arpanet2 run`

use std::time::Duration;

use arpanet_core::runtime::{
    Check, Container, ContainerSpec, NetRequest, Probe, PullPolicy, PullRequest, RestartPolicy,
    ServiceRequest,
};
use arpanet_core::{ContainerName, Error, ErrorKind, Result, ServiceName, Tag};
use clap::Args;

use super::{Context, pull};
use crate::output::Progress;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The container's name
    #[arg(long)]
    name: Option<ContainerName>,
    /// A network to be in, as in 10.1.0.0/16 or by its name, or an address of it, as in 10.1.0.5/16; several with commas
    #[arg(long = "net", value_name = "NET", value_delimiter = ',')]
    nets: Vec<NetRequest>,
    /// The service it provides
    #[arg(long)]
    service: Option<ServiceName>,
    /// The service's port
    #[arg(long, default_value_t = 0, requires = "service")]
    port: u16,
    /// Names within the service
    #[arg(long, value_delimiter = ',', requires = "service")]
    tags: Vec<Tag>,
    /// What tells whether it should get traffic: http:/PATH, http:PORT/PATH, tcp, tcp:PORT or cmd:COMMAND; all must pass
    #[arg(long = "check", value_name = "CHECK", requires = "service")]
    checks: Vec<Probe>,
    /// Seconds between two questions of a check [default: 10]
    #[arg(long, value_name = "SECONDS", requires = "checks", value_parser = seconds)]
    check_interval: Option<Duration>,
    /// Seconds that an answer to a check may take [default: 3]
    #[arg(long, value_name = "SECONDS", requires = "checks", value_parser = seconds)]
    check_timeout: Option<Duration>,
    /// An environment variable
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The user to run as, by name or number
    #[arg(long)]
    user: Option<String>,
    /// The folder to start in
    #[arg(long)]
    workdir: Option<String>,
    /// Start it again after it ended: no, on-failure or always
    #[arg(long, default_value = "no", value_parser = restart_policy)]
    restart: RestartPolicy,
    /// The image, where containers are docker's
    #[arg(long)]
    image: Option<String>,
    /// When its registry is asked for the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value_t, requires = "image")]
    pull: PullPolicy,
    /// The command and its arguments; an image has one of its own
    #[arg(last = true, required_unless_present = "image")]
    command: Vec<String>,
}

fn restart_policy(text: &str) -> Result<RestartPolicy> {
    match text {
        "no" => Ok(RestartPolicy::No),
        "on-failure" => Ok(RestartPolicy::OnFailure),
        "always" => Ok(RestartPolicy::Always),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            "it is no, on-failure or always",
        )),
    }
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let range = Duration::from_millis(100)..=Duration::from_secs(3_600);
    seconds
        .filter(|seconds| range.contains(seconds))
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "it is a number from 0.1 to 3600"))
}

impl RunArgs {
    fn spec(self) -> Result<ContainerSpec> {
        let mut spec = ContainerSpec::command(self.command);
        spec.image = self.image;
        spec.name = self.name;
        spec.nets = self.nets;
        spec.user = self.user;
        spec.workdir = self.workdir;
        spec.restart = self.restart;
        spec.service = self.service.map(|name| {
            let mut service = ServiceRequest::new(name, self.port);
            service.tags = self.tags;
            service
        });
        spec.checks = self.checks.into_iter().map(Check::new).collect();
        for check in &mut spec.checks {
            check.interval = self.check_interval;
            check.timeout = self.check_timeout;
        }
        for variable in self.env {
            let (name, value) = variable.split_once('=').ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!("{variable:?} is not NAME=VALUE"),
                )
            })?;
            spec = spec.env(name, value);
        }
        if spec.service.is_some() && spec.nets.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a service needs a network to be reached in",
            )
            .with_hint("add --net, as in --net 10.1.0.0/16"));
        }
        Ok(spec)
    }
}

pub(crate) async fn run(context: &Context, args: RunArgs) -> Result<()> {
    let policy = args.pull;
    let spec = args.spec()?;
    let agent = context.agent()?;
    if let Some(image) = &spec.image {
        match pull::pull(&agent, PullRequest::new(image).policy(policy)).await {
            // One that has no images says so of the container.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            other => drop(other?),
        }
    }
    let progress = Progress::begin("starting the container");
    let container = agent.post::<Container>("/v1/containers", &spec).await;
    progress.end();
    context
        .printer
        .result(&container?, |container| container.name.to_string())
}
