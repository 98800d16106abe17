//! Whom containers ask for names: the file that an engine writes for each at every start, and binds over its
//! `/etc/resolv.conf`.
//!
//! It is changed in place, since another file of that name would not be the one that is bound. What the engine had written
//! stays in it, in comments: so it can be had back without anything being kept elsewhere.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use arpanet_core::runtime::Resolver;
use arpanet_core::{ContainerName, ErrorKind, Result};
use bollard::models::ContainerInspectResponse;

use crate::error::own;
use crate::view::View;

/// The first line of a file that was changed.
const HEAD: &str = "# arpanet2: this container asks the cluster for names. Its engine wrote:";

/// What lines of the engine's begin with there.
const KEPT: &str = "#: ";

/// What its maker and its engine have said of a container's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) running: bool,
    /// Its maker named servers.
    pub(crate) named: bool,
    /// The engine answers for networks of its own, and is to be asked.
    pub(crate) engine: bool,
    /// The domains that its maker named.
    pub(crate) search: Vec<String>,
    pub(crate) file: Option<PathBuf>,
}

/// Reads what an inspection says; `engine` is whether a network of it has names that the engine alone knows.
pub(crate) fn said(inspected: &ContainerInspectResponse, engine: bool) -> Said {
    let state = inspected.state.as_ref();
    let is = |field: Option<bool>| field == Some(true);
    let host = inspected.host_config.as_ref();
    let listed = |list: Option<&Option<Vec<String>>>| list.cloned().flatten().unwrap_or_default();
    let file = inspected.resolv_conf_path.as_deref();
    Said {
        running: state.is_some_and(|state| is(state.running) && !is(state.restarting)),
        named: !listed(host.map(|host| &host.dns)).is_empty(),
        engine,
        search: listed(host.map(|host| &host.dns_search)),
        file: file.filter(|file| !file.is_empty()).map(PathBuf::from),
    }
}

/// Has a running container ask these, or with `None` those that its engine named.
pub(crate) async fn set(
    view: &View,
    name: &ContainerName,
    resolver: Option<Resolver>,
) -> Result<bool> {
    let said = view.said(name).await?;
    if !said.running {
        let message = format!("the container {name} does not run");
        return Err(own(ErrorKind::Unavailable, message));
    }
    let file = match said.file {
        Some(file) if !said.named && !said.engine => file,
        _ => return Ok(false),
    };
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        // An engine whose files are elsewhere: in a virtual machine, say.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(&file, "read", error)),
    };
    let engines = engines(&text);
    let wanted = match &resolver {
        Some(resolver) => asking(&engines, resolver, &said.search),
        None => engines,
    };
    if wanted != text {
        overwrite(&file, &wanted).map_err(|error| failed(&file, "written", error))?;
    }
    Ok(resolver.is_some())
}

/// Has all containers of the engine ask those that it named.
pub(crate) async fn release_all(view: &View) -> Result<()> {
    let mut outcomes = Vec::new();
    for id in view.client.ids().await? {
        let inspected = match view.client.inspect(&id).await {
            Ok(inspected) => inspected,
            // Removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                outcomes.push(Err(error));
                continue;
            }
        };
        // Of one that does not run it is written anew.
        let said = said(&inspected, false);
        if let Some(file) = said.file.filter(|_| said.running)
            && let Ok(text) = fs::read_to_string(&file)
            && text.starts_with(HEAD)
        {
            let written = overwrite(&file, &engines(&text));
            outcomes.push(written.map_err(|error| failed(&file, "written", error)));
        }
    }
    outcomes.into_iter().collect()
}

fn failed(file: &Path, verb: &str, source: io::Error) -> arpanet_core::Error {
    let message = format!("{} can't be {verb}", file.display());
    own(ErrorKind::Internal, message).with_source(source)
}

/// In one write, and then to its length: whoever reads meanwhile finds whole lines, since what is put in is longer.
fn overwrite(file: &Path, text: &str) -> io::Result<()> {
    let mut opened = OpenOptions::new().write(true).open(file)?;
    opened.write_all(text.as_bytes())?;
    opened.set_len(text.len() as u64)
}

/// What the engine wrote, of a file that may have been changed since.
fn engines(text: &str) -> String {
    let Some(changed) = text.strip_prefix(HEAD) else {
        return text.to_owned();
    };
    let kept = changed.lines().filter_map(|line| line.strip_prefix(KEPT));
    kept.map(|line| format!("{line}\n")).collect()
}

/// The file of a container that asks these servers and no others: some resolvers ask all at a time, and take the first
/// answer. Domains that its maker named stay before ours; those of the host come after.
fn asking(engines: &str, resolver: &Resolver, named: &[String]) -> String {
    let mut search: Vec<&str> = Vec::new();
    let mut rest = Vec::new();
    for line in engines.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {}
            // The last of these lines holds.
            Some("search" | "domain") => search = words.collect(),
            Some(first) if !first.starts_with(['#', ';']) => rest.push(line),
            _ => {}
        }
    }
    let ours = resolver.search.iter().map(String::as_str);
    let mut domains: Vec<&str> = match named {
        [] => ours.chain(search).collect(),
        // As docker has it for a container that wants none.
        [none] if none == "." => Vec::new(),
        _ => search.into_iter().chain(ours).collect(),
    };
    let mut seen = std::collections::BTreeSet::new();
    domains.retain(|domain| seen.insert(*domain));
    let mut text = format!("{HEAD}\n");
    for line in engines.lines() {
        text.extend([KEPT, line, "\n"]);
    }
    if !domains.is_empty() {
        text.extend(["search ", &domains.join(" "), "\n"]);
    }
    for server in &resolver.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    for line in rest {
        text.extend([line, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINES: &str = "# Generated by the engine.\nsearch lan example.com\nnameserver 192.168.8.1\nnameserver 8.8.8.8\noptions ndots:0\n";

    fn ours() -> Resolver {
        Resolver::new([[169, 254, 1, 1].into()]).search("service.consul")
    }

    /// What counts of it.
    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn our_server_alone_is_asked_and_all_else_stays() {
        let asking = |named: &[&str]| {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            super::asking(ENGINES, &ours(), &named)
        };
        let servers = ["nameserver 169.254.1.1", "options ndots:0"];
        assert_eq!(
            lines(&asking(&[])),
            [&["search service.consul lan example.com"][..], &servers].concat()
        );
        assert_eq!(
            lines(&asking(&["lan", "example.com"])),
            [&["search lan example.com service.consul"][..], &servers].concat()
        );
        assert_eq!(lines(&asking(&["."])), servers);
        let bare = super::asking("nameserver 127.0.0.11\n", &Resolver::new([]), &[]);
        assert_eq!(lines(&bare), [""; 0]);
    }

    #[test]
    fn what_the_engine_wrote_comes_back_whole_however_often_it_was_changed() {
        let once = asking(ENGINES, &ours(), &[]);
        assert_eq!(engines(&once), ENGINES);
        assert_eq!(asking(&engines(&once), &ours(), &[]), once);
        assert!(once.len() > ENGINES.len());
        assert_eq!(engines(ENGINES), ENGINES);
    }

    #[test]
    fn the_file_itself_is_changed_and_cut_to_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let (file, bound) = (folder.path().join("resolv.conf"), folder.path().join("b"));
        fs::write(&file, ENGINES).unwrap();
        fs::hard_link(&file, &bound).unwrap();
        overwrite(&file, &asking(ENGINES, &ours(), &[])).unwrap();
        assert!(fs::read_to_string(&bound).unwrap().contains("169.254.1.1"));
        overwrite(&file, ENGINES).unwrap();
        assert_eq!(fs::read_to_string(&bound).unwrap(), ENGINES);
    }
}
