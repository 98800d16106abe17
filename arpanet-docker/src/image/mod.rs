//! Making images present.

mod ask;
mod refused;
mod told;

use arpanet_core::runtime::{PullPolicy, PullReporter, PullRequest, PulledImage};
use arpanet_core::{ErrorKind, Result};

use crate::client::{Client, LOOK};
use crate::error::own;

/// Makes an image present as the request says.
pub(crate) async fn pull(
    client: &Client,
    request: &PullRequest,
    reporter: &PullReporter,
) -> Result<PulledImage> {
    let image = &request.image;
    let before = known(client, image).await?;
    match (&before, request.policy) {
        (Some(id), PullPolicy::Missing | PullPolicy::Never) => {
            return Ok(PulledImage::new(image, id, false));
        }
        (None, PullPolicy::Never) => {
            let message = format!("the image {image} is not here, and is not to be pulled");
            let hint = "pull it first, or let it be pulled when it is missing; docker load and docker import work without a registry";
            return Err(own(ErrorKind::NotFound, message).with_hint(hint));
        }
        _ => {}
    }
    ask::pull(client, request, reporter).await?;
    match known(client, image).await? {
        Some(id) => {
            let is_new = before.as_ref() != Some(&id);
            Ok(PulledImage::new(image, id, is_new))
        }
        None => {
            let message = format!("the image {image} was pulled, and somebody has removed it");
            Err(own(ErrorKind::Conflict, message))
        }
    }
}

/// The id of an image that is here.
pub(crate) async fn known(client: &Client, image: &str) -> Result<Option<String>> {
    let asked = client
        .ask(
            LOOK,
            |docker| async move { docker.inspect_image(image).await },
        )
        .await;
    match asked {
        Ok(image) => Ok(Some(image.id.unwrap_or_default())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
