//! Changing the labels of containers that are there.

use super::{Program, Rig, name, needs_crashes, spec, started};
use crate::ErrorKind;
use crate::conformance::check::{Check, Verdict, check, ensure, refused, until};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            labels_can_be_changed,
            "inspect and the others show it from then on, as long as the container is there.",
            needs_relabel
        ),
        check!(
            a_changed_label_outlives_the_process,
            "Containers outlive the process that made them;",
            |rig| needs_relabel(rig).or_else(|| needs_crashes(rig))
        ),
    ]
}

fn needs_relabel(rig: &Rig) -> Option<&'static str> {
    (!rig.runtime().capabilities().relabel).then_some("the backend does not change labels")
}

async fn labels_can_be_changed(rig: &Rig) -> Verdict {
    let (runtime, name) = (rig.runtime(), name(0)?);
    let unknown = runtime.set_label(&name, "team", None).await;
    refused("set_label", unknown, &[ErrorKind::NotFound])?;
    let given = spec(rig, 0, Program::Wait)?
        .label("team", "one")
        .label("tier", "front");
    runtime.create(&given).await?;
    runtime.start(&name).await?;
    for _ in 0..2 {
        runtime.set_label(&name, "team", Some("two".into())).await?;
        runtime.set_label(&name, "tier", None).await?;
        let labels = runtime.inspect(&name).await?.spec.labels;
        let wanted = [("team".to_owned(), "two".to_owned())].into();
        ensure!(labels == wanted, "the labels are {labels:?}");
    }
    let found = runtime.inspect(&name).await?;
    let listed = runtime.list().await?;
    ensure!(listed.contains(&found), "{found:?} is listed as {listed:?}");
    let again = runtime.create(&given).await?;
    ensure!(
        again == found,
        "the spec as it was given made {again:?} instead of finding {found:?}"
    );
    runtime.remove(&name).await?;
    let anew = runtime.create(&given).await?.spec.labels;
    ensure!(
        anew == given.labels,
        "a removed container's labels came back: {anew:?}"
    );
    Ok(())
}

async fn a_changed_label_outlives_the_process(rig: &Rig) -> Verdict {
    let container = started(rig, 0, Program::Wait).await?;
    let runtime = rig.runtime();
    runtime
        .set_label(&container.name, "team", Some("two".into()))
        .await?;
    drop(runtime);
    rig.crash().await;
    until(rig.patience(), async || {
        let found = rig.runtime().inspect(&container.name).await?;
        let label = found.spec.labels.get("team").map(String::as_str);
        ensure!(label == Some("two"), "the label is {label:?}");
        Ok(())
    })
    .await
}
