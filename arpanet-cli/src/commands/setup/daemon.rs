//! What `setup --docker-api daemon` puts into docker's own configuration, and how it is taken back. Pure.
//!
//! The API itself stays with the agent: the daemon lives in the host's network namespace and 10.254.A.B in the router's. An
//! address of the host every container reaches through docker's bridge, whatever the overlay refuses, and whoever reaches the
//! API is root on the host.

use std::net::Ipv4Addr;
use std::path::Path;

use arpanet_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

/// What is set, in docker's words: the servers that containers ask, what short names are looked up in, and that containers
/// outlive the daemon.
const DNS: &str = "dns";
const SEARCH: &str = "dns-search";
const LIVE_RESTORE: &str = "live-restore";
const KEYS: [&str; 3] = [DNS, SEARCH, LIVE_RESTORE];

/// What the daemon is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Where the cluster's DNS answers containers that are not on the overlay: the bridge's address.
    pub(super) dns: Ipv4Addr,
    /// As `service.consul`.
    pub(super) search: String,
}

/// The file as it should be; `None` where it is so already. `text` is none where there is no file.
///
/// # Errors
/// [`ErrorKind::Corrupt`], with the line, for a file that docker could not read either.
pub(super) fn merged(path: &Path, text: Option<&str>, wanted: &Wanted) -> Result<Option<String>> {
    let before = read(path, text.unwrap_or("{}"))?;
    let mut after = before.clone();
    after.insert(DNS.to_owned(), vec![wanted.dns.to_string()].into());
    let mut search = match before.get(SEARCH) {
        None => Vec::new(),
        Some(Value::Array(search)) => search.clone(),
        Some(other) => return Err(not_docker(path, SEARCH, other)),
    };
    if !search.contains(&wanted.search.as_str().into()) {
        search.push(wanted.search.as_str().into());
    }
    after.insert(SEARCH.to_owned(), search.into());
    after.insert(LIVE_RESTORE.to_owned(), true.into());
    match after == before {
        true => Ok(None),
        false => write(&after, text.unwrap_or_default()).map(Some),
    }
}

/// The file without what was put in, where `backup` is what was there before: none for no file. `None` for no file.
///
/// # Errors
/// As [`merged`].
pub(super) fn restored(path: &Path, text: &str, backup: Option<&str>) -> Result<Option<String>> {
    let mut now = read(path, text)?;
    let before = read(path, backup.unwrap_or("{}"))?;
    for key in KEYS {
        match before.get(key) {
            Some(value) => drop(now.insert(key.to_owned(), value.clone())),
            None => drop(now.shift_remove(key)),
        }
    }
    if now == before {
        return Ok(backup.map(str::to_owned));
    }
    // Changed by somebody else since: that stays.
    write(&now, text).map(Some)
}

/// The keys that the daemon is told by its command line too: it refuses to start with both (moby/moby 25471).
pub(super) fn told_twice(command_line: &[String]) -> Vec<&'static str> {
    let is_told = |key: &&str| {
        command_line.iter().any(|word| {
            let word = word.trim_start_matches('-');
            word == *key
                || word
                    .strip_prefix(*key)
                    .is_some_and(|rest| rest.starts_with('='))
        })
    };
    KEYS.into_iter().filter(is_told).collect()
}

/// The lines that go (`-`) and come (`+`), with those in between.
pub(super) fn difference(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // The length of the longest common part of what follows each pair of lines.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for (row, line) in old.iter().enumerate().rev() {
        for (column, other) in new.iter().enumerate().rev() {
            common[row][column] = match line == other {
                true => common[row + 1][column + 1] + 1,
                false => common[row + 1][column].max(common[row][column + 1]),
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut lines = Vec::new();
    while row < old.len() || column < new.len() {
        if row < old.len() && column < new.len() && old[row] == new[column] {
            lines.push(format!("  {}", old[row]));
            (row, column) = (row + 1, column + 1);
        } else if row < old.len()
            && (column == new.len() || common[row + 1][column] >= common[row][column + 1])
        {
            lines.push(format!("- {}", old[row]));
            row += 1;
        } else {
            lines.push(format!("+ {}", new[column]));
            column += 1;
        }
    }
    lines.join("\n")
}

fn read(path: &Path, text: &str) -> Result<Map<String, Value>> {
    if text.trim().is_empty() {
        // As docker takes it.
        return Ok(Map::new());
    }
    let invalid = |message: String| {
        Error::new(ErrorKind::Corrupt, message).with_hint(
            "mend it first; dockerd --validate --config-file shows what docker says of it",
        )
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(invalid(format!("{} holds no JSON object", path.display()))),
        Err(error) => Err(invalid(format!(
            "{} is not valid JSON, at line {}, column {}",
            path.display(),
            error.line(),
            error.column()
        ))
        .with_source(error)),
    }
}

fn not_docker(path: &Path, key: &str, value: &Value) -> Error {
    let message = format!(
        "{}: {key:?} is {value}, and docker wants a list",
        path.display()
    );
    Error::new(ErrorKind::Corrupt, message).with_hint("mend it first")
}

/// With the indentation that the file has.
fn write(map: &Map<String, Value>, like: &str) -> Result<String> {
    let indent = like
        .lines()
        .find_map(|line| {
            let indent = &line[..line.len() - line.trim_start().len()];
            (!indent.is_empty()).then_some(indent)
        })
        .unwrap_or("  ");
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut out = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(map, &mut out).map_err(|source| {
        Error::new(ErrorKind::Internal, "docker's settings can't be written").with_source(source)
    })?;
    text.push(b'\n');
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> &'static Path {
        Path::new("/etc/docker/daemon.json")
    }

    fn wanted() -> Wanted {
        Wanted {
            dns: "172.17.0.1".parse().unwrap(),
            search: "service.consul".to_owned(),
        }
    }

    const USERS: &str = r#"{
    "storage-driver": "overlay2",
    "dns-search": ["lan"],
    "future": {"b": 1, "a": [2]}
}
"#;

    #[test]
    fn what_is_there_stays_where_it_is() {
        let after = merged(path(), Some(USERS), &wanted()).unwrap().unwrap();
        assert_eq!(
            after,
            r#"{
    "storage-driver": "overlay2",
    "dns-search": [
        "lan",
        "service.consul"
    ],
    "future": {
        "b": 1,
        "a": [
            2
        ]
    },
    "dns": [
        "172.17.0.1"
    ],
    "live-restore": true
}
"#
        );
        assert_eq!(merged(path(), Some(&after), &wanted()).unwrap(), None);
        let again = restored(path(), &after, Some(USERS)).unwrap();
        assert_eq!(again.as_deref(), Some(USERS), "to the byte");
    }

    #[test]
    fn where_there_was_no_file_there_is_none_again() {
        let after = merged(path(), None, &wanted()).unwrap().unwrap();
        assert_eq!(merged(path(), Some(&after), &wanted()).unwrap(), None);
        assert_eq!(restored(path(), &after, None).unwrap(), None);
        assert!(merged(path(), Some(" \n"), &wanted()).unwrap().is_some());
    }

    #[test]
    fn what_somebody_changed_since_stays_when_it_is_taken_back() {
        let after = merged(path(), Some(USERS), &wanted()).unwrap().unwrap();
        let changed = after.replace("overlay2", "vfs");
        let left = restored(path(), &changed, Some(USERS)).unwrap().unwrap();
        let left: Value = serde_json::from_str(&left).unwrap();
        assert_eq!(left["storage-driver"], "vfs");
        assert_eq!(left["dns-search"], serde_json::json!(["lan"]));
        assert!(left.get("dns").is_none() && left.get("live-restore").is_none());
    }

    #[test]
    fn what_docker_could_not_read_is_refused_with_its_line() {
        let broken = merged(path(), Some("{\n  \"dns\": [\n}"), &wanted()).unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::Corrupt);
        assert!(
            broken
                .to_string()
                .contains("daemon.json is not valid JSON, at line 3"),
            "{broken}"
        );
        for bad in ["[]", "{\"dns-search\": \"lan\"}"] {
            assert_eq!(
                merged(path(), Some(bad), &wanted()).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
    }

    #[test]
    fn what_the_command_line_says_too_is_found() {
        let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            told_twice(&line("dockerd -H fd:// --dns=1.1.1.1 --dns-search lan")),
            [DNS, SEARCH]
        );
        assert!(told_twice(&line("dockerd -H fd:// --dns-opt x --live-restored")).is_empty());
    }

    #[test]
    fn a_difference_is_what_goes_and_what_comes() {
        assert_eq!(
            difference("a\nb\nc", "a\nx\nc\nd"),
            "  a\n- b\n+ x\n  c\n+ d"
        );
        assert_eq!(difference("", "a"), "+ a");
        assert_eq!(difference("a", ""), "- a");
    }
}
