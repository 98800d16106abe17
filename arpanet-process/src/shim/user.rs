//! The user that a command runs as, and its environment.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;

use arpanet_core::runtime::{ContainerSpec, Environment};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::wire::{Cause, Refusal};

/// What a command finds where neither the container nor the host says more.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: Uid,
    pub(super) group: Gid,
    pub(super) groups: Vec<Gid>,
    home: String,
}

/// The user of a container by name or number, with `:group` where the group is another; `None` leaves the agent's.
pub(super) fn credentials(spec: &ContainerSpec) -> Result<Option<Credentials>, Refusal> {
    let Some(wanted) = &spec.user else {
        return Ok(None);
    };
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted.as_str(), None),
    };
    let found = match user.parse::<u32>() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(user),
    }
    .map_err(|error| Refusal::new(Cause::Internal, format!("users can't be read: {error}")))?;
    let mut credentials = match (found, user.parse::<u32>()) {
        (Some(user), _) => {
            let name = CString::new(user.name).unwrap_or_default();
            Credentials {
                user: user.uid,
                group: user.gid,
                groups: getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid]),
                home: user.dir.to_string_lossy().into_owned(),
            }
        }
        (None, Ok(number)) => Credentials {
            user: Uid::from_raw(number),
            group: Gid::from_raw(number),
            groups: vec![Gid::from_raw(number)],
            home: "/".to_owned(),
        },
        (None, Err(_)) => {
            let message = format!("there is no user {user} on this host");
            return Err(Refusal::new(Cause::InvalidInput, message));
        }
    };
    if let Some(group) = group {
        let number = match group.parse::<u32>() {
            Ok(number) => Some(Gid::from_raw(number)),
            Err(_) => Group::from_name(group)
                .ok()
                .flatten()
                .map(|group| group.gid),
        };
        let Some(number) = number else {
            let message = format!("there is no group {group} on this host");
            return Err(Refusal::new(Cause::InvalidInput, message));
        };
        credentials.group = number;
        credentials.groups = vec![number];
    }
    Ok(Some(credentials))
}

/// The environment of a command. Nothing of the agent's own is in it.
pub(super) fn environment(
    spec: &ContainerSpec,
    credentials: Option<&Credentials>,
    added: &Environment,
    terminal: bool,
) -> BTreeMap<String, String> {
    let home = credentials.map_or("/root", |credentials| credentials.home.as_str());
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), SEARCH_PATH.to_owned()),
        ("HOME".to_owned(), home.to_owned()),
    ]);
    if let Some(name) = &spec.name {
        environment.insert("HOSTNAME".to_owned(), name.to_string());
    }
    if terminal {
        environment.insert("TERM".to_owned(), "xterm".to_owned());
    }
    environment.extend(spec.env.0.clone());
    environment.extend(added.0.clone());
    environment
}

/// The exit code of a shell for a command that can't be started: 127 where it is not found, else 126.
pub(super) fn cannot_start(command: &[String], error: &io::Error) -> (i32, String) {
    let code = if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    let name = command.first().map_or("", String::as_str);
    (
        code,
        format!("the command {name:?} can't be started: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: &str) -> Result<Option<Credentials>, Refusal> {
        let mut spec = ContainerSpec::command(["true"]);
        spec.user = Some(user.to_owned());
        credentials(&spec)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = of("root").unwrap().unwrap();
        assert!(root.user.is_root());
        assert_eq!(of("0").unwrap().unwrap(), root);
        let unknown = of("54321").unwrap().unwrap();
        assert_eq!(unknown.user.as_raw(), 54321);
        assert_eq!(unknown.groups, [Gid::from_raw(54321)]);
        assert_eq!(of("0:7").unwrap().unwrap().groups, [Gid::from_raw(7)]);
        assert_eq!(of("no-such-user").unwrap_err().cause, Cause::InvalidInput);
        assert_eq!(
            of("0:no-such-group").unwrap_err().cause,
            Cause::InvalidInput
        );
    }

    #[test]
    fn later_variables_win() {
        let spec = ContainerSpec::command(["true"])
            .named("w1".parse().unwrap())
            .env("PATH", "/mine")
            .env("A", "1");
        let added = Environment(BTreeMap::from([("A".to_owned(), "2".to_owned())]));
        let environment = environment(&spec, None, &added, false);
        assert_eq!(environment["PATH"], "/mine");
        assert_eq!(environment["A"], "2");
        assert_eq!(environment["HOSTNAME"], "w1");
        assert!(!environment.contains_key("TERM"));
    }
}
