//! Who may ask this node's consul, and whom it believes, by the settings.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use arpanet_consul::Token;
use arpanet_consul::agent::AgentTls;
use arpanet_core::{Error, ErrorKind, Result};

use crate::config::Config;

/// What the settings say of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) datacenter: Option<String>,
    pub(super) token: Option<Token>,
    pub(super) tls: Option<AgentTls>,
}

impl Access {
    /// By the settings and the files that they name. Certificates are not read.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) names the setting or the file.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let token = config.consul_token_file.as_deref().map(token).transpose()?;
        let files = [
            &config.consul_ca,
            &config.consul_certificate,
            &config.consul_key,
        ];
        let tls = match files {
            [None, None, None] => None,
            [Some(ca), Some(certificate), Some(key)] => Some(AgentTls::new(ca, certificate, key)),
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "consul_ca, consul_certificate and consul_key belong together",
                )
                .with_hint("set all three, or none"));
            }
        };
        Ok(Self {
            datacenter: config.consul_datacenter.clone(),
            token,
            tls,
        })
    }
}

/// The token in a file that nobody else may read.
fn token(path: &Path) -> Result<Token> {
    let unusable = |what: &str| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("{} {what}", path.display()),
        )
    };
    let read = || Ok((std::fs::metadata(path)?, std::fs::read_to_string(path)?));
    let (metadata, text) =
        read().map_err(|source: std::io::Error| unusable("can't be read").with_source(source))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let message =
            format!("holds consul's token, and others may read it: its mode is {mode:03o}");
        return Err(unusable(&message).with_hint(format!("chmod 600 {}", path.display())));
    }
    let text = text.trim();
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(unusable("holds no token")
            .with_hint("it has to hold consul's SecretID, a UUID, and nothing else"));
    }
    Ok(Token::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path, text: &str, mode: u32) -> Config {
        let path = folder.join("token");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Config {
            consul_token_file: Some(path),
            ..Config::default()
        }
    }

    #[test]
    fn a_token_is_read_and_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::of(&written(folder.path(), "b1gs33cr3t\n", 0o600)).unwrap();
        assert_eq!(access.token, Some(Token::new("b1gs33cr3t")));
        assert!(!format!("{access:?}").contains("b1gs33cr3t"));
        assert_eq!(Access::of(&Config::default()).unwrap().token, None);
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (text, mode, said) in [
            ("s3cr3t", 0o644, "its mode is 644"),
            ("s3cr3t", 0o640, "chmod 600"),
            ("", 0o600, "holds no token"),
            ("two words", 0o600, "holds no token"),
        ] {
            let error = Access::of(&written(folder.path(), text, mode)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let told = format!("{error} {}", error.hint().unwrap());
            assert!(told.contains(said) && told.contains("token"), "{told}");
            assert!(!told.contains("s3cr3t"), "{told}");
        }
        let nowhere = Config {
            consul_token_file: Some("/nowhere/token".into()),
            ..Config::default()
        };
        let error = Access::of(&nowhere).unwrap_err();
        assert!(error.to_string().contains("/nowhere/token"), "{error}");
        let half = Config {
            consul_ca: Some("/ca.pem".into()),
            ..Config::default()
        };
        let error = Access::of(&half).unwrap_err();
        assert!(error.to_string().contains("consul_key"), "{error}");
    }
}
