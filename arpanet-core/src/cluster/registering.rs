//! Instances of this node that no container provides: registered by hand, and drained with the node like those of
//! containers.

use super::reconcile::{Applied, Outcome};
use super::view::View;
use super::{Cluster, Node};
use crate::discovery::{Health, Instance};
use crate::{Error, ErrorKind, InstanceId, NodeAddr, Result};

impl View {
    /// What is registered by hand, as it is to be told.
    fn registrations(&self, me: NodeAddr) -> Vec<Instance> {
        let drained = self.is_drained(me);
        let registered = self.registered.values().cloned();
        registered
            .map(|instance| match drained {
                true => instance.health(Health::Critical),
                false => instance,
            })
            .collect()
    }
}

impl Cluster {
    /// Puts an instance of this node into the catalogue that no container provides, or replaces the one with its id: until
    /// [`deregister`](Self::deregister), or until this node goes down. It is in no lookup while the node is
    /// [drained](Self::drain). The same again does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an instance of another node; those of
    /// [`Discovery::register`](crate::Discovery::register). All is as before then.
    pub async fn register(&self, instance: Instance) -> Result<()> {
        let node = &self.node;
        if instance.node != node.me {
            let message = format!("{} runs on node {}", instance.id, instance.node);
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .with_hint("an instance is registered on the node that it runs on"));
        }
        let id = instance.id.clone();
        let before = node.view().registered.insert(id.clone(), instance);
        let Some(error) = node.reconcile().await.registrations.remove(&id) else {
            return Ok(());
        };
        {
            let mut view = node.view();
            match before {
                Some(before) => view.registered.insert(id, before),
                None => view.registered.remove(&id),
            };
        }
        // What may have been told all the same is taken back.
        node.kick.notify_one();
        Err(error)
    }

    /// Takes an instance of this node out of the catalogue. What a container provides is registered anew as long as it runs.
    /// A second call does nothing.
    ///
    /// # Errors
    /// Those of [`Discovery::deregister`](crate::Discovery::deregister).
    pub async fn deregister(&self, id: &InstanceId) -> Result<()> {
        let node = &self.node;
        {
            let mut applied = node.applied.lock().await;
            let before = node.view().registered.remove(id);
            if let Err(error) = node.discovery.deregister(id).await {
                node.view()
                    .registered
                    .extend(before.map(|before| (id.clone(), before)));
                return Err(error);
            }
            applied.instances.remove(id);
        }
        node.kick.notify_one();
        Ok(())
    }
}

impl Node {
    pub(super) async fn reconcile_registrations(
        &self,
        applied: &mut Applied,
        outcome: &mut Outcome,
    ) {
        let registrations = self.view().registrations(self.me);
        for instance in registrations {
            let id = instance.id.clone();
            if let Err(error) = self.tell_instance(applied, instance).await {
                outcome.registrations.insert(id, error);
            }
        }
    }
}
