//! Containers: attaching and detaching them, and the routes to them.

use super::{
    Ping, PingFrom, Rig, answers, app, attached, comes_to_answer, connected, container, ip,
    launched, needs_attach, node, peer, told,
};
use crate::ErrorKind;
use crate::addr::PluginBlock;
use crate::conformance::check::{
    Check, INTERRUPTIONS, Verdict, check, ensure, interrupted, refused,
};
use crate::overlay::{AttachAddr, Attachment};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            an_attached_address_works,
            "Gives a container an address; when it returns, the address works inside it. A second call does nothing.",
            needs_attach
        ),
        check!(
            a_detached_address_is_gone,
            "Takes the address from the container, whose namespace may be gone already. A second call does nothing.",
            needs_attach
        ),
        check!(
            a_namespace_that_is_gone_is_not_found,
            "NotFound when the namespace is gone;",
            needs_attach
        ),
        check!(
            the_namespace_of_the_host_is_refused,
            "InvalidInput when it is the host's or a shared one;",
            |rig| {
                // Only known once the rig is asked.
                needs_attach(rig).or(rig
                    .host_namespace(0)
                    .is_none()
                    .then_some("the rig does not tell the host's namespace"))
            }
        ),
        check!(
            an_address_has_one_container,
            "Conflict when another container of this node has the address.",
            needs_attach
        ),
        check!(
            a_container_may_have_several_addresses,
            "What is attached now, also by an earlier process: what reconciling starts from.",
            needs_attach
        ),
        check!(
            dropped_calls_are_finished_by_the_next,
            "Dropping a call's future at any point leaves nothing behind, or something that the same call finishes.",
            needs_attach
        ),
        check!(
            routes_come_only_from_what_peers_hold,
            "Routes to containers come only from PeerSpec::holds and from own attachments.",
            needs_attach
        ),
        check!(
            a_plugin_is_a_system_part,
            "This node's address in a plugin block, with the reach of a system part.",
            needs_attach
        ),
        check!(
            without_attach_it_answers_unsupported,
            "What it can't do answers Unsupported, at once.",
            |rig| {
                let able = rig.overlay(0).capabilities().attach;
                able.then_some("the backend attaches containers")
            }
        ),
    ]
}

fn from(node: usize, container: &Attachment) -> PingFrom<'_> {
    PingFrom::Container(node, container)
}

async fn is_attached(rig: &Rig, at: usize, wanted: &[&Attachment]) -> Verdict {
    let mut found = rig.overlay(at).attached().await?;
    let mut wanted: Vec<_> = wanted
        .iter()
        .map(|one| (one.container.clone(), one.addr))
        .collect();
    found.sort();
    wanted.sort();
    ensure!(
        found == wanted,
        "{found:?} are attached instead of {wanted:?}"
    );
    Ok(())
}

async fn an_attached_address_works(rig: &Rig) -> Verdict {
    launched(rig).await?;
    let a = attached(rig, 0, "a", "10.1.0.5/16").await?;
    let b = attached(rig, 0, "b", "10.1.0.6/16").await?;
    answers(rig, from(0, &a), ip("10.1.0.6"), &[Ping::Answered]).await?;
    for container in [&a, &b] {
        rig.overlay(0).attach(container).await?;
    }
    answers(rig, from(0, &b), ip("10.1.0.5"), &[Ping::Answered]).await?;
    is_attached(rig, 0, &[&a, &b]).await
}

async fn a_detached_address_is_gone(rig: &Rig) -> Verdict {
    launched(rig).await?;
    let a = attached(rig, 0, "a", "10.1.0.5/16").await?;
    let b = attached(rig, 0, "b", "10.1.0.6/16").await?;
    for _ in 0..2 {
        rig.overlay(0).detach(&b.container, b.addr).await?;
    }
    is_attached(rig, 0, &[&a]).await?;
    let gone = [Ping::Silent, Ping::Refused];
    comes_to_answer(rig, from(0, &a), ip("10.1.0.6"), &gone).await?;
    // The address is free for another, and a namespace that is gone is no hindrance.
    let c = attached(rig, 0, "c", "10.1.0.6/16").await?;
    comes_to_answer(rig, from(0, &a), ip("10.1.0.6"), &[Ping::Answered]).await?;
    rig.remove_namespace(0, &c.namespace).await;
    for _ in 0..2 {
        rig.overlay(0).detach(&c.container, c.addr).await?;
    }
    is_attached(rig, 0, &[&a]).await
}

async fn a_namespace_that_is_gone_is_not_found(rig: &Rig) -> Verdict {
    launched(rig).await?;
    let addr = AttachAddr::Application(app("10.1.0.5/16")?);
    let a = container(rig, 0, "a", addr).await?;
    rig.remove_namespace(0, &a.namespace).await;
    let answer = rig.overlay(0).attach(&a).await;
    refused("attach", answer, &[ErrorKind::NotFound])?;
    is_attached(rig, 0, &[]).await
}

async fn the_namespace_of_the_host_is_refused(rig: &Rig) -> Verdict {
    launched(rig).await?;
    let addr = AttachAddr::Application(app("10.1.0.5/16")?);
    if let Some(host) = rig.host_namespace(0) {
        let a = Attachment::new("a".parse()?, host, addr);
        let answer = rig.overlay(0).attach(&a).await;
        refused("attach", answer, &[ErrorKind::InvalidInput])?;
    }
    is_attached(rig, 0, &[]).await
}

async fn an_address_has_one_container(rig: &Rig) -> Verdict {
    launched(rig).await?;
    let a = attached(rig, 0, "a", "10.1.0.5/16").await?;
    let b = container(rig, 0, "b", a.addr).await?;
    let answer = rig.overlay(0).attach(&b).await;
    refused("attach", answer, &[ErrorKind::Conflict])?;
    is_attached(rig, 0, &[&a]).await?;
    // It is the loser that is left without, not the first.
    let c = attached(rig, 0, "c", "10.1.0.6/16").await?;
    answers(rig, from(0, &c), ip("10.1.0.5"), &[Ping::Answered]).await
}

async fn a_container_may_have_several_addresses(rig: &Rig) -> Verdict {
    launched(rig).await?;
    let one = attached(rig, 0, "proxy", "10.1.0.5/16").await?;
    let other = Attachment {
        addr: AttachAddr::Application(app("10.2.0.5/16")?),
        ..one.clone()
    };
    rig.overlay(0).attach(&other).await?;
    is_attached(rig, 0, &[&one, &other]).await?;
    attached(rig, 0, "a", "10.1.0.6/16").await?;
    attached(rig, 0, "b", "10.2.0.6/16").await?;
    answers(rig, from(0, &one), ip("10.1.0.6"), &[Ping::Answered]).await?;
    answers(rig, from(0, &one), ip("10.2.0.6"), &[Ping::Answered]).await?;
    rig.overlay(0).detach(&one.container, one.addr).await?;
    let gone = [Ping::Silent, Ping::Refused];
    comes_to_answer(rig, from(0, &one), ip("10.1.0.6"), &gone).await?;
    answers(rig, from(0, &one), ip("10.2.0.6"), &[Ping::Answered]).await
}

async fn dropped_calls_are_finished_by_the_next(rig: &Rig) -> Verdict {
    launched(rig).await?;
    let other = attached(rig, 0, "other", "10.1.0.6/16").await?;
    let addr = AttachAddr::Application(app("10.1.0.5/16")?);
    let overlay = rig.overlay(0);
    for polls in INTERRUPTIONS {
        let a = container(rig, 0, "a", addr).await?;
        interrupted(overlay.attach(&a), polls).await;
        overlay.attach(&a).await?;
        answers(rig, from(0, &other), ip("10.1.0.5"), &[Ping::Answered]).await?;
        is_attached(rig, 0, &[&a, &other]).await?;
        interrupted(overlay.detach(&a.container, a.addr), polls).await;
        overlay.detach(&a.container, a.addr).await?;
        is_attached(rig, 0, &[&other]).await?;
        // Nothing of the one before is in the next one's way.
        interrupted(overlay.attach(&a), polls).await;
        overlay.detach(&a.container, a.addr).await?;
        is_attached(rig, 0, &[&other]).await?;
        rig.remove_namespace(0, &a.namespace).await;
    }
    Ok(())
}

async fn routes_come_only_from_what_peers_hold(rig: &Rig) -> Verdict {
    let announcements = connected(rig).await?;
    let a = attached(rig, 0, "a", "10.1.0.5/16").await?;
    let b = attached(rig, 1, "b", "10.1.0.6/16").await?;
    let away = [Ping::Refused, Ping::Silent];
    answers(rig, from(0, &a), ip("10.1.0.6"), &away).await?;
    let holds = [(0, app("10.1.0.5/16")?), (1, app("10.1.0.6/16")?)];
    told(rig, &announcements, &holds).await?;
    comes_to_answer(rig, from(0, &a), ip("10.1.0.6"), &[Ping::Answered]).await?;
    comes_to_answer(rig, from(1, &b), ip("10.1.0.5"), &[Ping::Answered]).await?;
    // Another node is said to hold it now: nothing goes to the first any more.
    let spec = peer(rig, 1, &announcements[1]);
    rig.overlay(0).connect(spec).await?;
    let spec = peer(rig, 2, &announcements[2]).holding(vec![app("10.1.0.6/16")?]);
    rig.overlay(0).connect(spec).await?;
    comes_to_answer(rig, from(0, &a), ip("10.1.0.6"), &away).await?;
    told(rig, &announcements, &holds).await?;
    comes_to_answer(rig, from(0, &a), ip("10.1.0.6"), &[Ping::Answered]).await
}

async fn a_plugin_is_a_system_part(rig: &Rig) -> Verdict {
    connected(rig).await?;
    let block = PluginBlock::new(241);
    if let Some(block) = block {
        let plugin = container(rig, 0, "plugin", AttachAddr::Plugin(block)).await?;
        for _ in 0..2 {
            rig.overlay(0).attach(&plugin).await?;
        }
        is_attached(rig, 0, &[&plugin]).await?;
        let here = node(rig, 0).plugin(block);
        comes_to_answer(rig, PingFrom::Host(1), here, &[Ping::Answered]).await?;
        let there = node(rig, 1).overlay();
        comes_to_answer(rig, from(0, &plugin), there, &[Ping::Answered]).await?;
        for _ in 0..2 {
            rig.overlay(0)
                .detach(&plugin.container, plugin.addr)
                .await?;
        }
        is_attached(rig, 0, &[]).await?;
    }
    Ok(())
}

async fn without_attach_it_answers_unsupported(rig: &Rig) -> Verdict {
    use crate::overlay::NetNamespace;
    launched(rig).await?;
    let unsupported = [ErrorKind::Unsupported];
    let overlay = rig.overlay(0);
    let addr = AttachAddr::Application(app("10.1.0.5/16")?);
    let namespace = NetNamespace::Path("/proc/self/ns/net".into());
    let a = Attachment::new("a".parse()?, namespace, addr);
    refused("attach", overlay.attach(&a).await, &unsupported)?;
    refused(
        "detach",
        overlay.detach(&a.container, addr).await,
        &unsupported,
    )?;
    refused("attached", overlay.attached().await, &unsupported).map(drop)
}
