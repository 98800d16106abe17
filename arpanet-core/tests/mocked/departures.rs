//! Going down: everything is tried, whatever fails.

use arpanet_core::{ErrorKind, Result};

use crate::rig::{Rig, password};

#[derive(Debug, Clone, Copy)]
enum Departure {
    Stop,
    Leave,
    Resign,
}

impl Departure {
    async fn go(self, rig: &Rig) -> Result<()> {
        match self {
            Self::Stop => rig.cluster.stop().await,
            Self::Leave => rig.cluster.leave().await,
            Self::Resign => rig.cluster.resign().await,
        }
    }

    const fn calls(self) -> &'static [&'static str] {
        match self {
            Self::Stop => &[
                "admission.stop",
                "docker.stop",
                "dns.stop",
                "discovery.stop",
                "overlay.stop",
            ],
            Self::Leave => &[
                "admission.stop",
                "docker.stop",
                "dns.stop",
                "discovery.leave",
                "overlay.reset",
            ],
            Self::Resign => &[
                "admission.stop",
                "docker.stop",
                "dns.stop",
                "discovery.forget 0.2",
                "discovery.leave",
                "runtime.list",
                "runtime.remove w1",
                "overlay.reset",
                "store.clear",
            ],
        }
    }
}

async fn up() -> Rig {
    let rig = Rig::new();
    rig.cluster.boot(&password()).await.unwrap();
    let spec =
        arpanet_core::runtime::ContainerSpec::command(["httpd"]).named("w1".parse().unwrap());
    rig.cluster.run(&spec).await.unwrap();
    rig.rest().await;
    rig
}

#[tokio::test(start_paused = true)]
async fn in_order_and_a_second_time() {
    for departure in [Departure::Stop, Departure::Leave, Departure::Resign] {
        let rig = up().await;
        rig.journal.begin(0..0);
        departure.go(&rig).await.unwrap();
        assert_eq!(rig.journal.calls(), departure.calls());
        assert!(rig.cluster.membership().await.is_none());
        departure.go(&rig).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn every_failure_is_told_and_stops_nothing() {
    for departure in [Departure::Stop, Departure::Leave, Departure::Resign] {
        for (number, call) in departure.calls().iter().enumerate() {
            let rig = up().await;
            rig.journal.begin(number..number + 1);
            let error = departure.go(&rig).await.unwrap_err();
            assert_eq!(error.to_string(), format!("{call} fails"));
            assert_eq!(error.kind(), ErrorKind::Exhausted);
            // Containers that could not be listed can't be removed.
            let mut wanted = departure.calls().to_vec();
            wanted.retain(|made| *call != "runtime.list" || *made != "runtime.remove w1");
            assert_eq!(
                rig.journal.calls(),
                wanted,
                "{departure:?} when {call} fails"
            );
            assert!(rig.cluster.membership().await.is_none());
        }
    }
}
