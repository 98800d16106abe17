//! An overlay that keeps the contract but for one sentence.

use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{
    Announcement, AttachAddr, Attachment, OverlayCapabilities, PeerSpec, PeerStatus,
};
use arpanet_core::{AppAddr, ContainerName, ErrorKind, NodeAddr, Overlay, Plane, Result};
use async_trait::async_trait;

/// Which sentence is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    AnswersBeforeTheLaunch,
    AnnouncesANewKeyEachTime,
    WaitsForPeers,
    KeepsOldHolds,
    TakesAnyAnnouncement,
    ForgetsNobody,
    WaitsForEver,
    WaitsForStrangers,
    HidesNothing,
    DetachesNothing,
    FailsToDetachTwice,
    SharesAddresses,
    ListsNothing,
    LetsWideOnesThroughForEver,
    StopsNothing,
}

impl Breach {
    pub(crate) const ALL: &[(Self, &str)] = &[
        (
            Self::AnswersBeforeTheLaunch,
            "nothing_answers_before_the_launch",
        ),
        (
            Self::AnnouncesANewKeyEachTime,
            "a_second_launch_changes_nothing",
        ),
        (Self::WaitsForPeers, "connecting_does_not_wait"),
        (Self::KeepsOldHolds, "routes_come_only_from_what_peers_hold"),
        (
            Self::TakesAnyAnnouncement,
            "an_unreadable_announcement_is_refused",
        ),
        (Self::ForgetsNobody, "a_forgotten_peer_is_gone"),
        (Self::WaitsForEver, "waiting_for_a_peer_ends"),
        (Self::WaitsForStrangers, "nobody_waits_for_a_stranger"),
        (Self::HidesNothing, "a_plane_is_exposed_and_hidden"),
        (Self::DetachesNothing, "a_detached_address_is_gone"),
        (Self::FailsToDetachTwice, "a_detached_address_is_gone"),
        (Self::SharesAddresses, "an_address_has_one_container"),
        (Self::ListsNothing, "a_container_may_have_several_addresses"),
        (
            Self::LetsWideOnesThroughForEver,
            "a_wide_container_reaches_the_planes_where_it_is_let_through",
        ),
        (Self::StopsNothing, "nothing_answers_after_stop"),
    ];
}

#[derive(Debug)]
pub(crate) struct Broken {
    inner: Arc<dyn Overlay>,
    breach: Breach,
}

impl Broken {
    pub(crate) fn new(inner: Arc<dyn Overlay>, breach: Breach) -> Self {
        Self { inner, breach }
    }

    fn is(&self, breach: Breach) -> bool {
        self.breach == breach
    }
}

#[async_trait]
impl Overlay for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn capabilities(&self) -> OverlayCapabilities {
        self.inner.capabilities()
    }

    async fn preflight(&self, node: NodeAddr) -> Result<()> {
        self.inner.preflight(node).await
    }

    async fn launch(&self, membership: &Membership) -> Result<Announcement> {
        if self.is(Breach::AnnouncesANewKeyEachTime) {
            self.inner.stop().await?;
        }
        self.inner.launch(membership).await
    }

    async fn connect(&self, mut peer: PeerSpec) -> Result<()> {
        if self.is(Breach::KeepsOldHolds) && peer.holds.is_empty() {
            let known = self.inner.peers().await?;
            if known.iter().any(|known| known.node == peer.node) {
                return Ok(());
            }
        }
        if self.is(Breach::TakesAnyAnnouncement) && peer.announcement.0.len() < 8 {
            return self.inner.peers().await.map(drop);
        }
        if self.is(Breach::WaitsForPeers) {
            let node = peer.node;
            self.inner.connect(peer).await?;
            let limit = Duration::from_secs(3);
            return self.inner.wait_reachable(node, limit).await.or(Ok(()));
        }
        peer.holds.dedup();
        self.inner.connect(peer).await
    }

    async fn nudge(&self, node: NodeAddr) -> Result<()> {
        self.inner.nudge(node).await
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        if self.is(Breach::ForgetsNobody) {
            return self.inner.peers().await.map(drop);
        }
        self.inner.forget(node).await
    }

    async fn expose(&self, plane: Plane) -> Result<()> {
        self.inner.expose(plane).await
    }

    async fn hide(&self, plane: Plane) -> Result<()> {
        if self.is(Breach::HidesNothing) {
            return self.inner.peers().await.map(drop);
        }
        self.inner.hide(plane).await
    }

    async fn attach(&self, attachment: &Attachment) -> Result<()> {
        match self.inner.attach(attachment).await {
            Err(error)
                if self.is(Breach::SharesAddresses) && error.kind() == ErrorKind::Conflict =>
            {
                Ok(())
            }
            answer => answer,
        }
    }

    async fn detach(&self, container: &ContainerName, addr: AttachAddr) -> Result<()> {
        let attached = self.inner.attached().await?;
        if self.is(Breach::DetachesNothing) {
            return Ok(());
        }
        if self.is(Breach::FailsToDetachTwice) && !attached.contains(&(container.clone(), addr)) {
            return Err(arpanet_core::Error::new(
                ErrorKind::NotFound,
                "not attached",
            ));
        }
        self.inner.detach(container, addr).await
    }

    async fn attached(&self) -> Result<Vec<(ContainerName, AttachAddr)>> {
        let mut attached = self.inner.attached().await?;
        if self.is(Breach::ListsNothing) {
            attached.truncate(1);
        }
        Ok(attached)
    }

    async fn allow_wide(&self, addrs: &[AppAddr]) -> Result<()> {
        if self.is(Breach::LetsWideOnesThroughForEver) && addrs.is_empty() {
            return Ok(());
        }
        self.inner.allow_wide(addrs).await
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>> {
        match self.inner.peers().await {
            Err(_) if self.is(Breach::AnswersBeforeTheLaunch) => Ok(Vec::new()),
            answer => answer,
        }
    }

    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
        match self.inner.wait_reachable(node, limit).await {
            Err(error) if self.is(Breach::WaitsForEver) && error.kind() == ErrorKind::Timeout => {
                std::future::pending().await
            }
            Err(error)
                if self.is(Breach::WaitsForStrangers) && error.kind() == ErrorKind::NotFound =>
            {
                tokio::time::sleep(limit).await;
                Err(error)
            }
            answer => answer,
        }
    }

    async fn stop(&self) -> Result<()> {
        if self.is(Breach::StopsNothing) {
            return Ok(());
        }
        self.inner.stop().await
    }

    async fn reset(&self) -> Result<()> {
        self.inner.reset().await
    }
}
