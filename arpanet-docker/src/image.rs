//! Making images present.

use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use bollard::errors::Error as Failure;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;

use crate::client::{Client, LOOK};
use crate::spec::check_image;

/// How long a registry may take to begin.
const BEGIN: Duration = Duration::from_secs(120);

/// Pulls an image that is not there.
pub(crate) async fn pull(client: &Client, image: &str) -> Result<()> {
    check_image(image)?;
    let known = client
        .ask(
            LOOK,
            |docker| async move { docker.inspect_image(image).await },
        )
        .await;
    match known {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let options = CreateImageOptionsBuilder::default()
        .from_image(&exact(image))
        .build();
    let docker = client.engine(BEGIN).await?;
    let mut progress = docker.create_image(Some(options), None, None);
    while let Some(step) = progress.next().await {
        step.map_err(|failure| refused(client, image, failure))?;
    }
    Ok(())
}

/// Without a tag docker would pull all that there are.
fn exact(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) {
        return image.to_owned();
    }
    format!("{image}:latest")
}

/// Why the image did not come.
fn refused(client: &Client, image: &str, failure: Failure) -> Error {
    // The engine passes on what the registry said, or that there was none.
    let registry = matches!(
        failure,
        Failure::DockerResponseServerError {
            status_code: 500,
            ..
        } | Failure::DockerStreamError { .. }
    );
    let error = client.failed(failure);
    let message = format!("the image {image} is not here, and can't be pulled: {error}");
    let kind = match error.kind() {
        _ if registry => ErrorKind::Unavailable,
        kind => kind,
    };
    crate::error::own(kind, message).with_hint(match kind {
        ErrorKind::NotFound | ErrorKind::Unauthenticated => {
            "is its name right, and has the engine access to it? docker load and docker import work without a registry"
        }
        _ => "docker load and docker import work without a registry",
    })
}

#[cfg(test)]
mod tests {
    use super::exact;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, wanted) in [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("localhost:5000/web", "localhost:5000/web:latest"),
            ("localhost:5000/web:2", "localhost:5000/web:2"),
            ("web@sha256:00", "web@sha256:00"),
        ] {
            assert_eq!(exact(image), wanted);
        }
    }
}
