//! Making images present.

use std::collections::BTreeMap;

use super::{Program, Rig, name, spec};
use crate::ErrorKind;
use crate::conformance::check::{Check, INTERRUPTIONS, Verdict, check, ensure, refused};
use crate::runtime::{PullPolicy, PullProgress, PullRequest, PulledImage};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            an_image_that_is_present_is_not_pulled_again,
            "An image that is present is not pulled again, unless its registry is asked always.",
            |rig| {
                let able = rig.runtime().capabilities().images && rig.image().is_some();
                (!able).then_some("the backend or the rig has no images")
            }
        ),
        check!(
            a_pull_tells_its_progress_and_its_end,
            "Begins to make an image present; how far it is and how it ends is told by the Pull.",
            needs_registry
        ),
        check!(
            a_pull_that_is_given_up_is_finished_by_the_next,
            "Dropping the pull gives it up: what has come by then may stay, and the same call finishes it.",
            needs_registry
        ),
        check!(
            an_image_that_is_nowhere_is_not_found,
            "NotFound for an image that its registry does not have,",
            needs_registry
        ),
        check!(
            what_is_never_to_be_pulled_is_not,
            "or that is not here and never to be pulled;",
            needs_registry
        ),
        check!(
            a_container_is_made_by_the_policy_of_its_spec,
            "Otherwise its image is made present first, as the spec says, by nobody's credentials.",
            needs_registry
        ),
        check!(
            what_names_no_image_is_refused,
            "InvalidInput for what can't be an image's name.",
            needs_registry
        ),
    ]
}

fn needs_registry(rig: &Rig) -> Option<&'static str> {
    let able = rig.runtime().capabilities().images
        && rig.remote_image().is_some()
        && rig.unknown_image().is_some();
    (!able).then_some("the backend has no images, or the rig no registry")
}

fn remote(rig: &Rig, policy: PullPolicy) -> PullRequest {
    PullRequest::new(rig.remote_image().unwrap_or_default()).policy(policy)
}

async fn pulled(rig: &Rig, request: &PullRequest) -> crate::Result<PulledImage> {
    rig.runtime().pull(request).await?.done().await
}

/// All that a pull tells of its layers: what was told last of each.
async fn followed(
    rig: &Rig,
    request: &PullRequest,
) -> Verdict<(BTreeMap<String, PullProgress>, PulledImage)> {
    let mut pull = rig.runtime().pull(request).await?;
    let mut last = BTreeMap::new();
    while let Some(progress) = pull.next().await {
        let within = progress.total.is_none_or(|total| progress.current <= total);
        ensure!(within, "{progress:?} is more than there is");
        last.insert(progress.layer.clone(), progress);
    }
    Ok((last, pull.done().await?))
}

async fn an_image_that_is_present_is_not_pulled_again(rig: &Rig) -> Verdict {
    let request = PullRequest::new(rig.image().unwrap_or_default());
    let first = pulled(rig, &request).await?;
    let (layers, again) = followed(rig, &request).await?;
    ensure!(
        first.id == again.id && !again.is_new,
        "{first:?} became {again:?}"
    );
    ensure!(layers.is_empty(), "{layers:?} were pulled");
    if rig.remote_image().is_some() {
        let always = remote(rig, PullPolicy::Always);
        pulled(rig, &always).await?;
        let again = pulled(rig, &always).await?;
        ensure!(!again.is_new, "the same image is told to be another one");
    }
    Ok(())
}

async fn a_pull_tells_its_progress_and_its_end(rig: &Rig) -> Verdict {
    let request = remote(rig, PullPolicy::Missing);
    let (layers, image) = followed(rig, &request).await?;
    ensure!(!layers.is_empty(), "nothing was told of any layer");
    let open: Vec<&PullProgress> = layers
        .values()
        .filter(|layer| !layer.phase.is_final())
        .collect();
    ensure!(open.is_empty(), "it ended well with {open:?}");
    ensure!(
        image.is_new && !image.id.is_empty() && image.image == request.image,
        "it ended with {image:?}"
    );
    let here = pulled(rig, &remote(rig, PullPolicy::Never)).await?;
    ensure!(here.id == image.id, "{image:?} became {here:?}");
    Ok(())
}

async fn a_pull_that_is_given_up_is_finished_by_the_next(rig: &Rig) -> Verdict {
    let request = remote(rig, PullPolicy::Missing);
    for told in INTERRUPTIONS {
        let mut pull = rig.runtime().pull(&request).await?;
        for _ in 0..told {
            pull.next().await;
        }
    }
    let image = pulled(rig, &request).await?;
    let here = pulled(rig, &remote(rig, PullPolicy::Never)).await?;
    ensure!(here.id == image.id, "{image:?} became {here:?}");
    Ok(())
}

async fn an_image_that_is_nowhere_is_not_found(rig: &Rig) -> Verdict {
    let unknown = rig.unknown_image().unwrap_or_default();
    for policy in [PullPolicy::Missing, PullPolicy::Always, PullPolicy::Never] {
        let request = PullRequest::new(&unknown).policy(policy);
        let mut pull = rig.runtime().pull(&request).await?;
        while pull.next().await.is_some() {}
        let what = format!("a pull of {unknown} when {policy}");
        refused(&what, pull.done().await, &[ErrorKind::NotFound])?;
    }
    Ok(())
}

async fn what_is_never_to_be_pulled_is_not(rig: &Rig) -> Verdict {
    let never = remote(rig, PullPolicy::Never);
    for _ in 0..2 {
        let answer = pulled(rig, &never).await;
        refused("a pull that is never to be", answer, &[ErrorKind::NotFound])?;
    }
    pulled(rig, &remote(rig, PullPolicy::Missing)).await?;
    let here = pulled(rig, &never).await?;
    ensure!(!here.is_new, "it was pulled: {here:?}");
    Ok(())
}

async fn a_container_is_made_by_the_policy_of_its_spec(rig: &Rig) -> Verdict {
    let (runtime, not_found) = (rig.runtime(), [ErrorKind::NotFound]);
    let mut spec = spec(rig, 0, Program::Wait)?;
    spec.image = rig.remote_image();
    let never = spec.clone().pull(PullPolicy::Never);
    refused("create", runtime.create(&never).await, &not_found)?;
    let mut unknown = spec.clone();
    unknown.image = rig.unknown_image();
    refused("create", runtime.create(&unknown).await, &not_found)?;
    let left = runtime.list().await?;
    ensure!(left.is_empty(), "{left:?} were left behind");
    for policy in [PullPolicy::Missing, PullPolicy::Always, PullPolicy::Never] {
        let spec = spec.clone().pull(policy);
        let made = runtime.create(&spec).await?;
        ensure!(made.spec == spec, "its spec is {:?}", made.spec);
        let again = runtime.create(&spec).await?;
        ensure!(made.id == again.id, "{} became {}", made.id, again.id);
        runtime.remove(&name(0)?).await?;
    }
    Ok(())
}

async fn what_names_no_image_is_refused(rig: &Rig) -> Verdict {
    let answer = rig.runtime().pull(&PullRequest::new("")).await;
    refused("a pull of nothing", answer, &[ErrorKind::InvalidInput])?;
    Ok(())
}
