//! Where this host's consul runs: a program of the host, or in a container of an image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arpanet_consul::agent::Spawn;
use arpanet_core::{Error, ErrorKind, Result};

use super::container::{self, Container, DEFAULT_IMAGE};
use crate::agent::state::RuntimeKind;
use crate::commands::Context;
use crate::host;

/// One of the two.
#[derive(Debug)]
pub(crate) enum Home {
    Program(PathBuf),
    Container(Arc<Container>),
}

/// What is chosen, before it is looked for.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    Program,
    Image(&'a str),
}

/// By the settings, and by what there is. A program that is named, or found, needs no engine.
fn choose(
    image: Option<&str>,
    is_program_named: bool,
    is_program_found: bool,
    has_docker: bool,
    was_container: bool,
) -> Choice<'_> {
    match image {
        Some(image) => Choice::Image(image),
        None if is_program_named => Choice::Program,
        None if was_container && has_docker => Choice::Image(DEFAULT_IMAGE),
        None if !is_program_found && has_docker => Choice::Image(DEFAULT_IMAGE),
        None => Choice::Program,
    }
}

impl Home {
    /// For a node with this runtime.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a program that is not there; [`InvalidInput`](ErrorKind::InvalidInput) for an
    /// image on a node without docker.
    pub(crate) fn of(context: &Context, runtime: RuntimeKind) -> Result<Self> {
        let config = &context.config;
        let program = host::consul(config.consul.as_deref());
        let has_docker = runtime == RuntimeKind::Docker;
        let choice = choose(
            config.consul_image.as_deref(),
            config.consul.is_some(),
            program.is_ok(),
            has_docker,
            container::is_there(context),
        );
        match choice {
            Choice::Program => program.map(Self::Program),
            Choice::Image(_) if !has_docker => {
                let message = "consul in a container needs a docker engine";
                Err(Error::new(ErrorKind::InvalidInput, message).with_hint(
                    "leave consul_image out of config.toml, or boot with --runtime docker",
                ))
            }
            Choice::Image(image) => Ok(Self::Container(Arc::new(Container::new(context, image)?))),
        }
    }

    /// Has all that it takes come here: for a host that is to become a node.
    ///
    /// # Errors
    /// Those of the image.
    pub(crate) async fn prepare(&self) -> Result<()> {
        match self {
            Self::Program(_) => Ok(()),
            Self::Container(container) => container.prepare().await,
        }
    }

    /// The program, as it is called where it is started.
    pub(super) fn program(&self) -> PathBuf {
        match self {
            Self::Program(program) => program.clone(),
            Self::Container(_) => PathBuf::from("consul"),
        }
    }

    /// Where it answers. A container sees nothing of the folder where the agent itself does.
    pub(super) fn socket(&self, context: &Context) -> PathBuf {
        match self {
            Self::Program(_) => context.paths.consul_socket(),
            Self::Container(_) => container::socket(context),
        }
    }

    /// Starts commands there, in the router's network.
    pub(super) fn spawning(self, router: &Path) -> Spawn {
        let router = router.to_owned();
        match self {
            Self::Program(_) => super::spawn(router),
            Self::Container(container) => container.spawning(router),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_preferred_unless_an_image_is_named() {
        let default = Choice::Image(DEFAULT_IMAGE);
        for (image, named, found, docker, was, wanted) in [
            (
                Some("own:1"),
                true,
                true,
                true,
                false,
                Choice::Image("own:1"),
            ),
            (None, true, false, true, true, Choice::Program),
            (None, false, true, true, false, Choice::Program),
            (None, false, false, true, false, default),
            (None, false, true, true, true, Choice::Image(DEFAULT_IMAGE)),
            (None, false, false, false, true, Choice::Program),
        ] {
            assert_eq!(choose(image, named, found, docker, was), wanted);
        }
    }
}
