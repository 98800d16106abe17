//! Watching containers.

use super::{Program, Rig, name, needs_crashes, spec};
use crate::ContainerName;
use crate::conformance::check::{Broken, Check, Verdict, check, ensure, until};
use crate::runtime::{Container, ContainerState};
use crate::watch::{Change, Watch};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            a_watch_begins_with_all_there_is,
            "All containers as they change: first a snapshot;"
        ),
        check!(
            every_state_is_told,
            "All containers as they change: first a snapshot;"
        ),
        check!(
            a_new_process_is_told_all_again,
            "a snapshot again, so no event is lost for good.",
            needs_crashes
        ),
    ]
}

type Containers = Watch<ContainerName, Container>;

async fn snapshot(watch: &mut Containers) -> Verdict<Vec<Container>> {
    match watch.next().await {
        Some(Change::Snapshot(set)) => Ok(set.into_values().collect()),
        _ => Err(Broken::new(
            "a watch began with something else than a snapshot",
        )),
    }
}

/// Waits until the watch has told that a container is in this state, or gone.
async fn comes_to_tell(
    rig: &Rig,
    watch: &mut Containers,
    name: &ContainerName,
    wanted: Option<ContainerState>,
) -> Verdict {
    let mut last = "nothing".to_owned();
    until(rig.patience(), async || {
        while let Some(Some(change)) = watch.try_next() {
            let state = match &change {
                Change::Upsert(at, container) if at == name => Some(Some(container.state)),
                Change::Removed(at) if at == name => Some(None),
                Change::Snapshot(set) => Some(set.get(name).map(|container| container.state)),
                _ => None,
            };
            last = format!("{change:?}");
            if state == Some(wanted) {
                return Ok(());
            }
        }
        Err(Broken::new(format!(
            "{name} was to be {wanted:?}, and {last} was told last"
        )))
    })
    .await
}

async fn a_watch_begins_with_all_there_is(rig: &Rig) -> Verdict {
    let mut watch = rig.runtime().watch().await?;
    let found = snapshot(&mut watch).await?;
    ensure!(found.is_empty(), "the snapshot of nothing has {found:?}");
    rig.runtime().create(&spec(rig, 0, Program::Wait)?).await?;
    rig.runtime().create(&spec(rig, 1, Program::Wait)?).await?;
    rig.runtime().start(&name(1)?).await?;
    until(rig.patience(), async || {
        let found = snapshot(&mut rig.runtime().watch().await?).await?;
        let listed = rig.runtime().list().await?;
        ensure!(
            found == listed,
            "the snapshot has {found:?}, and {listed:?} are listed"
        );
        Ok(())
    })
    .await
}

async fn every_state_is_told(rig: &Rig) -> Verdict {
    let mut watch = rig.runtime().watch().await?;
    snapshot(&mut watch).await?;
    let name = name(0)?;
    rig.runtime().create(&spec(rig, 0, Program::Wait)?).await?;
    comes_to_tell(rig, &mut watch, &name, Some(ContainerState::Created)).await?;
    rig.runtime().start(&name).await?;
    comes_to_tell(rig, &mut watch, &name, Some(ContainerState::Running)).await?;
    let code = rig.runtime().stop(&name).await?;
    comes_to_tell(
        rig,
        &mut watch,
        &name,
        Some(ContainerState::Exited { code }),
    )
    .await?;
    rig.runtime().remove(&name).await?;
    comes_to_tell(rig, &mut watch, &name, None).await?;
    // One that ends by itself is told too.
    super::started(rig, 0, Program::Exit(7)).await?;
    let ended = ContainerState::Exited { code: 7 };
    comes_to_tell(rig, &mut watch, &name, Some(ended)).await
}

async fn a_new_process_is_told_all_again(rig: &Rig) -> Verdict {
    super::started(rig, 0, Program::Wait).await?;
    rig.crash().await;
    let mut watch = rig.runtime().watch().await?;
    let name = name(0)?;
    comes_to_tell(rig, &mut watch, &name, Some(ContainerState::Running)).await?;
    let code = rig.runtime().stop(&name).await?;
    comes_to_tell(
        rig,
        &mut watch,
        &name,
        Some(ContainerState::Exited { code }),
    )
    .await
}
