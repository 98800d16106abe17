//! One change of a container at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arpanet_core::ContainerName;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Who is at it, by name.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<ContainerName, Weak<Turn<()>>>>);

impl Turns {
    /// Waits for the others of this name. The turn ends with the answer's drop.
    pub(crate) async fn take(&self, name: &ContainerName) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(name).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let fresh = Arc::new(Turn::new(()));
                turns.insert(name.clone(), Arc::downgrade(&fresh));
                fresh
            })
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_name_waits_and_another_does_not() {
        let turns = Turns::default();
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let held = turns.take(&one).await;
        let _other = turns.take(&two).await;
        let mut again = Box::pin(turns.take(&one));
        assert!(futures_poll(again.as_mut()).await.is_none());
        drop(held);
        assert!(futures_poll(again.as_mut()).await.is_some());
    }

    async fn futures_poll<F: Future + Unpin>(future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = tokio::task::yield_now() => None,
        }
    }
}
