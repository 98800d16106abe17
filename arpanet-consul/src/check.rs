//! Checks that consul runs itself, beside the one that the agent of arpanet2 reports.

use std::time::Duration;

use crate::wire::{NewCheck, Status};

/// What a TTL check needs that nobody has to refresh: the node's heartbeat stands for it (see [`crate::pulse`]). Ten years,
/// so that what was last reported also survives a restart of consul, which keeps it for no longer than that.
const UNHURRIED: &str = "87600h";

/// A check of an instance that consul's agent runs. An instance is critical while one of its checks is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceCheck {
    /// An HTTP GET, from where consul's agent is: any 2xx is good.
    Http {
        /// The whole URL.
        url: String,
        /// How often.
        interval: Duration,
        /// How long an answer may take.
        timeout: Duration,
    },
    /// A TCP connection, from where consul's agent is.
    Tcp {
        /// `HOST:PORT`.
        address: String,
        /// How often.
        interval: Duration,
        /// How long it may take.
        timeout: Duration,
    },
    /// A report of the application itself to consul (`/v1/agent/check/pass/ID`), not seldomer than this. Critical until the
    /// first.
    Ttl {
        /// The check's id.
        id: String,
        /// How long without a report until it is critical.
        ttl: Duration,
    },
    /// A command in a container, by consul's agent's own access to docker: it must be allowed to run scripts
    /// (`enable_local_script_checks`).
    Docker {
        /// The container's id or name.
        container: String,
        /// The command and its arguments.
        command: Vec<String>,
        /// How often.
        interval: Duration,
    },
}

/// A duration as Go reads it.
pub(crate) fn go_duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// The id of the check that carries an instance's health.
pub(crate) fn health_check_id(service_id: &str) -> String {
    format!("service:{service_id}")
}

/// The check that carries an instance's health, as it is reported.
pub(crate) fn health_check(service_id: &str, status: Status) -> NewCheck {
    NewCheck {
        check_id: Some(health_check_id(service_id)),
        name: "arpanet2".to_owned(),
        status: Some(status),
        ttl: Some(UNHURRIED.to_owned()),
        ..NewCheck::default()
    }
}

impl ServiceCheck {
    /// As consul takes it: the `number`-th check of a service.
    pub(crate) fn to_wire(&self, service_id: &str, number: usize) -> NewCheck {
        let check_id = Some(format!("service:{service_id}:{number}"));
        match self {
            Self::Http {
                url,
                interval,
                timeout,
            } => NewCheck {
                check_id,
                name: format!("http {url}"),
                http: Some(url.clone()),
                interval: Some(go_duration(*interval)),
                timeout: Some(go_duration(*timeout)),
                ..NewCheck::default()
            },
            Self::Tcp {
                address,
                interval,
                timeout,
            } => NewCheck {
                check_id,
                name: format!("tcp {address}"),
                tcp: Some(address.clone()),
                interval: Some(go_duration(*interval)),
                timeout: Some(go_duration(*timeout)),
                ..NewCheck::default()
            },
            Self::Ttl { id, ttl } => NewCheck {
                check_id: Some(id.clone()),
                name: format!("ttl {id}"),
                ttl: Some(go_duration(*ttl)),
                ..NewCheck::default()
            },
            Self::Docker {
                container,
                command,
                interval,
            } => NewCheck {
                check_id,
                name: format!("docker {container}"),
                docker_container_id: Some(container.clone()),
                shell: Some("/bin/sh".to_owned()),
                args: command.clone(),
                interval: Some(go_duration(*interval)),
                ..NewCheck::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_what_consul_takes() {
        let check = ServiceCheck::Http {
            url: "http://10.1.0.5:80/health".to_owned(),
            interval: Duration::from_secs(2),
            timeout: Duration::from_millis(500),
        };
        assert_eq!(
            serde_json::to_value(check.to_wire("w1", 0)).unwrap(),
            serde_json::json!({
                "CheckID": "service:w1:0",
                "Name": "http http://10.1.0.5:80/health",
                "HTTP": "http://10.1.0.5:80/health",
                "Interval": "2000ms",
                "Timeout": "500ms",
            })
        );
        let check = ServiceCheck::Docker {
            container: "w1".to_owned(),
            command: vec!["test".to_owned(), "-f".to_owned(), "/ready".to_owned()],
            interval: Duration::from_secs(1),
        };
        let check = check.to_wire("w1", 1);
        assert_eq!(check.docker_container_id.as_deref(), Some("w1"));
        assert_eq!(check.args, ["test", "-f", "/ready"]);
    }
}
