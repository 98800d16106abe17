//! Records: what nodes say of themselves.

use bytes::Bytes;

use super::{Rig, Told, needs_records, node, start, started};
use crate::conformance::check::{
    Check, INTERRUPTIONS, Verdict, check, ensure, interrupted, refused, until,
};
use crate::discovery::{Record, RecordKey};
use crate::{ErrorKind, NodeAddr};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            records_are_published_replaced_and_retracted,
            "Says something of this node to all others, or replaces what was said under this key.",
            needs_records
        ),
        check!(
            those_who_confirmed_have_the_record_at_once,
            "Returns when all living members know, or did not confirm in time.",
            needs_records
        ),
        check!(
            records_are_watched_by_prefix_and_owner,
            "Watches all nodes' records, this node's included, whose keys start with prefix.",
            needs_records
        ),
        check!(
            records_have_limits,
            "InvalidInput for a value over 16 KiB or a bad key.",
            needs_records
        ),
        check!(
            records_of_a_dead_node_are_suspended,
            "Its owner is out of reach.",
            needs_records
        ),
        check!(
            dropped_calls_about_records_are_finished_by_the_next,
            "Dropping a call's future at any point leaves nothing behind, or something that the same call finishes.",
            needs_records
        ),
        check!(
            what_it_can_not_do_answers_unsupported,
            "What it can't do answers Unsupported, at once."
        ),
    ]
}

type Records = Told<(NodeAddr, RecordKey), Record>;

impl Records {
    async fn comes_to_tell(
        &mut self,
        rig: &Rig,
        (owner, key): (usize, &str),
        wanted: Option<&Record>,
    ) -> Verdict {
        let of = (node(rig, owner), key.to_owned());
        until(rig.patience(), async || {
            let found = self.now().get(&of);
            ensure!(found == wanted, "{of:?} is {found:?} instead of {wanted:?}");
            Ok(())
        })
        .await
    }
}

async fn watched(rig: &Rig, observer: usize, prefix: &str) -> Verdict<Records> {
    Told::by(rig.discovery(observer).watch_records(prefix).await?).await
}

fn record(value: &'static str) -> Record {
    Record::new(Bytes::from_static(value.as_bytes()))
}

async fn records_are_published_replaced_and_retracted(rig: &Rig) -> Verdict {
    started(rig).await?;
    let mut watches = Vec::new();
    for observer in 0..rig.memberships().len() {
        watches.push(watched(rig, observer, "").await?);
    }
    let discovery = rig.discovery(0);
    for value in ["one", "one", "two", ""] {
        discovery.publish("key", record(value).value).await?;
        for told in &mut watches {
            told.comes_to_tell(rig, (0, "key"), Some(&record(value)))
                .await?;
        }
    }
    for _ in 0..2 {
        discovery.retract("key").await?;
    }
    discovery.retract("never/there").await?;
    for told in &mut watches {
        told.comes_to_tell(rig, (0, "key"), None).await?;
    }
    Ok(())
}

async fn those_who_confirmed_have_the_record_at_once(rig: &Rig) -> Verdict {
    started(rig).await?;
    let spread = rig.discovery(0).publish("key", record("one").value).await?;
    for observer in 0..rig.memberships().len() {
        let told = watched(rig, observer, "").await?;
        let found = told.set.get(&(node(rig, 0), "key".to_owned()));
        ensure!(
            spread.unconfirmed.contains(&node(rig, observer)) || found == Some(&record("one")),
            "node {observer} confirmed the record and has {found:?}"
        );
    }
    Ok(())
}

async fn records_are_watched_by_prefix_and_owner(rig: &Rig) -> Verdict {
    started(rig).await?;
    rig.discovery(0)
        .publish("claim/a", record("0").value)
        .await?;
    rig.discovery(1)
        .publish("claim/a", record("1").value)
        .await?;
    let mut told = watched(rig, 0, "claim/").await?;
    rig.discovery(1).publish("other", record("1").value).await?;
    rig.discovery(0)
        .publish("claim/b", record("0").value)
        .await?;
    rig.discovery(1)
        .publish("claim/c", record("1").value)
        .await?;
    told.comes_to_tell(rig, (0, "claim/a"), Some(&record("0")))
        .await?;
    told.comes_to_tell(rig, (1, "claim/a"), Some(&record("1")))
        .await?;
    told.comes_to_tell(rig, (0, "claim/b"), Some(&record("0")))
        .await?;
    told.comes_to_tell(rig, (1, "claim/c"), Some(&record("1")))
        .await?;
    ensure!(told.set.len() == 4, "it tells of {:?}", told.set.keys());
    // Only the owner's is retracted.
    rig.discovery(1).retract("claim/a").await?;
    told.comes_to_tell(rig, (1, "claim/a"), None).await?;
    told.comes_to_tell(rig, (0, "claim/a"), Some(&record("0")))
        .await
}

async fn records_have_limits(rig: &Rig) -> Verdict {
    const LONGEST_VALUE: usize = 16 * 1024;
    const LONGEST_KEY: usize = 128;
    started(rig).await?;
    let discovery = rig.discovery(0);
    let invalid = [ErrorKind::InvalidInput];
    let value = |length: usize| Bytes::from(vec![7; length]);
    let key = |length: usize| "k".repeat(length);

    discovery
        .publish(&key(LONGEST_KEY), value(LONGEST_VALUE))
        .await?;
    let mut told = watched(rig, 1, "").await?;
    let whole = Record::new(value(LONGEST_VALUE));
    told.comes_to_tell(rig, (0, &key(LONGEST_KEY)), Some(&whole))
        .await?;
    // Engines tell upper from lower case in the names of containers.
    for good in ["claim/10.1.0.5/w1", "claim/10.1.0.5/Shop_web.1"] {
        discovery.publish(good, value(1)).await?;
    }

    let long = discovery.publish("key", value(LONGEST_VALUE + 1)).await;
    refused("publish of 16 KiB and a byte", long, &invalid)?;
    for bad in ["", "/", "a//b", "a/", "/a", "a b", &key(LONGEST_KEY + 1)] {
        let answer = discovery.publish(bad, value(1)).await;
        refused(&format!("publish under {bad:?}"), answer, &invalid)?;
    }
    Ok(())
}

async fn records_of_a_dead_node_are_suspended(rig: &Rig) -> Verdict {
    started(rig).await?;
    let key = (0, "key");
    rig.discovery(0).publish("key", record("one").value).await?;
    let mut told = watched(rig, 1, "").await?;
    told.comes_to_tell(rig, key, Some(&record("one"))).await?;
    rig.kill(0).await;
    told.comes_to_tell(rig, key, Some(&record("one").suspended(true)))
        .await?;
    rig.restart(0).await;
    start(rig, 0).await?;
    rig.discovery(0).publish("key", record("two").value).await?;
    told.comes_to_tell(rig, key, Some(&record("two"))).await?;
    rig.discovery(0)
        .leave(std::time::Duration::from_secs(5))
        .await?;
    told.comes_to_tell(rig, key, None).await
}

async fn dropped_calls_about_records_are_finished_by_the_next(rig: &Rig) -> Verdict {
    started(rig).await?;
    let discovery = rig.discovery(0);
    let mut told = watched(rig, 1, "").await?;
    for polls in INTERRUPTIONS {
        interrupted(discovery.publish("key", record("one").value), polls).await;
        discovery.publish("key", record("one").value).await?;
        told.comes_to_tell(rig, (0, "key"), Some(&record("one")))
            .await?;
        interrupted(discovery.retract("key"), polls).await;
        discovery.retract("key").await?;
        told.comes_to_tell(rig, (0, "key"), None).await?;
    }
    Ok(())
}

async fn what_it_can_not_do_answers_unsupported(rig: &Rig) -> Verdict {
    started(rig).await?;
    let discovery = rig.discovery(0);
    let capabilities = discovery.capabilities();
    let unsupported = [ErrorKind::Unsupported];
    if !capabilities.records {
        let published = discovery.publish("key", record("one").value).await;
        refused("publish", published, &unsupported)?;
        refused("retract", discovery.retract("key").await, &unsupported)?;
        refused(
            "watch_records",
            discovery.watch_records("").await,
            &unsupported,
        )?;
    }
    if !capabilities.admits
        && let Some(entry) = rig.applicant("200.1".parse()?, "applicant")
    {
        refused("admit", discovery.admit(entry).await, &unsupported)?;
    }
    Ok(())
}
