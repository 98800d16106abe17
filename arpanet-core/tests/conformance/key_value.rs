//! The suite for key-value stores.

use std::sync::Arc;

use arpanet_core::KeyValue;
use arpanet_core::conformance::{self, KeyValueRig, Report};
use arpanet_core::memory::World;
use async_trait::async_trait;

use crate::broken_key_value::{Breach, Broken};

const PLACES: [&str; 3] = ["0.1", "0.2", "0.3"];

struct Rig {
    world: World,
    breach: Option<Breach>,
}

#[async_trait]
impl KeyValueRig for Rig {
    fn size(&self) -> usize {
        PLACES.len()
    }

    fn key_value(&self, node: usize) -> Arc<dyn KeyValue> {
        let inner = Arc::new(self.world.key_value(PLACES[node]));
        match self.breach {
            Some(breach) => Arc::new(Broken::new(inner, breach)),
            None => inner,
        }
    }

    fn can_cut(&self) -> bool {
        true
    }

    async fn cut(&self, node: usize) {
        self.world.cut(PLACES[node]);
    }

    async fn heal(&self, node: usize) {
        self.world.heal(PLACES[node]);
    }
}

async fn report(breach: Option<Breach>) -> Report {
    conformance::key_value(|| async move {
        let world = World::new(1);
        for place in PLACES {
            // A host comes into being when it is named.
            let _ = world.host(place);
        }
        Rig { world, breach }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_all_of_it() {
    let report = report(None).await;
    report.assert_kept();
    assert_eq!(report.skipped().count(), 0, "{report}");
    assert!(report.checks().len() > 20);
}

#[tokio::test(start_paused = true)]
async fn every_breach_is_found_by_its_check() {
    for (breach, name) in Breach::ALL {
        let report = report(Some(*breach)).await;
        let found = report.broken().any(|check| check.name() == *name);
        assert!(found, "{breach:?} was not found by {name}: {report}");
        assert!(
            report.broken().count() < report.checks().len() / 2,
            "{breach:?}: {report}"
        );
    }
}
