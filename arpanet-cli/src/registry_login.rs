//! What `docker login` left: the credentials of registries in docker's `config.json`, or with the helper that it names.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use arpanet_core::runtime::RegistryCredentials;
use arpanet_core::{Error, ErrorKind, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// As docker calls its default registry there.
const DEFAULT: &str = "https://index.docker.io/v1/";
const DEFAULT_NAMES: [&str; 2] = ["docker.io", "index.docker.io"];

/// How long a helper may take: it may ask somebody.
const PATIENCE: Duration = Duration::from_secs(120);

/// By which a helper tells that the secret is an identity token.
const TOKEN: &str = "<token>";

/// `config.json`, as far as it is about credentials.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Kept>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Kept {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Where credentials of a registry are.
#[derive(PartialEq, Eq)]
enum Source {
    Nowhere,
    Here(RegistryCredentials),
    /// With the program of this name.
    With(String),
}

/// The credentials of a registry, `None` for docker's default, where somebody has logged in to it.
///
/// # Errors
/// What is there and can't be read, or the helper's own words.
pub(crate) async fn find(registry: Option<&str>) -> Result<Option<RegistryCredentials>> {
    let Some(file) = file() else { return Ok(None) };
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&file).with_source(error)),
    };
    let config = serde_json::from_slice(&text);
    let config: Config = config.map_err(|error| unreadable(&file).with_source(error))?;
    let key = key(registry);
    match config.source(key, &file)? {
        Source::Nowhere => Ok(None),
        Source::Here(credentials) => Ok(Some(credentials)),
        Source::With(helper) => ask(&helper, key).await,
    }
}

fn file() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty());
    let folder = named.map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
        Some(PathBuf::from(home).join(".docker"))
    });
    folder.map(|folder| folder.join("config.json"))
}

fn unreadable(file: &Path) -> Error {
    let message = format!("docker's {} can't be read", file.display());
    Error::new(ErrorKind::Corrupt, message)
}

/// As a registry is called in docker's settings.
fn key(registry: Option<&str>) -> &str {
    match registry {
        Some(name) if !DEFAULT_NAMES.contains(&name) => name,
        _ => DEFAULT,
    }
}

/// A key as a host: older clients wrote URLs.
fn host(key: &str) -> &str {
    let key = key.strip_prefix("https://").unwrap_or(key);
    let key = key.strip_prefix("http://").unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

impl Config {
    fn source(&self, key: &str, file: &Path) -> Result<Source> {
        let helper = self.cred_helpers.get(key).unwrap_or(&self.creds_store);
        if !helper.is_empty() {
            return Ok(Source::With(helper.clone()));
        }
        let exact = self.auths.get(key);
        let kept = exact.or_else(|| {
            let mut all = self.auths.iter();
            all.find(|(other, _)| host(other) == key)
                .map(|(_, kept)| kept)
        });
        match kept {
            Some(kept) => kept.read(file),
            None => Ok(Source::Nowhere),
        }
    }
}

impl Kept {
    fn read(&self, file: &Path) -> Result<Source> {
        if !self.identitytoken.is_empty() {
            let token = self.identitytoken.clone();
            return Ok(Source::Here(RegistryCredentials::IdentityToken(token)));
        }
        if !self.registrytoken.is_empty() {
            let token = self.registrytoken.clone();
            return Ok(Source::Here(RegistryCredentials::RegistryToken(token)));
        }
        if self.auth.is_empty() {
            if self.username.is_empty() {
                return Ok(Source::Nowhere);
            }
            let known = RegistryCredentials::password(&self.username, &self.password);
            return Ok(Source::Here(known));
        }
        let read = BASE64_STANDARD.decode(&self.auth).ok();
        let read = read.and_then(|read| String::from_utf8(read).ok());
        let pair = read.as_deref().and_then(|pair| pair.split_once(':'));
        let (user, password) = pair.ok_or_else(|| unreadable(file))?;
        // Some clients filled the password up.
        let password = password.trim_end_matches('\0');
        let known = RegistryCredentials::password(user, password);
        Ok(Source::Here(known))
    }
}

/// Asks a helper, by the protocol of docker-credential-helpers.
async fn ask(helper: &str, key: &str) -> Result<Option<RegistryCredentials>> {
    let program = format!("docker-credential-{helper}");
    let failed = |what: &str| {
        let message = format!("{program} {what}");
        Error::new(ErrorKind::Unavailable, message)
    };
    if helper.contains('/') {
        return Err(failed("is no program's name"));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| failed("can't be started").with_source(source))?;
    let asking = async {
        if let Some(mut input) = child.stdin.take() {
            // One that does not read says why.
            let _ = input.write_all(key.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(|_| failed("does not answer"))?
        .map_err(|source| failed("broke off").with_source(source))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said.trim();
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(&format!("says: {said}")));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        // The source would quote what it says.
        .map_err(|_| failed("answers what can't be read"))?;
    Ok(Some(if answer.username == TOKEN {
        RegistryCredentials::IdentityToken(answer.secret)
    } else {
        RegistryCredentials::password(answer.username, answer.secret)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(config: &str, registry: Option<&str>) -> Result<Source> {
        let config: Config = serde_json::from_str(config).unwrap();
        config.source(key(registry), Path::new("config.json"))
    }

    fn jane() -> Source {
        Source::Here(RegistryCredentials::password("jane", "Pe:ars"))
    }

    /// `jane:Pe:ars`.
    const AUTH: &str = "amFuZTpQZTphcnM=";

    #[test]
    fn logins_are_found_by_the_names_that_clients_wrote() {
        for (written, registry) in [
            ("127.0.0.1:5000", Some("127.0.0.1:5000")),
            ("https://registry.example/v1/", Some("registry.example")),
            ("http://registry.example", Some("registry.example")),
            (DEFAULT, None),
            (DEFAULT, Some("docker.io")),
        ] {
            let config =
                format!(r#"{{"auths": {{"{written}": {{"auth": "{AUTH}"}}}}, "other": 1}}"#);
            assert!(source(&config, registry).unwrap() == jane(), "{written}");
            let other = source(&config, Some("elsewhere.example")).unwrap();
            assert!(other == Source::Nowhere, "{written}");
        }
    }

    #[test]
    fn every_kind_of_login_is_read() {
        let read =
            |kept: &str| source(&format!(r#"{{"auths": {{"r.io": {kept}}}}}"#), Some("r.io"));
        let token = RegistryCredentials::IdentityToken("abc".to_owned());
        let known = read(&format!(r#"{{"auth": "{AUTH}", "identitytoken": "abc"}}"#));
        assert!(known.unwrap() == Source::Here(token));
        let token = RegistryCredentials::RegistryToken("abc".to_owned());
        let known = read(r#"{"registrytoken": "abc"}"#);
        assert!(known.unwrap() == Source::Here(token));
        let known = read(r#"{"username": "jane", "password": "Pe:ars"}"#);
        assert!(known.unwrap() == jane());
        // Filled up with zeros: `jane:Pe:ars\0\0`.
        let known = read(r#"{"auth": "amFuZTpQZTphcnMAAA=="}"#);
        assert!(known.unwrap() == jane());
        assert!(read("{}").unwrap() == Source::Nowhere);
        for broken in ["%%%", "amFuZQ=="] {
            let error = read(&format!(r#"{{"auth": "{broken}"}}"#)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(!error.to_string().contains(broken));
        }
    }

    #[test]
    fn a_helper_goes_over_what_is_written() {
        let config = format!(
            r#"{{"auths": {{"r.io": {{"auth": "{AUTH}"}}}}, "credsStore": "store", "credHelpers": {{"q.io": "own", "p.io": ""}}}}"#
        );
        let with = |name: &str| Source::With(name.to_owned());
        assert!(source(&config, Some("r.io")).unwrap() == with("store"));
        assert!(source(&config, Some("q.io")).unwrap() == with("own"));
        assert!(source(&config, Some("p.io")).unwrap() == Source::Nowhere);
    }

    #[tokio::test]
    async fn a_helper_that_is_none_is_named() {
        for helper in ["does-not-exist-here", "../../bin/sh"] {
            let error = ask(helper, "r.io").await.err().unwrap();
            assert!(error.to_string().contains(helper), "{error}");
        }
    }
}
