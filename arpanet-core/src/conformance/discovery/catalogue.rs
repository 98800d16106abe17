//! Instances: registering, looking up, services, members.

use super::{Rig, Told, comes_to_find, finds, instance, node, service, started};
use crate::ErrorKind;
use crate::conformance::check::{
    Check, INTERRUPTIONS, Verdict, check, ensure, interrupted, refused, until,
};
use crate::discovery::{Health, Instance, Selector, ServiceSummary};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            those_who_confirmed_know_at_once,
            "Returns when all living members know, or did not confirm in time."
        ),
        check!(
            an_instance_travels_whole,
            "Puts an instance into the catalogue"
        ),
        check!(
            registering_again_replaces,
            "or replaces the one with its id."
        ),
        check!(
            telling_the_same_again_tells_nobody,
            "Telling the same again is cheap."
        ),
        check!(
            an_instance_of_another_node_is_refused,
            "InvalidInput for an instance of another node."
        ),
        check!(
            what_is_deregistered_is_gone_everywhere,
            "Takes an instance of this node out of the catalogue. A second call does nothing."
        ),
        check!(
            dropped_calls_are_finished_by_the_next,
            "Dropping a call's future at any point leaves nothing behind, or something that the same call finishes."
        ),
        check!(
            lookups_are_sorted_and_only_of_what_gets_traffic,
            "The instances of a service that get traffic, sorted by id; an unknown service has none."
        ),
        check!(
            services_are_counted_and_sorted,
            "All services, sorted by name."
        ),
        check!(
            members_are_sorted_and_complete,
            "All members, this node included, sorted by address."
        ),
    ]
}

async fn those_who_confirmed_know_at_once(rig: &Rig) -> Verdict {
    started(rig).await?;
    for round in 0..5 {
        let name = format!("web{round}");
        let web = instance(rig, round % 3, &name)?;
        let spread = rig.discovery(round % 3).register(web.clone()).await?;
        for observer in 0..rig.memberships().len() {
            if !spread.unconfirmed.contains(&node(rig, observer)) {
                finds(rig, observer, &name, &[&web]).await?;
            }
        }
        for observer in 0..rig.memberships().len() {
            comes_to_find(rig, observer, &name, &[&web]).await?;
        }
    }
    Ok(())
}

async fn an_instance_travels_whole(rig: &Rig) -> Verdict {
    started(rig).await?;
    let whole = instance(rig, 0, "web")?
        .in_net(Some("10.1.0.0/16".parse()?))
        .tagged(["blue".parse()?, "v2".parse()?]);
    rig.discovery(0).register(whole.clone()).await?;
    comes_to_find(rig, 1, "web", &[&whole]).await
}

async fn registering_again_replaces(rig: &Rig) -> Verdict {
    started(rig).await?;
    let before = instance(rig, 0, "web")?;
    let after = Instance {
        port: 8080,
        ..before.clone()
    };
    rig.discovery(0).register(before).await?;
    rig.discovery(0).register(after.clone()).await?;
    for observer in 0..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &[&after]).await?;
    }
    Ok(())
}

async fn telling_the_same_again_tells_nobody(rig: &Rig) -> Verdict {
    started(rig).await?;
    let (web, last) = (instance(rig, 0, "web")?, instance(rig, 0, "last")?);
    rig.discovery(0).register(web.clone()).await?;
    comes_to_find(rig, 1, "web", &[&web]).await?;
    let mut told = Told::by(rig.discovery(1).watch(Selector::All).await?).await?;
    for _ in 0..3 {
        rig.discovery(0).register(web.clone()).await?;
    }
    rig.discovery(0).register(last.clone()).await?;
    told.comes_to_health(rig, &last, Some(Health::Passing))
        .await?;
    ensure!(
        told.changes == 1,
        "the watch told {} changes instead of one",
        told.changes
    );
    Ok(())
}

async fn an_instance_of_another_node_is_refused(rig: &Rig) -> Verdict {
    started(rig).await?;
    let web = instance(rig, 1, "web")?;
    let answer = rig.discovery(0).register(web).await;
    refused("register", answer, &[ErrorKind::InvalidInput])?;
    finds(rig, 0, "web", &[]).await
}

async fn what_is_deregistered_is_gone_everywhere(rig: &Rig) -> Verdict {
    started(rig).await?;
    let (web, kept) = (instance(rig, 0, "web")?, instance(rig, 0, "kept")?);
    rig.discovery(0).register(web.clone()).await?;
    rig.discovery(0).register(kept.clone()).await?;
    comes_to_find(rig, 1, "web", &[&web]).await?;
    for _ in 0..2 {
        rig.discovery(0).deregister(&web.id).await?;
    }
    rig.discovery(0).deregister(&"never-there".parse()?).await?;
    for observer in 0..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &[]).await?;
        comes_to_find(rig, observer, "kept", &[&kept]).await?;
    }
    Ok(())
}

async fn dropped_calls_are_finished_by_the_next(rig: &Rig) -> Verdict {
    started(rig).await?;
    let discovery = rig.discovery(0);
    for polls in INTERRUPTIONS {
        let name = format!("web{polls}");
        let web = instance(rig, 0, &name)?;
        interrupted(discovery.register(web.clone()), polls).await;
        discovery.register(web.clone()).await?;
        for observer in 0..rig.memberships().len() {
            comes_to_find(rig, observer, &name, &[&web]).await?;
        }
        interrupted(discovery.deregister(&web.id), polls).await;
        discovery.deregister(&web.id).await?;
        for observer in 0..rig.memberships().len() {
            comes_to_find(rig, observer, &name, &[]).await?;
        }
    }
    Ok(())
}

async fn lookups_are_sorted_and_only_of_what_gets_traffic(rig: &Rig) -> Verdict {
    started(rig).await?;
    let named = |id: &str, at: usize| -> Verdict<Instance> {
        Ok(Instance {
            id: id.parse()?,
            ..instance(rig, at, "web")?
        })
    };
    let (a, b, c) = (named("a", 2)?, named("b", 0)?, named("c", 1)?);
    let sick = named("d", 0)?.health(Health::Critical);
    for instance in [&c, &b, &a, &sick] {
        let at = rig
            .memberships()
            .iter()
            .position(|one| one.me.node == instance.node);
        rig.discovery(at.unwrap_or(0))
            .register(instance.clone())
            .await?;
    }
    for observer in 0..rig.memberships().len() {
        comes_to_find(rig, observer, "web", &[&a, &b, &c]).await?;
        finds(rig, observer, "unknown", &[]).await?;
    }
    // One that gets well again is back.
    let well = sick.health(Health::Passing);
    rig.discovery(0).register(well.clone()).await?;
    comes_to_find(rig, 1, "web", &[&a, &b, &c, &well]).await
}

async fn services_are_counted_and_sorted(rig: &Rig) -> Verdict {
    started(rig).await?;
    let sick = instance(rig, 1, "web")?.health(Health::Critical);
    rig.discovery(0).register(instance(rig, 0, "web")?).await?;
    rig.discovery(1).register(sick).await?;
    rig.discovery(2).register(instance(rig, 2, "db")?).await?;
    let counted = |name, passing, total| -> Verdict<ServiceSummary> {
        Ok(ServiceSummary {
            service: service(name)?,
            passing,
            total,
        })
    };
    let wanted = [counted("db", 1, 1)?, counted("web", 1, 2)?];
    for observer in 0..rig.memberships().len() {
        until(rig.patience(), async || {
            let found = rig.discovery(observer).services().await?;
            ensure!(found == wanted, "node {observer} counts {found:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn members_are_sorted_and_complete(rig: &Rig) -> Verdict {
    started(rig).await?;
    let mut wanted: Vec<_> = rig
        .memberships()
        .iter()
        .map(|membership| {
            let me = &membership.me;
            (me.node, me.name.clone(), me.role)
        })
        .collect();
    wanted.sort_by_key(|(node, ..)| *node);
    for observer in 0..rig.memberships().len() {
        let members = rig.discovery(observer).members().await?;
        let found: Vec<_> = members
            .into_iter()
            .map(|member| (member.node, member.name, member.role))
            .collect();
        ensure!(
            found == wanted,
            "node {observer} lists {found:?} instead of {wanted:?}"
        );
    }
    Ok(())
}
