//! What a node knows that decides over packets.

use super::Cluster;
use crate::Result;
use crate::overlay::AttachAddr;
use crate::why::Situation;

impl Cluster {
    /// What [`why::packet`](crate::why::packet) works with, as this node knows it now.
    ///
    /// # Errors
    /// Those of the overlay; [`Unavailable`](crate::ErrorKind::Unavailable) while this node is down.
    pub async fn situation(&self) -> Result<Situation> {
        let overlay = &self.node.overlay;
        let peers = overlay.peers().await?;
        let mut situation = Situation::new(self.me());
        situation.isolation = overlay.capabilities().isolation;
        situation.peers = peers.into_iter().map(|peer| (peer.node, peer)).collect();
        if overlay.capabilities().attach {
            let attached = overlay.attached().await?.into_iter();
            situation.attached = attached
                .filter_map(|(container, addr)| match addr {
                    AttachAddr::Application(addr) => Some((addr.ip(), container)),
                    AttachAddr::Plugin(_) => None,
                })
                .collect();
        }
        let view = self.node.view();
        let members = view.members.values();
        situation
            .members
            .extend(members.map(|member| (member.node, member.state)));
        situation.claims = view.records.settled();
        Ok(situation)
    }
}
