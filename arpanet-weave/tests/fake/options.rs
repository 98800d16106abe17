//! The arguments of weaver that arpanet2 uses. All others end it, as they do weaver.

use std::path::PathBuf;

#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) name: String,
    pub(super) nickname: String,
    pub(super) bridge: String,
    pub(super) prefix: String,
    pub(super) http: String,
    pub(super) peers: Vec<String>,
}

impl Options {
    /// From an argument a line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self {
            port: 6783,
            ..Self::default()
        };
        let mut words = text.lines();
        while let Some(word) = words.next() {
            if !word.starts_with("--") {
                options.peers.push(word.to_owned());
                continue;
            }
            if matches!(word, "--no-dns" | "--no-fastdp") {
                continue;
            }
            let value = words
                .next()
                .ok_or(format!("flag needs an argument: {word}"))?;
            let text = value.to_owned();
            match word {
                "--host" => options.host = Some(text),
                "--port" => options.port = value.parse().map_err(|_| format!("{word}: {value}"))?,
                "--name" => options.name = text,
                "--nickname" => options.nickname = text,
                "--weave-bridge" => options.bridge = text,
                "--db-prefix" => options.prefix = text,
                "--http-addr" => options.http = text,
                "--datapath" | "--mtu" => {}
                "--docker-api" | "--ipalloc-range" | "--status-addr" if value.is_empty() => {}
                _ => {
                    return Err(format!(
                        "flag provided but not supported here: {word} {value:?}"
                    ));
                }
            }
        }
        Ok(options)
    }

    pub(super) fn database(&self) -> PathBuf {
        PathBuf::from(format!("{}data.db", self.prefix))
    }

    /// Where it listens.
    pub(super) fn listen(&self) -> (&str, u16) {
        (self.host.as_deref().unwrap_or("0.0.0.0"), self.port)
    }
}
