//! Links that are left in the host's namespace, for a runtime to move into its container.
//!
//! They are those of [`attach`](crate::attach), made before the container is there. Until it is attached, the note on the
//! link names the endpoint alone.

use arpanet_core::overlay::{Plug, Plugged};
use arpanet_core::{AppAddr, EndpointId, Error, ErrorKind, Result};
use arpanet_netlink::MacAddr;

use crate::attach::{Note, link_of};
use crate::plan;
use crate::router::{Router, State};

impl Router {
    /// Makes an endpoint's link.
    ///
    /// # Errors
    /// Those of [`Overlay::plug`](arpanet_core::Overlay::plug).
    pub async fn plug(&self, plug: &Plug) -> Result<Plugged> {
        let mut state = self.state.lock().await;
        self.look(&mut state).await?;
        let ip = plug.addr.ip();
        let name = link_of(ip);
        let mac = plug.mac.map_or_else(|| plan::mac_of(ip), MacAddr::new);
        let near = self.inside.link(&name).await?;
        match near.as_ref().and_then(Note::on) {
            Some(note) if note.endpoint.as_ref() == Some(&plug.endpoint) => {
                let mac = near.and_then(|near| near.mac).unwrap_or(mac);
                return Ok(Plugged::new(name, mac.bytes()));
            }
            Some(note) => {
                let holder = match (note.container, note.endpoint) {
                    (Some(container), _) => format!("attached to {container}"),
                    (None, Some(endpoint)) => format!("for endpoint {endpoint}"),
                    (None, None) => "in use".to_owned(),
                };
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("{ip} is {holder} on this host"),
                ));
            }
            None => {}
        }
        // With another address.
        self.remove(&mut state, &plug.endpoint).await?;
        // Half made, by a call that was cut short.
        self.inside.delete_link(&name).await?;
        self.add_pair(ip, mac, self.host.namespace(), state.mtu)
            .await?;
        self.inside.set_up(&name, true).await?;
        self.inside
            .set_routes(&[plan::to_container(&name, ip)])
            .await?;
        self.inside
            .set_alias(&name, &Note::plugged(plug).write())
            .await?;
        state.plugged.insert(plug.endpoint.clone(), plug.addr);
        self.settle(&mut state).await?;
        Ok(Plugged::new(name, mac.bytes()))
    }

    /// Removes an endpoint's link.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn unplug(&self, endpoint: &EndpointId) -> Result<()> {
        let mut state = self.state.lock().await;
        self.look(&mut state).await?;
        self.remove(&mut state, endpoint).await
    }

    async fn remove(&self, state: &mut State, endpoint: &EndpointId) -> Result<()> {
        let Some(addr) = state.plugged.get(endpoint) else {
            return Ok(());
        };
        self.inside.delete_link(&link_of(addr.ip())).await?;
        self.look(state).await
    }

    /// The endpoints that have a link.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn plugged(&self) -> Result<Vec<(EndpointId, AppAddr)>> {
        let mut state = self.state.lock().await;
        self.look(&mut state).await?;
        Ok(state
            .plugged
            .iter()
            .map(|(endpoint, addr)| (endpoint.clone(), *addr))
            .collect())
    }
}
