//! One change of a container at a time, each to its end.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arpanet_core::{ContainerName, ErrorKind, Result};
use tokio::sync::Mutex as Turn;

use crate::error::own;

/// Who is at it, by name.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<ContainerName, Weak<Turn<()>>>>);

impl Turns {
    fn of(&self, name: &ContainerName) -> Arc<Turn<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(name).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let fresh = Arc::new(Turn::new(()));
            turns.insert(name.clone(), Arc::downgrade(&fresh));
            fresh
        })
    }

    /// Runs a change when those before it have ended. A caller that goes away while it waits has asked for nothing; one
    /// that goes away later leaves the change to its end, and whoever comes next comes behind it.
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        name: &ContainerName,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let turn = self.of(name).lock_owned().await;
        whole(async move {
            let outcome = change.await;
            drop(turn);
            outcome
        })
        .await
    }
}

/// Runs a change to its end, also when the caller does not wait for it.
pub(crate) async fn whole<T: Send + 'static>(
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|error| Err(own(ErrorKind::Internal, error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_change_goes_on_without_its_caller_and_the_next_waits_for_it() {
        let turns = Arc::new(Turns::default());
        let name: ContainerName = "w1".parse().unwrap();
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let order = Arc::new(Mutex::new(Vec::new()));
        let caller = {
            let (turns, name) = (Arc::clone(&turns), name.clone());
            let (begun, go, order) = (Arc::clone(&begun), Arc::clone(&go), Arc::clone(&order));
            tokio::spawn(async move {
                let change = async move {
                    begun.notify_one();
                    go.notified().await;
                    order.lock().unwrap().push("first");
                    Ok(())
                };
                turns.take(&name, change).await
            })
        };
        begun.notified().await;
        caller.abort();
        let seen = Arc::clone(&order);
        let next = async move {
            seen.lock().unwrap().push("second");
            Ok(())
        };
        go.notify_one();
        turns.take(&name, next).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["first", "second"]);
    }
}
