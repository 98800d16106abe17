//! Podman's service of docker's API in namespaces of its own: how it starts, and what it leaves.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::docker::{PATH, PID_FILE, SOCKET};

/// Without systemd, and without what the machine's own Podman is told.
const SETTINGS: &str = r#"[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;

/// As docker does of itself: registries on the loopback may speak plain HTTP.
const REGISTRIES: &str = r#"[[registry]]
location = "127.0.0.1"
insecure = true
"#;

/// Without a service manager nobody else tells its process.
const START: &str = r#"echo $$ >"$0"; mkdir -p /run/lock; exec "$@""#;

/// The folder of its containers, by their ids.
const CONTAINERS: &str = "overlay-containers";

/// The command line of the service. Its settings are written beside its data.
pub(crate) fn command_line(data: &Path) -> io::Result<Vec<OsString>> {
    std::fs::create_dir_all(data)?;
    let settings = data.with_extension("conf");
    std::fs::write(&settings, SETTINGS)?;
    let registries = data.with_extension("registries");
    std::fs::write(&registries, REGISTRIES)?;
    let mut line: Vec<OsString> = vec!["env".into(), format!("PATH={PATH}").into()];
    line.push(format!("CONTAINERS_CONF={}", settings.display()).into());
    line.push(format!("CONTAINERS_REGISTRIES_CONF={}", registries.display()).into());
    line.extend(["sh", "-c", START, PID_FILE, "podman", "--root"].map(OsString::from));
    line.push(data.into());
    // Its files are changed from outside of its namespaces.
    line.extend(["--runroot".into(), data.with_extension("run").into()]);
    // The disk of a test may be none for overlays.
    line.extend(
        [
            "--storage-driver",
            "overlay",
            "system",
            "service",
            "--time",
            "0",
            &format!("unix://{SOCKET}"),
        ]
        .map(OsString::from),
    );
    Ok(line)
}

/// The control groups of the containers that are still there.
pub(crate) fn groups(data: &Path) -> Vec<String> {
    let Ok(containers) = std::fs::read_dir(data.join(CONTAINERS)) else {
        return Vec::new();
    };
    let ids = containers.flatten();
    let ids = ids.filter(|entry| entry.path().is_dir());
    ids.map(|entry| format!("libpod_parent/libpod-{}", entry.file_name().display()))
        .collect()
}
