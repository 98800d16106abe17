//! `arpanet2 setup`

mod daemon;
mod engine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arpanet_core::Result;
use arpanet_docker::HostPrograms;
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::engine::DaemonChange;
use super::Context;
use super::doctor::{self, Finding};
use crate::agent::state::{OverlayKind, StackKind};
use crate::agent::unit;
use crate::config::{DEFAULT_FILE, TEMPLATE};
use crate::files::{self, Modes};
use crate::host;

/// For everybody to read.
const READABLE: Modes = Modes {
    file: 0o644,
    folder: 0o777,
};

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Only say what would be changed
    #[arg(long)]
    dry_run: bool,
    /// What docker is told: nothing, or, in its own configuration, to have containers ask the cluster for names, and to leave
    /// them running when it restarts. Its API on the overlay is the agent's either way
    #[arg(long, value_enum, default_value_t = DockerApi::Agent)]
    docker_api: DockerApi,
    /// Prepare the host for this stack, in the settings too, and have here what it needs of the internet
    #[arg(long, value_enum)]
    stack: Option<StackKind>,
    /// Put docker's own configuration back as it was before
    #[arg(long, conflicts_with = "docker_api")]
    undo: bool,
}

/// Who sees to docker's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DockerApi {
    /// The agent alone: docker is left as it is
    Agent,
    /// The daemon, by its configuration: for containers on docker's own networks
    Daemon,
}

/// A file that is written.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    path: PathBuf,
    what: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct Setup {
    checks: Vec<Finding>,
    changes: Vec<Change>,
    docker: Option<DaemonChange>,
    /// Images that are not here, and are pulled.
    downloads: Vec<String>,
    done: bool,
    /// Whether docker has yet to be restarted, for which nobody is here.
    restart: bool,
}

/// Fails, and changes nothing, when anything is in the way of a node.
pub(crate) async fn run(context: &Context, args: &SetupArgs) -> Result<ExitCode> {
    let root = Path::new("/");
    if args.undo {
        return undo(context, root, args.dry_run);
    }
    let context = &context.with_stack(args.stack);
    let checks = doctor::findings(context).await?;
    let downloads = downloads(context).await;
    let well = checks.iter().all(Finding::is_ok);
    let changes = plan(context, root)?;
    let docker = match args.docker_api {
        DockerApi::Agent => None,
        DockerApi::Daemon => Some(engine::plan(context, root).await?),
    };
    let docker = docker.filter(DaemonChange::is_needed);
    let done = well && !args.dry_run;
    let setup = Setup {
        checks,
        changes,
        restart: docker.is_some() && !unit::systemd_runs(root),
        docker,
        downloads,
        done,
    };
    // Said before it is done.
    context.printer.result(&setup, render)?;
    if !well {
        return Ok(ExitCode::FAILURE);
    }
    if done {
        for change in &setup.changes {
            write(change)?;
        }
        let unit = unit::place(root);
        if setup.changes.iter().any(|change| change.path == unit) {
            unit::systemctl(&["daemon-reload"])?;
            unit::systemctl(&["enable", unit::UNIT])?;
        }
        if let Some(change) = &setup.docker {
            engine::make(change, root)?;
        }
        let engine = HostPrograms::new(&context.config.docker());
        for image in &setup.downloads {
            engine.pull(image).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Images that the stack needs and that are not here. An engine that does not say is a finding.
async fn downloads(context: &Context) -> Vec<String> {
    let config = &context.config;
    let overlay = config.overlay.or(config.stack.map(StackKind::overlay));
    let is_needed = overlay == Some(OverlayKind::Weave)
        && matches!(host::weaver(config.weaver.as_deref()), Ok(None));
    let image = config.weave_image();
    let engine = HostPrograms::new(&config.docker());
    match is_needed && matches!(engine.has(image).await, Ok(false)) {
        true => vec![image.to_owned()],
        false => Vec::new(),
    }
}

/// Puts docker's configuration back, where it was changed. Whether the engine has yet to be restarted for it.
pub(crate) fn restore_docker() -> Result<bool> {
    let root = Path::new("/");
    match engine::plan_undo(root)? {
        None => Ok(false),
        Some(change) => engine::make(&change, root).map(|restarted| !restarted),
    }
}

/// What is missing on the machine whose files stand under `root`.
fn plan(context: &Context, root: &Path) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let config = match &context.global.config {
        Some(config) => config.clone(),
        None => root.join(DEFAULT_FILE.trim_start_matches('/')),
    };
    if !config.exists() {
        changes.push(Change {
            path: config,
            what: "the settings, with what is so unless they say otherwise",
            text: settings(context.config.stack),
        });
    }
    if unit::systemd_runs(root) {
        let program = host::program()?;
        let (path, text) = (unit::place(root), unit::text(context, &program));
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            changes.push(Change {
                path,
                what: "the unit that brings the node back, and systemctl enable for it",
                text,
            });
        }
    }
    Ok(changes)
}

/// The settings as they are written, with the stack where one was chosen.
fn settings(stack: Option<StackKind>) -> String {
    match stack {
        Some(StackKind::Classic) => {
            TEMPLATE.replace("#stack = \"embedded\"", "stack = \"classic\"")
        }
        _ => TEMPLATE.to_owned(),
    }
}

/// Takes back what was put into docker's configuration, and leaves all else.
fn undo(context: &Context, root: &Path, dry_run: bool) -> Result<ExitCode> {
    let docker = engine::plan_undo(root)?;
    let setup = Setup {
        checks: Vec::new(),
        changes: Vec::new(),
        restart: docker.is_some() && !unit::systemd_runs(root),
        docker,
        downloads: Vec::new(),
        done: !dry_run,
    };
    context.printer.result(&setup, render)?;
    if let Some(change) = setup.docker.as_ref().filter(|_| setup.done) {
        engine::make(change, root)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(change: &Change) -> Result<()> {
    files::replace(&change.path, change.text.as_bytes(), READABLE)
}

fn render(setup: &Setup) -> String {
    let mut lines = Vec::new();
    if !setup.checks.is_empty() {
        lines.push(doctor::render(&setup.checks));
    }
    let verb = if setup.done { "write" } else { "would write" };
    for change in &setup.changes {
        lines.push(format!("{verb} {}: {}", change.path.display(), change.what));
    }
    if let Some(docker) = &setup.docker {
        let verb = if setup.done { "change" } else { "would change" };
        lines.push(format!(
            "{verb} {}, docker's settings:",
            docker.path.display()
        ));
        lines.push(docker.difference.clone());
        lines.push(match setup.restart {
            true => "restart the docker engine then: nothing here does it, and until then it goes on as before",
            false => "and restart docker, which leaves containers running where live-restore is on",
        }.to_owned());
    }
    let verb = if setup.done {
        "download"
    } else {
        "would download"
    };
    for image in &setup.downloads {
        lines.push(format!("{verb} the image {image}, by the docker engine"));
    }
    if setup.changes.is_empty() && setup.docker.is_none() && setup.downloads.is_empty() {
        lines.push("nothing to change".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;
    use crate::config::Config;

    fn context(line: &[&str]) -> Context {
        let cli = Cli::try_parse_from([&["arpanet2"], line, &["setup"]].concat()).unwrap();
        let config = Config::default();
        Context {
            paths: config.paths(&cli.global),
            printer: crate::output::Printer::new(false),
            global: cli.global,
            config,
        }
    }

    #[test]
    fn a_second_setup_finds_nothing_to_do() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        let context = context(&["--state-dir", "/srv/my state"]);
        let changes = plan(&context, root.path()).unwrap();
        let paths: Vec<_> = changes.iter().map(|change| change.path.clone()).collect();
        let unit = unit::place(root.path());
        assert_eq!(paths, [root.path().join("etc/arpanet2/config.toml"), unit]);
        assert!(!unit::is_in_use(&context, root.path()));
        for change in &changes {
            write(change).unwrap();
        }
        assert_eq!(plan(&context, root.path()).unwrap(), []);
        assert!(unit::is_in_use(&context, root.path()));
        // One of another version, or changed by hand, is brought up to date.
        std::fs::write(unit::place(root.path()), "[Unit]\n").unwrap();
        assert!(!unit::is_in_use(&context, root.path()));
        assert_eq!(plan(&context, root.path()).unwrap().len(), 1);
    }

    #[test]
    fn without_systemd_there_is_no_unit() {
        let root = tempfile::tempdir().unwrap();
        let changes = plan(&context(&[]), root.path()).unwrap();
        assert_eq!(changes.len(), 1);
        assert!(changes[0].path.ends_with("config.toml"));
    }

    #[test]
    fn the_unit_ends_the_agent_alone_and_only_resumes() {
        let text = unit::text(&context(&[]), Path::new("/usr/bin/arpanet2"));
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "Type=notify",
            "KillMode=process",
            "Restart=on-failure",
            "ConditionPathExists=/var/lib/arpanet2/node.json",
            "ExecStart=/usr/bin/arpanet2 agent --state-dir /var/lib/arpanet2 --run-dir /run/arpanet2",
            "WantedBy=multi-user.target",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_stack_that_was_chosen_is_in_the_settings() {
        let written: Config = toml::from_str(&settings(Some(StackKind::Classic))).unwrap();
        assert_eq!(written.stack, Some(StackKind::Classic));
        for stack in [None, Some(StackKind::Embedded)] {
            assert_eq!(settings(stack), TEMPLATE);
        }
    }

    #[test]
    fn the_settings_that_are_written_are_the_defaults() {
        let written: Config = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(format!("{written:?}"), format!("{:?}", Config::default()));
        // And each line that is a comment for now is one that can be read.
        let all: String = TEMPLATE
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with(' '))
            .map(|line| format!("{line}\n"))
            .collect();
        toml::from_str::<Config>(&all).unwrap();
    }
}
