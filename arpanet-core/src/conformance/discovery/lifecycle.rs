//! Starting, stopping, leaving, dying and coming back.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Rig, Told, comes_to_find, finds, instance, needs_cuts, node, sees, service, start, started,
};
use crate::conformance::check::{
    Check, INTERRUPTIONS, Verdict, check, ensure, interrupted, refused, until,
};
use crate::discovery::{Health, MemberState, Selector};
use crate::{Discovery, ErrorKind};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            what_it_can_do_is_constant,
            "Constant for one backend in one configuration."
        ),
        check!(
            nothing_answers_before_the_start,
            "Calls before start and after stop or leave answer Unavailable"
        ),
        check!(
            stop_and_leave_before_the_start_do_nothing,
            "except start, stop, leave and capabilities."
        ),
        check!(
            nothing_answers_after_stop_and_leave,
            "after stop or leave answer Unavailable"
        ),
        check!(
            a_started_node_answers,
            "Returns when this node's own catalogue answers"
        ),
        check!(
            a_started_node_is_filled,
            "where others are in the roster and reachable, has been filled from one of them."
        ),
        check!(
            a_second_start_does_nothing,
            "A second call with the same membership does nothing."
        ),
        check!(
            a_dropped_start_is_finished_by_the_next,
            "Dropping a call's future at any point leaves nothing behind, or something that the same call finishes."
        ),
        check!(
            a_dead_node_is_suspended,
            "When it is out of reach they are suspended, not forgotten"
        ),
        check!(
            a_dead_node_that_returns_is_back,
            "and are back at once when it returns"
        ),
        check!(
            a_restarted_node_loses_what_it_does_not_register_again,
            "A node that restarts brings what it registers anew and loses what it does not"
        ),
        check!(
            a_cut_node_is_suspended_and_back_by_itself,
            "When it is out of reach they are suspended, not forgotten, and are back at once when it returns",
            needs_cuts
        ),
        check!(
            what_happens_during_a_cut_is_known_after_it,
            "Returns when all living members know, or did not confirm in time.",
            needs_cuts
        ),
        check!(
            a_node_that_leaves_is_gone_everywhere,
            "Takes this node out in order: its instances and records are gone everywhere."
        ),
        check!(
            leaving_gives_up_telling_others,
            "Gives up telling others after limit, and that is no error."
        ),
        check!(
            a_stopped_node_comes_back,
            "Stops without a word, as a crash would, so that the node comes back as it was."
        ),
    ]
}

async fn what_it_can_do_is_constant(rig: &Rig) -> Verdict {
    let discovery = rig.discovery(0);
    let before = (discovery.name(), discovery.capabilities());
    started(rig).await?;
    let after = (discovery.name(), discovery.capabilities());
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

/// Every call that needs a running backend answers that it does not run.
async fn is_down(rig: &Rig, discovery: &dyn Discovery) -> Verdict {
    let down = [ErrorKind::Unavailable];
    let instance = instance(rig, 0, "web")?;
    refused(
        "register",
        discovery.register(instance.clone()).await,
        &down,
    )?;
    refused(
        "deregister",
        discovery.deregister(&instance.id).await,
        &down,
    )?;
    refused("lookup", discovery.lookup(&service("web")?).await, &down)?;
    refused("services", discovery.services().await, &down)?;
    refused("members", discovery.members().await, &down)?;
    refused("watch", discovery.watch(Selector::All).await, &down)?;
    refused("watch_members", discovery.watch_members().await, &down)?;
    refused("forget", discovery.forget(node(rig, 1)).await, &down)?;
    if discovery.capabilities().records {
        let value = Bytes::from_static(b"value");
        refused("publish", discovery.publish("key", value).await, &down)?;
        refused("retract", discovery.retract("key").await, &down)?;
        refused("watch_records", discovery.watch_records("").await, &down)?;
    }
    Ok(())
}

async fn nothing_answers_before_the_start(rig: &Rig) -> Verdict {
    is_down(rig, &*rig.discovery(0)).await
}

async fn stop_and_leave_before_the_start_do_nothing(rig: &Rig) -> Verdict {
    let discovery = rig.discovery(0);
    for _ in 0..2 {
        discovery.stop().await?;
        discovery.leave(Duration::from_secs(1)).await?;
    }
    started(rig).await
}

async fn nothing_answers_after_stop_and_leave(rig: &Rig) -> Verdict {
    started(rig).await?;
    let discovery = rig.discovery(0);
    for _ in 0..2 {
        discovery.stop().await?;
        is_down(rig, &*discovery).await?;
    }
    let discovery = rig.discovery(1);
    for _ in 0..2 {
        discovery.leave(Duration::from_secs(2)).await?;
        is_down(rig, &*discovery).await?;
    }
    Ok(())
}

async fn a_started_node_answers(rig: &Rig) -> Verdict {
    let membership = &rig.memberships()[0];
    start(rig, 0).await?;
    sees(rig, 0, 0, MemberState::Alive).await?;
    let members = rig.discovery(0).members().await?;
    let me = members.iter().find(|member| member.node == node(rig, 0));
    ensure!(
        me.is_some_and(|me| (&me.name, me.role) == (&membership.me.name, membership.me.role)),
        "the node sees itself as {me:?}"
    );
    finds(rig, 0, "web", &[]).await
}

async fn a_started_node_is_filled(rig: &Rig) -> Verdict {
    let web = instance(rig, 0, "web")?;
    start(rig, 0).await?;
    rig.discovery(0).register(web.clone()).await?;
    for newcomer in 1..rig.memberships().len() {
        start(rig, newcomer).await?;
        finds(rig, newcomer, "web", &[&web]).await?;
    }
    Ok(())
}

async fn a_second_start_does_nothing(rig: &Rig) -> Verdict {
    started(rig).await?;
    let web = instance(rig, 0, "web")?;
    rig.discovery(0).register(web.clone()).await?;
    comes_to_find(rig, 1, "web", &[&web]).await?;
    let mut told = Told::by(rig.discovery(1).watch(Selector::All).await?).await?;
    start(rig, 0).await?;
    finds(rig, 0, "web", &[&web]).await?;
    // What happens afterwards shows that nothing had happened before.
    let other = instance(rig, 0, "other")?;
    rig.discovery(0).register(other.clone()).await?;
    told.comes_to_health(rig, &other, Some(Health::Passing))
        .await?;
    ensure!(told.changes == 1, "the watch told {} changes", told.changes);
    finds(rig, 1, "web", &[&web]).await
}

async fn a_dropped_start_is_finished_by_the_next(rig: &Rig) -> Verdict {
    for node in 1..rig.memberships().len() {
        start(rig, node).await?;
    }
    for polls in INTERRUPTIONS {
        if let Some(ended) = interrupted(start(rig, 0), polls).await {
            ended?;
        }
        start(rig, 0).await?;
        let web = instance(rig, 0, "web")?;
        rig.discovery(0).register(web.clone()).await?;
        comes_to_find(rig, 1, "web", &[&web]).await?;
        rig.discovery(0).stop().await?;
        interrupted(rig.discovery(0).stop(), polls).await;
        rig.discovery(0).stop().await?;
    }
    Ok(())
}

async fn a_dead_node_is_suspended(rig: &Rig) -> Verdict {
    started(rig).await?;
    let (web, other) = (instance(rig, 0, "web")?, instance(rig, 1, "web")?);
    rig.discovery(0).register(web.clone()).await?;
    rig.discovery(1).register(other.clone()).await?;
    rig.kill(0).await;
    for observer in 1..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &[&other]).await?;
        let mut told = Told::by(rig.discovery(observer).watch(Selector::All).await?).await?;
        told.comes_to_health(rig, &web, Some(Health::Suspended))
            .await?;
        until(rig.patience(), async || {
            sees(rig, observer, 0, MemberState::Down).await
        })
        .await?;
    }
    Ok(())
}

async fn a_dead_node_that_returns_is_back(rig: &Rig) -> Verdict {
    started(rig).await?;
    let web = instance(rig, 0, "web")?;
    rig.discovery(0).register(web.clone()).await?;
    rig.kill(0).await;
    for observer in 1..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &[]).await?;
    }
    rig.restart(0).await;
    start(rig, 0).await?;
    rig.discovery(0).register(web.clone()).await?;
    for observer in 0..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &[&web]).await?;
        until(rig.patience(), async || {
            sees(rig, observer, 0, MemberState::Alive).await
        })
        .await?;
    }
    Ok(())
}

async fn a_restarted_node_loses_what_it_does_not_register_again(rig: &Rig) -> Verdict {
    started(rig).await?;
    let (kept, lost) = (instance(rig, 0, "kept")?, instance(rig, 0, "lost")?);
    rig.discovery(0).register(kept.clone()).await?;
    rig.discovery(0).register(lost.clone()).await?;
    comes_to_find(rig, 1, "lost", &[&lost]).await?;
    let mut told = Told::by(rig.discovery(1).watch(Selector::All).await?).await?;
    rig.kill(0).await;
    comes_to_find(rig, 1, "lost", &[]).await?;
    rig.restart(0).await;
    start(rig, 0).await?;
    rig.discovery(0).register(kept.clone()).await?;
    told.comes_to_health(rig, &kept, Some(Health::Passing))
        .await?;
    told.comes_to_health(rig, &lost, None).await?;
    for observer in 0..rig.memberships().len() {
        comes_to_find(rig, observer, "lost", &[]).await?;
        comes_to_find(rig, observer, "kept", &[&kept]).await?;
    }
    Ok(())
}

async fn a_cut_node_is_suspended_and_back_by_itself(rig: &Rig) -> Verdict {
    started(rig).await?;
    let (web, other) = (instance(rig, 0, "web")?, instance(rig, 1, "web")?);
    rig.discovery(0).register(web.clone()).await?;
    rig.discovery(1).register(other.clone()).await?;
    let both = [&web, &other];
    for observer in 0..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &both).await?;
    }
    rig.cut(0).await;
    comes_to_find(rig, 0, "web", &[&web]).await?;
    for observer in 1..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &[&other]).await?;
    }
    rig.heal(0).await;
    for observer in 0..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &both).await?;
    }
    Ok(())
}

async fn what_happens_during_a_cut_is_known_after_it(rig: &Rig) -> Verdict {
    started(rig).await?;
    let gone = instance(rig, 0, "gone")?;
    rig.discovery(0).register(gone.clone()).await?;
    comes_to_find(rig, 1, "gone", &[&gone]).await?;
    rig.cut(0).await;
    let (here, there) = (instance(rig, 0, "here")?, instance(rig, 1, "there")?);
    rig.discovery(0).register(here.clone()).await?;
    rig.discovery(0).deregister(&gone.id).await?;
    rig.discovery(1).register(there.clone()).await?;
    rig.heal(0).await;
    for observer in 0..rig.memberships().len() {
        comes_to_find(rig, observer, "here", &[&here]).await?;
        comes_to_find(rig, observer, "there", &[&there]).await?;
        comes_to_find(rig, observer, "gone", &[]).await?;
    }
    Ok(())
}

async fn a_node_that_leaves_is_gone_everywhere(rig: &Rig) -> Verdict {
    started(rig).await?;
    let web = instance(rig, 0, "web")?;
    rig.discovery(0).register(web.clone()).await?;
    comes_to_find(rig, 1, "web", &[&web]).await?;
    let mut told = Told::by(rig.discovery(1).watch(Selector::All).await?).await?;
    rig.discovery(0).leave(Duration::from_secs(5)).await?;
    told.comes_to_health(rig, &web, None).await?;
    for observer in 1..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &[]).await?;
        until(rig.patience(), async || {
            let members = rig.discovery(observer).members().await?;
            let state = members.iter().find(|member| member.node == node(rig, 0));
            ensure!(
                state.is_none_or(|member| member.state == MemberState::Down),
                "node {observer} still takes the one that left for {state:?}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn leaving_gives_up_telling_others(rig: &Rig) -> Verdict {
    started(rig).await?;
    rig.discovery(0).register(instance(rig, 0, "web")?).await?;
    for other in 1..rig.memberships().len() {
        rig.kill(other).await;
    }
    let limit = Duration::from_secs(1);
    let left = tokio::time::timeout(limit + rig.patience(), rig.discovery(0).leave(limit)).await;
    ensure!(
        left.is_ok(),
        "nobody was there to be told, and it went on telling"
    );
    left.unwrap_or(Ok(()))?;
    Ok(())
}

async fn a_stopped_node_comes_back(rig: &Rig) -> Verdict {
    started(rig).await?;
    let web = instance(rig, 0, "web")?;
    rig.discovery(0).register(web.clone()).await?;
    comes_to_find(rig, 1, "web", &[&web]).await?;
    let mut told = Told::by(rig.discovery(1).watch(Selector::All).await?).await?;
    rig.discovery(0).stop().await?;
    rig.discovery(0).stop().await?;
    told.comes_to_health(rig, &web, Some(Health::Suspended))
        .await?;
    start(rig, 0).await?;
    rig.discovery(0).register(web.clone()).await?;
    told.comes_to_health(rig, &web, Some(Health::Passing))
        .await?;
    comes_to_find(rig, 0, "web", &[&web]).await
}
