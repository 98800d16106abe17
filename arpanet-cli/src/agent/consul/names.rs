//! Whether consul answers names to who shows no token, as its DNS does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arpanet_core::cluster::FacilityContext;
use arpanet_dns::DnsServer;
use tokio::time::{Instant, sleep};

/// Between two questions.
const AGAIN: Duration = Duration::from_secs(1);

/// How long after a start consul may have no answer: its own service is there as soon as it has a leader.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is told while it does not.
const REFUSED: &str = "consul's DNS answers no names of services: with an ACL token, consul has to let the anonymous token read services and nodes";

/// What is known of it.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct Names {
    is_refused: Arc<AtomicBool>,
}

impl Names {
    /// What is to be said of it, if anything.
    pub(in crate::agent) fn advice(&self) -> Option<String> {
        let is_refused = self.is_refused.load(Ordering::Relaxed);
        is_refused.then(|| REFUSED.to_owned())
    }

    /// Asks for the one name that consul always has, until it is answered.
    pub(in crate::agent) async fn watch(
        self,
        server: Arc<DnsServer>,
        domain: String,
        context: FacilityContext,
    ) {
        let name = format!("consul.service.{domain}");
        let begun = Instant::now();
        while server.resolve(&name).await.is_empty() {
            let is_late = begun.elapsed() >= PATIENCE;
            if is_late && !self.is_refused.swap(true, Ordering::Relaxed) {
                context.trouble(REFUSED);
            }
            sleep(AGAIN).await;
        }
        if self.is_refused.swap(false, Ordering::Relaxed) {
            tracing::info!("consul's DNS answers names of services");
        }
    }
}
