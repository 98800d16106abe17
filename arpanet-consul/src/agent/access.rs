//! Who may ask consul, and whom its agents believe: the access control and the certificates of a node's consul process.

use std::path::{Path, PathBuf};

use arpanet_core::Result;
use hkdf::Hkdf;
use serde_json::{Value, json};
use sha2::Sha256;

use super::ConsulAgentConfig;
use crate::config::{TlsConfig, Token};
use crate::tls::connector;

/// The port of the HTTP API by TLS, where there are certificates.
pub(super) const HTTPS_PORT: u16 = 8501;

/// The certificates by which agents know each other, PEM files. Servers have the name `server.DATACENTER.DOMAIN` in theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentTls {
    /// The authority that signed those of all nodes.
    pub ca: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl AgentTls {
    /// These files. Nothing is read yet.
    #[must_use]
    pub fn new(
        ca: impl Into<PathBuf>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        Self {
            ca: ca.into(),
            certificate: certificate.into(),
            key: key.into(),
        }
    }

    /// Whether the files can be used.
    pub(super) fn validate(&self) -> Result<()> {
        let tls = TlsConfig::default()
            .ca(&self.ca)
            .certificate(&self.certificate, &self.key);
        connector(&tls).map(drop)
    }
}

/// Puts into a configuration who may ask, and who is believed. `begins`: this node's consul makes the token known to the others.
pub(super) fn guard(config: &mut Value, settings: &ConsulAgentConfig, begins: bool) {
    if let Some(token) = &settings.token {
        config["acl"] = json!({
            "enabled": true,
            "default_policy": "deny",
            // Who was let in stays in while no server answers.
            "down_policy": "extend-cache",
            "tokens": {
                "agent": token,
                "agent_master": agent_token(token),
            },
        });
        if begins {
            config["acl"]["tokens"]["master"] = json!(token);
        }
    }
    if let Some(tls) = &settings.tls {
        let path = |path: &Path| json!(path);
        config["ca_file"] = path(&tls.ca);
        config["cert_file"] = path(&tls.certificate);
        config["key_file"] = path(&tls.key);
        config["verify_incoming"] = json!(true);
        config["verify_outgoing"] = json!(true);
        config["verify_server_hostname"] = json!(true);
        config["ports"]["https"] = json!(HTTPS_PORT);
    }
}

/// What its own node asks an agent with that no server answers yet: it is known to that agent alone, and good for its life only.
pub(super) fn agent_token(token: &Token) -> Token {
    let mut own = [0_u8; 16];
    let derived = Hkdf::<Sha256>::new(None, token.expose().as_bytes())
        .expand(b"arpanet2 consul agent v1", &mut own);
    // 16 bytes are never too many for it.
    debug_assert!(derived.is_ok());
    let hex: String = own.iter().map(|byte| format!("{byte:02x}")).collect();
    Token::new(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_what_it_is_for_and_is_shown_nowhere() {
        let settings =
            ConsulAgentConfig::new("/consul", "/data", "/socket").token(Token::new("s3cr3t"));
        assert!(!format!("{settings:?}").contains("s3cr3t"));
        for begins in [true, false] {
            let mut config = json!({"ports": {}});
            guard(&mut config, &settings, begins);
            let acl = &config["acl"];
            assert_eq!(acl["default_policy"], "deny");
            assert_eq!(acl["tokens"]["agent"], "s3cr3t");
            assert_eq!(acl["tokens"]["master"] == "s3cr3t", begins);
            let own = acl["tokens"]["agent_master"].as_str().unwrap();
            assert_eq!(own, agent_token(&Token::new("s3cr3t")).expose());
            assert_ne!(own, agent_token(&Token::new("other")).expose());
            assert_eq!(own.len(), 36);
        }
    }

    #[test]
    fn without_either_nothing_is_said() {
        let settings = ConsulAgentConfig::new("/consul", "/data", "/socket");
        let mut config = json!({"ports": {}});
        guard(&mut config, &settings, true);
        assert_eq!(config, json!({"ports": {}}));
    }

    #[test]
    fn with_certificates_everybody_has_to_show_one() {
        let tls = AgentTls::new("/ca.pem", "/node.pem", "/node-key.pem");
        let settings = ConsulAgentConfig::new("/consul", "/data", "/socket").tls(tls.clone());
        let mut config = json!({"ports": {"grpc": -1}});
        guard(&mut config, &settings, true);
        assert_eq!(config["ports"], json!({"grpc": -1, "https": 8501}));
        for verified in [
            "verify_incoming",
            "verify_outgoing",
            "verify_server_hostname",
        ] {
            assert_eq!(config[verified], true);
        }
        assert_eq!(config["key_file"], "/node-key.pem");
        let error = tls.validate().unwrap_err();
        assert!(error.to_string().contains("/ca.pem"), "{error}");
    }
}
