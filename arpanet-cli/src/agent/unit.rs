//! The agent as a unit of systemd, where systemd runs and `setup` has installed it.

use std::path::{Path, PathBuf};
use std::process::Command;

use arpanet_core::{Error, ErrorKind, Result};

use crate::commands::Context;

/// The unit's name.
pub(crate) const UNIT: &str = "arpanet2.service";

/// Whether systemd runs the machine whose files stand under `root` (sd_booted(3)).
pub(crate) fn systemd_runs(root: &Path) -> bool {
    root.join("run/systemd/system").is_dir()
}

/// Where the unit stands.
pub(crate) fn place(root: &Path) -> PathBuf {
    root.join("etc/systemd/system").join(UNIT)
}

/// The unit that brings this host's node back: after a reboot, and after the agent died. It resumes and nothing else, so no
/// password ever passes through it; and it does nothing on a host that is no member.
pub(crate) fn text(context: &Context, program: &Path) -> String {
    let paths = &context.paths;
    let mut start = format!(
        "{} agent --state-dir {} --run-dir {}",
        quoted(program),
        quoted(paths.state()),
        quoted(paths.run())
    );
    if let Some(config) = &context.global.config {
        start = format!("{start} --config {}", quoted(config));
    }
    // The containers are processes of the unit that go on without the agent: only the agent itself is ended with it.
    format!(
        "[Unit]
Description=arpanet2: this host's node of its cluster
After=network-online.target
Wants=network-online.target
ConditionPathExists={}

[Service]
Type=notify
ExecStart={start}
StandardInput=null
KillMode=process
Restart=on-failure
RestartSec=1
TimeoutStartSec=120

[Install]
WantedBy=multi-user.target
",
        paths.node().display()
    )
}

/// As a word of a unit's command line (systemd.service(5)).
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let text = text.replace('%', "%%").replace('$', "$$");
    if text.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'' || c == '\\') {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("\"{text}\"");
    }
    text
}

/// Whether this node's agent is the unit's to run.
pub(crate) fn is_in_use(context: &Context, root: &Path) -> bool {
    let Ok(program) = std::env::current_exe() else {
        return false;
    };
    systemd_runs(root)
        && std::fs::read_to_string(place(root))
            .is_ok_and(|installed| installed == text(context, &program))
}

/// Runs systemctl, and returns when it is done.
///
/// # Errors
/// [`ErrorKind::Unavailable`] with what it said.
pub(crate) fn systemctl(arguments: &[&str]) -> Result<()> {
    let failed = || {
        Error::new(
            ErrorKind::Unavailable,
            format!("systemctl {} failed", arguments.join(" ")),
        )
        .with_hint(format!("journalctl -u {UNIT} shows why"))
    };
    let output = Command::new("systemctl")
        .args(arguments)
        .output()
        .map_err(|source| failed().with_source(source))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed().with_source(std::io::Error::other(said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_unit_are_quoted_where_they_must() {
        let cases = [
            ("/usr/bin/arpanet2", "/usr/bin/arpanet2"),
            ("/opt/my tools/a", "\"/opt/my tools/a\""),
            ("/opt/100%/$a", "/opt/100%%/$$a"),
        ];
        for (path, word) in cases {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
