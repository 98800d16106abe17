//! Watches: the whole first, then changes.

use super::{Rig, Told, comes_to_find, instance, node, service, start, started};
use crate::conformance::check::{Check, Verdict, check, ensure, until};
use crate::discovery::{Health, Instance, MemberState, Selector};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            a_watch_begins_with_all_there_is,
            "Watches instances of any health: first a snapshot, then changes"
        ),
        check!(
            a_watch_of_one_service_tells_of_no_other,
            "The instances of one service, whatever their health."
        ),
        check!(
            a_slow_reader_gets_changes_merged,
            "first a snapshot, then changes"
        ),
        check!(members_are_watched, "Watches members."),
    ]
}

async fn a_watch_begins_with_all_there_is(rig: &Rig) -> Verdict {
    started(rig).await?;
    let sick = instance(rig, 1, "web")?.health(Health::Critical);
    rig.discovery(1).register(sick.clone()).await?;
    until(rig.patience(), async || {
        let told = Told::by(rig.discovery(0).watch(Selector::All).await?).await?;
        let found: Vec<&Instance> = told.set.values().collect();
        ensure!(found == [&sick], "the snapshot has {found:?}");
        Ok(())
    })
    .await?;
    for observer in 0..2 {
        let mut told = Told::by(rig.discovery(observer).watch(Selector::All).await?).await?;
        let well = sick.clone().health(Health::Passing);
        rig.discovery(1).register(well.clone()).await?;
        told.comes_to_health(rig, &sick, Some(Health::Passing))
            .await?;
        rig.discovery(1).deregister(&sick.id).await?;
        told.comes_to_health(rig, &sick, None).await?;
        rig.discovery(1).register(sick.clone()).await?;
        told.comes_to_health(rig, &sick, Some(Health::Critical))
            .await?;
    }
    Ok(())
}

async fn a_watch_of_one_service_tells_of_no_other(rig: &Rig) -> Verdict {
    started(rig).await?;
    let (web, db) = (instance(rig, 1, "web")?, instance(rig, 1, "db")?);
    rig.discovery(1).register(db.clone()).await?;
    comes_to_find(rig, 0, "db", &[&db]).await?;
    let selector = Selector::Service(service("web")?);
    let mut told = Told::by(rig.discovery(0).watch(selector).await?).await?;
    ensure!(told.set.is_empty(), "the snapshot has {:?}", told.set);
    rig.discovery(1).deregister(&db.id).await?;
    rig.discovery(1).register(db.clone()).await?;
    rig.discovery(1).register(web.clone()).await?;
    told.comes_to_health(rig, &web, Some(Health::Passing))
        .await?;
    ensure!(told.set.len() == 1, "it told of {:?}", told.set);
    // An instance that goes over to another service is gone for this watch.
    let moved = Instance {
        service: service("db")?,
        ..web.clone()
    };
    rig.discovery(1).register(moved).await?;
    told.comes_to_health(rig, &web, None).await
}

async fn a_slow_reader_gets_changes_merged(rig: &Rig) -> Verdict {
    const ROUNDS: u16 = 50;
    started(rig).await?;
    let web = instance(rig, 1, "web")?;
    let mut told = Told::by(rig.discovery(0).watch(Selector::All).await?).await?;
    let mut last = web.clone();
    for port in 1..=ROUNDS {
        last = Instance {
            port,
            ..web.clone()
        };
        rig.discovery(1).register(last.clone()).await?;
    }
    // Not until now does the reader read.
    comes_to_find(rig, 0, "web", &[&last]).await?;
    told.now();
    ensure!(
        told.set.get(&web.id) == Some(&last),
        "the watch tells {:?} at last",
        told.set
    );
    ensure!(
        told.changes <= 2,
        "a slow reader got {} of {ROUNDS} changes of one instance",
        told.changes
    );
    Ok(())
}

async fn members_are_watched(rig: &Rig) -> Verdict {
    started(rig).await?;
    let mut told = Told::by(rig.discovery(0).watch_members().await?).await?;
    ensure!(
        told.set.len() == rig.memberships().len(),
        "the snapshot has {:?}",
        told.set
    );
    let dead = node(rig, 1);
    let mut becomes = async |state: MemberState| {
        until(rig.patience(), async || {
            let found = told.now().get(&dead).map(|member| member.state);
            ensure!(
                found == Some(state),
                "the watch tells {found:?} instead of {state}"
            );
            Ok(())
        })
        .await
    };
    becomes(MemberState::Alive).await?;
    rig.kill(1).await;
    becomes(MemberState::Down).await?;
    rig.restart(1).await;
    start(rig, 1).await?;
    becomes(MemberState::Alive).await
}
