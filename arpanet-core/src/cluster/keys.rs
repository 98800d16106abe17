//! The cluster's key and its password, and what a node does when they are others.

use std::sync::Arc;

use tokio::sync::MutexGuard;

use super::gate::Gate;
use super::reconcile::{Applied, Outcome};
use super::startup::Lifecycle;
use super::{Cluster, Node};
use crate::admission::{Credential, Keys, Password};
use crate::discovery::Spread;
use crate::{Error, ErrorKind, Result};

impl Cluster {
    /// Gives the cluster a new key, which all living members have when this returns but those that it names; they get it as
    /// soon as they are heard from. Each call makes another one. Traffic of containers does not depend on it.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] on a client; [`ErrorKind::Unsupported`] where the key stays;
    /// [`ErrorKind::Unavailable`] while this node is down.
    pub async fn rekey(&self) -> Result<Spread> {
        self.check_may_turn().await?;
        self.turn_over(None).await
    }

    /// Gives the cluster a new password, and a new key with it. The one before admits nobody at any member that has
    /// confirmed it.
    ///
    /// # Errors
    /// As [`rekey`](Self::rekey), and those of [`Admission::credential`](crate::admission::Admission::credential).
    pub async fn change_password(&self, password: &Password) -> Result<Spread> {
        self.check_may_turn().await?;
        let credential = self.node.admission.credential(password).await?;
        self.turn_over(Some(credential)).await
    }

    async fn check_may_turn(&self) -> Result<()> {
        let membership = self.membership().await.ok_or_else(|| {
            let message = format!("node {} is in no cluster", self.node.me);
            Error::new(ErrorKind::Unavailable, message)
        })?;
        if membership.me.role.admits() {
            return Ok(());
        }
        let message = format!(
            "node {} is a client, which has no say in keys",
            self.node.me
        );
        Err(Error::new(ErrorKind::PermissionDenied, message)
            .with_hint("do it on a boot or server node"))
    }

    async fn turn_over(&self, credential: Option<Credential>) -> Result<Spread> {
        let node = &self.node;
        let spread = node.discovery.turn_over(credential).await?;
        // Whoever was told that it is done must find it done after a loss of power.
        let keys = node.discovery.watch_keys().await?.borrow().clone();
        node.keep_keys(&keys, node.lifecycle.lock().await).await?;
        Ok(spread)
    }
}

impl Node {
    /// Keeps keys that turned over, and has whoever is admitted from now on get them.
    pub(super) async fn reconcile_keys(&self, applied: &mut Applied, outcome: &mut Outcome) {
        let keys = self.view().keys.clone();
        let Some(keys) = keys.filter(|keys| applied.keys.as_ref() != Some(keys)) else {
            return;
        };
        // Not awaited: coming up holds this lock while it waits for a reconciliation.
        let Ok(lifecycle) = self.lifecycle.try_lock() else {
            outcome.again = true;
            return;
        };
        match self.keep_keys(&keys, lifecycle).await {
            Ok(true) => applied.keys = Some(keys),
            Ok(false) => outcome.again = true,
            Err(error) => outcome
                .rest
                .push(error.context("could not keep the cluster's new key")),
        }
    }

    /// Keeps the membership with these keys and serves with it; `false` while the node is down.
    async fn keep_keys(
        &self,
        keys: &Keys,
        mut lifecycle: MutexGuard<'_, Lifecycle>,
    ) -> Result<bool> {
        let Lifecycle::Up { membership, .. } = &mut *lifecycle else {
            return Ok(false);
        };
        if membership.keys() != *keys {
            let mut changed = (**membership).clone();
            changed.key = keys.key.clone();
            changed.credential = keys.credential.clone();
            self.store.save(&changed).await?;
            self.admission
                .serve(&changed, Arc::new(self.gate(changed.me.role)))
                .await?;
            **membership = changed;
            tracing::info!(id = keys.key.id, "keeps the cluster's new key");
        }
        Ok(true)
    }

    /// Who decides here whether others get in.
    pub(super) fn gate(&self, role: crate::roster::Role) -> Gate {
        Gate::new(role, self.me, Arc::clone(&self.discovery))
    }
}
