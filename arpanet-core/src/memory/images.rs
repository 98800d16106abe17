//! Images in the simulated world: what hosts have, and the one registry that all of them reach.

use super::runtime::MemoryRuntime;
use crate::runtime::{
    PullPhase, PullPolicy, PullProgress, PullReporter, PullRequest, PulledImage,
    RegistryCredentials,
};
use crate::{Error, ErrorKind, Result};

/// What every image is made of.
const LAYERS: [&str; 2] = ["layer-1", "layer-2"];

/// How long a layer is, and in what pieces it comes, in bytes.
const LAYER: u64 = 1 << 20;
const PIECE: u64 = LAYER / 4;

/// Who may pull what begins with `private/`, with which password.
const READER: (&str, &str) = ("reader", "secret");

/// What the registry says to who asks for an image.
fn admit(image: &str, credentials: Option<&RegistryCredentials>) -> Result<()> {
    if image.starts_with("nonexistent") {
        let message = format!("there is no image {image}");
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let known = match credentials {
        Some(RegistryCredentials::Password { username, password }) => {
            (username.as_str(), password.as_str()) == READER
        }
        _ => false,
    };
    if image.starts_with("private/") && !known {
        let message = format!("the registry wants to know who asks for {image}");
        return Err(Error::new(ErrorKind::Unauthenticated, message));
    }
    Ok(())
}

impl MemoryRuntime {
    fn has(&self, image: &str) -> Result<bool> {
        self.act("pull", |state, host| {
            Ok(state.hosts[host].engine.images.contains(image))
        })
    }

    /// Pulls an image as it is asked for.
    pub(super) async fn fetch(
        &self,
        request: &PullRequest,
        reporter: &PullReporter,
    ) -> Result<PulledImage> {
        let image = &request.image;
        let id = format!("memory:{image}");
        tokio::task::yield_now().await;
        let here = self.has(image)?;
        match request.policy {
            PullPolicy::Missing | PullPolicy::Never if here => {
                return Ok(PulledImage::new(image, id, false));
            }
            PullPolicy::Never => {
                let message = format!("the image {image} is not here, and is not to be pulled");
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            _ => admit(image, request.credentials.as_ref())?,
        }
        for layer in LAYERS {
            if here {
                reporter.tell(PullProgress::new(layer, PullPhase::Present));
                continue;
            }
            for come in (0..=LAYER).step_by(PIECE as usize) {
                let progress = PullProgress::new(layer, PullPhase::Downloading);
                reporter.tell(progress.bytes(come, Some(LAYER)));
                tokio::task::yield_now().await;
                // The host may have lost its power.
                self.has(image)?;
            }
            reporter.tell(PullProgress::new(layer, PullPhase::Done));
        }
        self.act("pull", |state, host| {
            let is_new = state.hosts[host].engine.images.insert(image.clone());
            Ok(PulledImage::new(image, id, is_new))
        })
    }
}
