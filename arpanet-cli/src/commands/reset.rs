//! `arpanet2 reset`

use std::path::Path;

use arpanet_core::{Error, ErrorKind, Result};

use super::{Context, require_root, setup, stop};
use crate::agent::api::Ending;
use crate::agent::{consul, lock, network_driver, overlay, stack};
use crate::output::say;

pub(crate) async fn run(context: &Context) -> Result<()> {
    require_root("give a node up")?;
    if context.agent()?.is_running().await {
        stop::end(context, Ending::Reset, "giving the node up").await?;
    }
    // Whatever is left, by an agent that died or by one that could not finish.
    let _lock = lock::acquire(&context.paths)?;
    network_driver::clean(context).await?;
    arpanet_consul::agent::end(&context.paths.consul()).await?;
    consul::container::clean(context).await?;
    stack::clean_resolvers(context).await?;
    overlay::clean(context).await?;
    if setup::restore_docker()? {
        say("docker's settings are as before; restart the engine for it to take them over");
    }
    for folder in [context.paths.state(), context.paths.run()] {
        remove(folder).map_err(|source| {
            Error::new(
                ErrorKind::Internal,
                format!("{} can't be removed", folder.display()),
            )
            .with_source(source)
        })?;
    }
    Ok(())
}

/// Removes a folder with all that is in it. One that something is mounted on is emptied and stays: it is not ours to unmount.
fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
            let is_empty = std::fs::read_dir(folder)?.next().is_none();
            if is_empty { Ok(()) } else { Err(error) }
        }
        removed => removed,
    }
}
