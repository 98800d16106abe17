//! Launching, stopping, resetting, dying.

use std::time::Duration;

use super::{
    Ping, PingFrom, Rig, answers, attached, comes_to_answer, connected, launched, needs_crashes,
    node, peer, told,
};
use crate::conformance::check::{
    Check, INTERRUPTIONS, Verdict, check, ensure, interrupted, refused,
};
use crate::overlay::{Announcement, AttachAddr, Attachment, NetNamespace};
use crate::{ErrorKind, Overlay, Plane};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            what_it_can_do_is_constant,
            "Constant for one backend in one configuration."
        ),
        check!(
            preflight_changes_nothing,
            "Looks for what would make launch fail or break the host, and changes nothing."
        ),
        check!(
            nothing_answers_before_the_launch,
            "Calls before launch and after stop answer Unavailable"
        ),
        check!(
            stop_and_reset_before_the_launch_do_nothing,
            "except launch, stop, reset and capabilities."
        ),
        check!(
            nothing_answers_after_stop,
            "Calls before launch and after stop answer Unavailable"
        ),
        check!(
            an_announcement_is_short,
            "Opaque to everybody else, at most 512 bytes, not secret."
        ),
        check!(
            a_second_launch_changes_nothing,
            "A second call with the same membership mends what differs and answers with the present announcement"
        ),
        check!(
            a_launch_after_a_crash_mends,
            "also after the process died at any moment.",
            needs_crashes
        ),
        check!(
            a_dropped_launch_is_finished_by_the_next,
            "Dropping a call's future at any point leaves nothing behind, or something that the same call finishes."
        ),
        check!(
            a_stopped_node_is_off_and_can_be_launched_again,
            "Leaves the overlay and gives the host back all but what launch finds again cheaply."
        ),
        check!(
            reset_leaves_nothing,
            "and leaves nothing at all behind, whatever state an earlier process left."
        ),
    ]
}

async fn what_it_can_do_is_constant(rig: &Rig) -> Verdict {
    let overlay = rig.overlay(0);
    let before = (overlay.name(), overlay.capabilities());
    launched(rig).await?;
    let after = (overlay.name(), overlay.capabilities());
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

async fn preflight_changes_nothing(rig: &Rig) -> Verdict {
    let before = rig.traces(0).await;
    for _ in 0..2 {
        rig.overlay(0).preflight(node(rig, 0)).await?;
    }
    is_down(rig, &*rig.overlay(0)).await?;
    ensure!(rig.traces(0).await == before, "the host is another");
    Ok(())
}

/// Every call that needs a launched overlay answers that it is not.
async fn is_down(rig: &Rig, overlay: &dyn Overlay) -> Verdict {
    let down = [ErrorKind::Unavailable];
    let other = peer(rig, 1, &Announcement::default());
    refused("connect", overlay.connect(other).await, &down)?;
    refused("forget", overlay.forget(node(rig, 1)).await, &down)?;
    refused("expose", overlay.expose(Plane::Docker).await, &down)?;
    refused("hide", overlay.hide(Plane::Docker).await, &down)?;
    refused("peers", overlay.peers().await, &down)?;
    let limit = Duration::from_millis(100);
    let reached = overlay.wait_reachable(node(rig, 1), limit).await;
    refused("wait_reachable", reached, &down)?;
    if overlay.capabilities().attach {
        let addr = AttachAddr::Application(super::app("10.1.0.5/16")?);
        let container = "w1".parse()?;
        let attachment = Attachment::new(
            "w1".parse()?,
            NetNamespace::Path("/proc/self/ns/none".into()),
            addr,
        );
        refused("attach", overlay.attach(&attachment).await, &down)?;
        refused("detach", overlay.detach(&container, addr).await, &down)?;
        refused("attached", overlay.attached().await, &down)?;
    }
    Ok(())
}

async fn nothing_answers_before_the_launch(rig: &Rig) -> Verdict {
    is_down(rig, &*rig.overlay(0)).await
}

async fn stop_and_reset_before_the_launch_do_nothing(rig: &Rig) -> Verdict {
    for _ in 0..2 {
        rig.overlay(0).stop().await?;
        rig.overlay(0).reset().await?;
    }
    connected(rig).await.map(drop)
}

async fn nothing_answers_after_stop(rig: &Rig) -> Verdict {
    connected(rig).await?;
    for _ in 0..2 {
        rig.overlay(0).stop().await?;
        is_down(rig, &*rig.overlay(0)).await?;
    }
    rig.overlay(1).reset().await?;
    is_down(rig, &*rig.overlay(1)).await
}

async fn an_announcement_is_short(rig: &Rig) -> Verdict {
    for announcement in launched(rig).await? {
        let length = announcement.0.len();
        ensure!(length <= 512, "an announcement has {length} bytes");
    }
    Ok(())
}

async fn a_second_launch_changes_nothing(rig: &Rig) -> Verdict {
    let announcements = connected(rig).await?;
    let overlay = rig.overlay(0);
    let peers = overlay.peers().await?.len();
    let again = overlay.launch(&rig.memberships()[0]).await?;
    ensure!(
        again == announcements[0],
        "a running overlay announced {:?} and then {again:?}",
        announcements[0]
    );
    ensure!(overlay.peers().await?.len() == peers, "it lost peers");
    answers(
        rig,
        PingFrom::Host(1),
        node(rig, 0).overlay(),
        &[Ping::Answered],
    )
    .await
}

async fn a_launch_after_a_crash_mends(rig: &Rig) -> Verdict {
    let mut announcements = connected(rig).await?;
    let attach = super::needs_attach(rig).is_none();
    if attach {
        attached(rig, 0, "w1", "10.1.0.5/16").await?;
    }
    rig.crash(0).await;
    announcements[0] = rig.overlay(0).launch(&rig.memberships()[0]).await?;
    told(rig, &announcements, &[]).await?;
    comes_to_answer(
        rig,
        PingFrom::Host(1),
        node(rig, 0).overlay(),
        &[Ping::Answered],
    )
    .await?;
    if attach {
        let found = rig.overlay(0).attached().await?;
        ensure!(
            found.len() == 1,
            "an earlier process attached one container, and {found:?} are found"
        );
        let (container, addr) = &found[0];
        rig.overlay(0).detach(container, *addr).await?;
        ensure!(
            rig.overlay(0).attached().await?.is_empty(),
            "it can't be detached"
        );
    }
    Ok(())
}

async fn a_dropped_launch_is_finished_by_the_next(rig: &Rig) -> Verdict {
    for polls in INTERRUPTIONS {
        let overlay = rig.overlay(0);
        interrupted(overlay.launch(&rig.memberships()[0]), polls).await;
        connected(rig).await?;
        interrupted(overlay.stop(), polls).await;
        overlay.stop().await?;
        interrupted(overlay.reset(), polls).await;
        overlay.reset().await?;
        is_down(rig, &*overlay).await?;
    }
    Ok(())
}

async fn a_stopped_node_is_off_and_can_be_launched_again(rig: &Rig) -> Verdict {
    let mut announcements = connected(rig).await?;
    for _ in 0..2 {
        rig.overlay(0).stop().await?;
    }
    let off = [Ping::Silent, Ping::Refused];
    comes_to_answer(rig, PingFrom::Host(1), node(rig, 0).overlay(), &off).await?;
    answers(
        rig,
        PingFrom::Host(1),
        node(rig, 2).overlay(),
        &[Ping::Answered],
    )
    .await?;
    announcements[0] = rig.overlay(0).launch(&rig.memberships()[0]).await?;
    told(rig, &announcements, &[]).await?;
    comes_to_answer(
        rig,
        PingFrom::Host(1),
        node(rig, 0).overlay(),
        &[Ping::Answered],
    )
    .await
}

async fn reset_leaves_nothing(rig: &Rig) -> Verdict {
    let before = rig.traces(0).await;
    connected(rig).await?;
    rig.overlay(0).expose(Plane::Docker).await?;
    let attach = super::needs_attach(rig).is_none();
    if attach {
        attached(rig, 0, "w1", "10.1.0.5/16").await?;
    }
    if rig.can_crash() {
        rig.crash(0).await;
    }
    for _ in 0..2 {
        rig.overlay(0).reset().await?;
    }
    let after = rig.traces(0).await;
    ensure!(before == after, "the host was {before:?} and is {after:?}");
    rig.overlay(0).launch(&rig.memberships()[0]).await?;
    if attach {
        let found = rig.overlay(0).attached().await?;
        ensure!(found.is_empty(), "{found:?} were still attached");
    }
    Ok(())
}
