//! Docker's own configuration on this host: found, changed with a backup, and put back.

use std::path::{Path, PathBuf};

use arpanet_core::{Error, ErrorKind, Result, Runtime};
use arpanet_docker::{DockerRuntime, EngineFacts};
use serde::Serialize;

use super::daemon::{self, Wanted};
use crate::agent::unit;
use crate::commands::Context;
use crate::files::{self, Modes};

/// Where docker looks for it unless its command line says otherwise.
const FILE: &str = "etc/docker/daemon.json";
/// What is added to the name of the copy of what was there before. An empty one says that there was no file.
const BEFORE: &str = ".before-arpanet2";
/// The daemon's process.
const PID: &str = "run/docker.pid";
const DAEMON: &str = "docker";

const READABLE: Modes = Modes {
    file: 0o644,
    folder: 0o755,
};

/// A change of docker's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct DaemonChange {
    pub(super) path: PathBuf,
    /// Line by line; empty where there is nothing to change.
    pub(super) difference: String,
    /// None removes it.
    #[serde(skip)]
    after: Option<String>,
    #[serde(skip)]
    backup: Backup,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backup {
    Make,
    /// It is there already, or none is needed.
    Leave,
    Remove,
}

impl DaemonChange {
    pub(super) fn is_needed(&self) -> bool {
        self.backup != Backup::Leave || !self.difference.is_empty()
    }
}

/// What has to be changed for containers on docker's own networks to ask the cluster for names.
///
/// # Errors
/// [`ErrorKind::Unavailable`] when no engine answers; [`ErrorKind::Conflict`] where the daemon would not start any more;
/// [`ErrorKind::Corrupt`] for a file that can't be read.
pub(super) async fn plan(context: &Context, root: &Path) -> Result<DaemonChange> {
    let engine = context.config.docker();
    let facts = EngineFacts::ask(&engine).await?;
    let bridge = DockerRuntime::open(engine)?.bridge_address().await?;
    let dns = bridge.ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            "the docker engine has no bridge, where the cluster's DNS could answer its containers",
        )
        .with_hint("start dockerd without --bridge none")
    })?;
    let domain = context.config.domain.as_deref().unwrap_or("consul");
    let wanted = Wanted {
        dns,
        search: format!("service.{domain}"),
    };
    plan_with(root, &wanted, facts.swarm)
}

fn plan_with(root: &Path, wanted: &Wanted, swarm: bool) -> Result<DaemonChange> {
    if swarm {
        let message = "the docker engine is in a swarm, and does not start with live-restore then";
        return Err(Error::new(ErrorKind::Conflict, message)
            .with_hint("leave the swarm first, with: docker swarm leave"));
    }
    let command_line = command_line(root);
    let twice = daemon::told_twice(&command_line);
    if let Some(key) = twice.first() {
        let message = format!(
            "dockerd is started with --{key}, and does not start when its file says so too (moby/moby 25471)"
        );
        return Err(Error::new(ErrorKind::Conflict, message).with_hint(format!(
            "take --{} out of its command line first, with: systemctl edit {DAEMON}",
            twice.join(" and --")
        )));
    }
    let path = place(root, &command_line);
    let text = read(&path)?;
    let after = daemon::merged(&path, text.as_deref(), wanted)?;
    let difference = after.as_ref().map_or_else(String::new, |after| {
        daemon::difference(text.as_deref().unwrap_or_default(), after)
    });
    let backup = match after.is_some() && !before(&path).exists() {
        true => Backup::Make,
        false => Backup::Leave,
    };
    Ok(DaemonChange {
        path,
        difference,
        after: after.or(text),
        backup,
    })
}

/// What has to be changed for docker's settings to be as before; `None` where they are.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for a file that can't be read.
pub(super) fn plan_undo(root: &Path) -> Result<Option<DaemonChange>> {
    let path = place(root, &command_line(root));
    let Some(backup) = read(&before(&path))? else {
        return Ok(None);
    };
    let text = read(&path)?.unwrap_or_default();
    let backup = Some(backup.as_str()).filter(|backup| !backup.is_empty());
    let after = daemon::restored(&path, &text, backup)?;
    Ok(Some(DaemonChange {
        difference: daemon::difference(&text, after.as_deref().unwrap_or_default()),
        path,
        after,
        backup: Backup::Remove,
    }))
}

/// Makes a change. Whether the daemon has it already: systemd restarts it, and otherwise somebody else must.
///
/// # Errors
/// When a file can't be written, or systemd can't restart the daemon.
pub(super) fn make(change: &DaemonChange, root: &Path) -> Result<bool> {
    let copy = before(&change.path);
    if change.backup == Backup::Make {
        let text = read(&change.path)?.unwrap_or_default();
        files::replace(&copy, text.as_bytes(), READABLE)?;
    }
    if !change.difference.is_empty() {
        match &change.after {
            Some(text) => files::replace(&change.path, text.as_bytes(), READABLE)?,
            None => remove(&change.path)?,
        }
    }
    if change.backup == Backup::Remove {
        remove(&copy)?;
    }
    if !unit::systemd_runs(root) {
        return Ok(false);
    }
    // Live-restore is taken over by a reload: so containers outlive the restart that the rest needs.
    unit::systemctl(&["reload", DAEMON])?;
    unit::systemctl(&["restart", DAEMON])?;
    Ok(true)
}

fn before(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BEFORE);
    name.into()
}

fn command_line(root: &Path) -> Vec<String> {
    let read = || -> Option<Vec<String>> {
        let pid = std::fs::read_to_string(root.join(PID)).ok()?;
        let line = std::fs::read(root.join("proc").join(pid.trim()).join("cmdline")).ok()?;
        let words = line.split(|byte| *byte == 0);
        Some(
            words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        )
    };
    read().unwrap_or_default()
}

fn place(root: &Path, command_line: &[String]) -> PathBuf {
    let mut words = command_line.iter();
    let told = words.by_ref().find_map(|word| {
        let word = word.trim_start_matches('-');
        match word.strip_prefix("config-file") {
            Some("") => Some(None),
            Some(value) => value.strip_prefix('=').map(|value| Some(value.to_owned())),
            None => None,
        }
    });
    let told = told.and_then(|value| value.or_else(|| words.next().cloned()));
    match told {
        Some(path) => root.join(path.trim_start_matches('/')),
        None => root.join(FILE),
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => {
            let message = format!("{} can't be read", path.display());
            Err(Error::new(ErrorKind::Corrupt, message).with_source(source))
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("{} can't be removed", path.display());
            Err(Error::new(ErrorKind::Internal, message).with_source(source))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            dns: "172.17.0.1".parse().unwrap(),
            search: "service.consul".to_owned(),
        }
    }

    fn file(root: &Path) -> PathBuf {
        root.join(FILE)
    }

    #[test]
    fn a_backup_is_made_once_and_put_back() {
        for before_text in [None, Some("{\n\t\"debug\": true\n}\n")] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            if let Some(text) = before_text {
                std::fs::create_dir_all(file(root).parent().unwrap()).unwrap();
                std::fs::write(file(root), text).unwrap();
            }
            assert_eq!(plan_undo(root).unwrap(), None);
            let change = plan_with(root, &wanted(), false).unwrap();
            assert!(change.difference.contains("+ "), "{change:?}");
            assert!(
                !make(&change, root).unwrap(),
                "nothing restarts a daemon here"
            );
            let copy = std::fs::read_to_string(before(&file(root))).unwrap();
            assert_eq!(copy, before_text.unwrap_or_default());

            let again = plan_with(root, &wanted(), false).unwrap();
            assert!(!again.is_needed(), "{again:?}");
            // Another bridge: the copy stays that of the beginning.
            let mut other = wanted();
            other.dns = "172.18.0.1".parse().unwrap();
            make(&plan_with(root, &other, false).unwrap(), root).unwrap();
            assert_eq!(std::fs::read_to_string(before(&file(root))).unwrap(), copy);

            let undo = plan_undo(root).unwrap().unwrap();
            make(&undo, root).unwrap();
            assert_eq!(
                std::fs::read_to_string(file(root)).ok().as_deref(),
                before_text
            );
            assert!(!before(&file(root)).exists());
            assert_eq!(plan_undo(root).unwrap(), None);
        }
    }

    #[test]
    fn a_file_that_can_not_be_read_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(file(root).parent().unwrap()).unwrap();
        std::fs::write(file(root), "{").unwrap();
        let refused = plan_with(root, &wanted(), false).unwrap_err();
        assert!(refused.to_string().contains("line 1"), "{refused}");
        assert_eq!(std::fs::read_to_string(file(root)).unwrap(), "{");
        assert!(!before(&file(root)).exists());
    }

    #[test]
    fn a_daemon_that_would_not_start_any_more_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let swarm = plan_with(root, &wanted(), true).unwrap_err();
        assert!(swarm.hint().unwrap().contains("swarm leave"), "{swarm:?}");
        std::fs::create_dir_all(root.join("run")).unwrap();
        std::fs::create_dir_all(root.join("proc/7")).unwrap();
        std::fs::write(root.join(PID), "7\n").unwrap();
        let line = |words: &str| {
            std::fs::write(root.join("proc/7/cmdline"), words.replace(' ', "\0")).unwrap()
        };
        line("dockerd --dns 1.1.1.1");
        let told = plan_with(root, &wanted(), false).unwrap_err();
        assert!(told.to_string().contains("25471"), "{told}");
        line("dockerd --config-file /etc/other.json");
        let elsewhere = plan_with(root, &wanted(), false).unwrap();
        assert_eq!(elsewhere.path, root.join("etc/other.json"));
        line("dockerd --config-file=/etc/third.json");
        let elsewhere = plan_with(root, &wanted(), false).unwrap();
        assert_eq!(elsewhere.path, root.join("etc/third.json"));
    }
}
