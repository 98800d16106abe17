//! Making images present, with progress.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::watch::{Change, Watch, WatchHub};
use crate::{Error, ErrorKind, Result};

/// When a registry is asked for an image; docker's words.
///
/// ```
/// use arpanet_core::runtime::PullPolicy;
/// assert_eq!("always".parse::<PullPolicy>()?, PullPolicy::Always);
/// assert!("sometimes".parse::<PullPolicy>().is_err());
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PullPolicy {
    /// When the image is not here.
    #[default]
    Missing,
    /// Each time: the registry may have another one under that name by now.
    Always,
    /// Never: it is here, or it is [not found](ErrorKind::NotFound).
    Never,
}

impl PullPolicy {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

impl FromStr for PullPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Missing, Self::Always, Self::Never]
            .into_iter()
            .find(|policy| policy.to_string() == text)
            .ok_or_else(|| {
                let message = format!("{text:?} is no pull policy");
                Error::new(ErrorKind::InvalidInput, message)
                    .with_hint("it is missing, always or never")
            })
    }
}

/// What a registry knows its user by. `Debug` shows that there is something, and what kind it is.
///
/// It is serialized as it is, secret included: for a caller that hands it to the process which pulls.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RegistryCredentials {
    /// A user, and a password or a token in its place.
    Password {
        /// The user's name.
        username: String,
        /// The password.
        password: String,
    },
    /// What the registry gave for a password: it is exchanged for a token at each pull.
    IdentityToken(String),
    /// What is shown to the registry as it is.
    RegistryToken(String),
}

impl RegistryCredentials {
    /// A user and a password.
    pub fn password(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password {
            username: username.into(),
            password: password.into(),
        }
    }
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(secret)",
            Self::IdentityToken(_) => "IdentityToken(secret)",
            Self::RegistryToken(_) => "RegistryToken(secret)",
        })
    }
}

/// An image that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PullRequest {
    /// Its name, as in `nginx:1`, `registry.example:5000/team/web` or `web@sha256:…`; without a tag it is `latest`.
    pub image: String,
    /// When the registry is asked.
    #[serde(default)]
    pub policy: PullPolicy,
    /// For a registry that wants to know who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<RegistryCredentials>,
}

impl PullRequest {
    /// This image, where it is missing, by whoever asks.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            policy: PullPolicy::default(),
            credentials: None,
        }
    }

    /// By this policy.
    #[must_use]
    pub const fn policy(mut self, policy: PullPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// With these credentials, if any.
    #[must_use]
    pub fn credentials(mut self, credentials: Option<RegistryCredentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// The registry that the image's name names, by docker's rule: what is before the first slash, if it looks like a host.
    /// `None` is the engine's own default.
    ///
    /// ```
    /// use arpanet_core::runtime::PullRequest;
    /// let registry = |image| PullRequest::new(image).registry().map(str::to_owned);
    /// assert_eq!(registry("127.0.0.1:5000/web").as_deref(), Some("127.0.0.1:5000"));
    /// assert_eq!(registry("team/web:1"), None);
    /// ```
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        let (first, _) = self.image.split_once('/')?;
        (first.contains(['.', ':']) || first == "localhost").then_some(first)
    }
}

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PullPhase {
    /// Its turn has not come, or it is tried again.
    Waiting,
    /// It comes.
    Downloading,
    /// What came is compared with its digest.
    Verifying,
    /// It is whole, and waits to be unpacked.
    Downloaded,
    /// It is unpacked.
    Extracting,
    /// It is here.
    Done,
    /// It was here before.
    Present,
}

impl PullPhase {
    /// Whether nothing more happens to the layer.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Present)
    }
}

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PullProgress {
    /// The layer, as the engine calls it.
    pub layer: String,
    /// What happens to it.
    pub phase: PullPhase,
    /// How many bytes of it are through that phase.
    pub current: u64,
    /// Of how many; `None` where the engine does not say.
    pub total: Option<u64>,
}

impl PullProgress {
    /// A layer in a phase that counts no bytes.
    pub fn new(layer: impl Into<String>, phase: PullPhase) -> Self {
        Self {
            layer: layer.into(),
            phase,
            current: 0,
            total: None,
        }
    }

    /// So many bytes of so many.
    #[must_use]
    pub const fn bytes(mut self, current: u64, total: Option<u64>) -> Self {
        self.current = current;
        self.total = total;
        self
    }
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PulledImage {
    /// Its name, as it was asked for.
    pub image: String,
    /// The engine's own id for it.
    pub id: String,
    /// Whether it is another one than was here under that name before, if any was.
    pub is_new: bool,
}

impl PulledImage {
    /// An image under a name.
    pub fn new(image: impl Into<String>, id: impl Into<String>, is_new: bool) -> Self {
        Self {
            image: image.into(),
            id: id.into(),
            is_new,
        }
    }
}

/// A pull that is under way: first its progress, layer by layer, then its end. Dropping it gives it up.
///
/// What a slow reader has not taken is kept as one change a layer, and holds nothing up.
///
/// ```
/// # use arpanet_core::{Result, Runtime};
/// use arpanet_core::runtime::PullRequest;
///
/// # async fn example(runtime: &dyn Runtime) -> Result<()> {
/// let mut pull = runtime.pull(&PullRequest::new("nginx:1")).await?;
/// while let Some(layer) = pull.next().await {
///     println!("{}: {:?}, {} bytes", layer.layer, layer.phase, layer.current);
/// }
/// println!("it is {}", pull.done().await?.id);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pull {
    layers: Watch<usize, PullProgress>,
    unread: VecDeque<PullProgress>,
    work: JoinHandle<Result<PulledImage>>,
}

impl Pull {
    /// For backends: does the work in a task of its own, which ends with this value.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn<F>(work: impl FnOnce(PullReporter) -> F) -> Self
    where
        F: Future<Output = Result<PulledImage>> + Send + 'static,
    {
        let reporter = PullReporter::default();
        let layers = reporter.0.hub.watch();
        let closing = Closing(reporter.clone());
        let work = work(reporter);
        let work = tokio::spawn(async move {
            let outcome = work.await;
            if outcome.is_ok() {
                closing.0.all_done();
            }
            drop(closing);
            outcome
        });
        Self {
            layers,
            unread: VecDeque::new(),
            work,
        }
    }

    /// The next that is known of a layer; `None` when the pull has ended, well or not. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<PullProgress> {
        loop {
            if let Some(progress) = self.unread.pop_front() {
                return Some(progress);
            }
            match self.layers.next().await? {
                Change::Snapshot(set) => self.unread.extend(set.into_values()),
                Change::Upsert(_, progress) => return Some(progress),
                _ => {}
            }
        }
    }

    /// Waits for the end, whether or not its progress was read.
    ///
    /// # Errors
    /// Those of [`Runtime::pull`](super::Runtime::pull).
    pub async fn done(mut self) -> Result<PulledImage> {
        (&mut self.work).await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "the pull broke off").with_source(error))
        })
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// Where a backend tells how far it is. Clones tell the same [`Pull`].
#[derive(Debug, Clone, Default)]
pub struct PullReporter(Arc<Reported>);

#[derive(Debug, Default)]
struct Reported {
    hub: WatchHub<usize, PullProgress>,
    /// In the order in which they were first told.
    layers: Mutex<Vec<String>>,
}

impl PullReporter {
    /// Tells how far a layer is; what was told of it before and not yet read is dropped.
    pub fn tell(&self, progress: PullProgress) {
        // No code panics while it holds the lock.
        let mut layers = self.0.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = layers.iter().position(|layer| *layer == progress.layer);
        let at = known.unwrap_or_else(|| {
            layers.push(progress.layer.clone());
            layers.len() - 1
        });
        self.0.hub.upsert(at, progress);
    }

    /// The pull went well, whatever the engine told last of a layer.
    fn all_done(&self) {
        let told = self.0.hub.snapshot();
        let open = told
            .into_iter()
            .filter(|(_, layer)| !layer.phase.is_final());
        for (at, progress) in open {
            let phase = PullPhase::Done;
            self.0.hub.upsert(at, PullProgress { phase, ..progress });
        }
    }
}

/// Ends the progress also of work that panics.
struct Closing(PullReporter);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.0.hub.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> PulledImage {
        PulledImage::new("web", "sha256:00", true)
    }

    #[tokio::test]
    async fn layers_are_told_in_order_merged_and_done_at_the_end() {
        let mut pull = Pull::spawn(async |reporter| {
            for current in 0..1_000 {
                for layer in ["b", "a"] {
                    let progress = PullProgress::new(layer, PullPhase::Downloading);
                    reporter.tell(progress.bytes(current, Some(1_000)));
                }
            }
            Ok(image())
        });
        let mut told = Vec::new();
        while let Some(progress) = pull.next().await {
            told.push((progress.layer, progress.phase));
        }
        let layers: Vec<&str> = told.iter().map(|(layer, _)| layer.as_str()).collect();
        assert!(
            layers.starts_with(&["b", "a"]) && layers.len() <= 4,
            "{told:?}"
        );
        for layer in ["a", "b"] {
            let last = told.iter().rfind(|(told, _)| told == layer).unwrap();
            assert_eq!(last.1, PullPhase::Done);
        }
        assert_eq!(pull.done().await.unwrap(), image());
    }

    #[tokio::test]
    async fn what_fails_leaves_its_layers_open() {
        let mut pull = Pull::spawn(async |reporter| {
            reporter.tell(PullProgress::new("a", PullPhase::Downloading));
            Err(Error::new(ErrorKind::Unavailable, "it broke off"))
        });
        assert_eq!(pull.next().await.unwrap().phase, PullPhase::Downloading);
        assert_eq!(pull.next().await, None);
        assert_eq!(pull.next().await, None);
        assert_eq!(
            pull.done().await.unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }

    #[tokio::test]
    async fn dropping_it_gives_it_up() {
        let (held, mut gone) = tokio::sync::mpsc::channel::<()>(1);
        let pull = Pull::spawn(async move |_| {
            let _held = held;
            std::future::pending().await
        });
        drop(pull);
        assert_eq!(gone.recv().await, None);
    }

    #[tokio::test]
    async fn one_that_panics_ends() {
        let mut pull = Pull::spawn(async |_| panic!("on purpose"));
        assert_eq!(pull.next().await, None);
        assert_eq!(pull.done().await.unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn credentials_show_nowhere() {
        let request = PullRequest::new("web")
            .credentials(Some(RegistryCredentials::password("jane", "Pears")));
        let shown = format!("{request:?}");
        assert!(
            !shown.contains("Pears") && !shown.contains("jane"),
            "{shown}"
        );
        let sent = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<PullRequest>(&sent).unwrap(), request);
    }

    #[test]
    fn a_registry_is_what_looks_like_a_host() {
        for (image, wanted) in [
            ("web", None),
            ("team/web", None),
            ("localhost/web", Some("localhost")),
            ("registry.example/team/web:1", Some("registry.example")),
            ("10.0.0.1:5000/web@sha256:00", Some("10.0.0.1:5000")),
        ] {
            assert_eq!(PullRequest::new(image).registry(), wanted, "{image}");
        }
    }
}
