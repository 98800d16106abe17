//! Messages longer than a datagram: cut up, and put together again within bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::peers::Sender;
use crate::wire::{MAX_MESSAGE, MAX_PACKET, Packet};

const PART: usize = MAX_PACKET - 32;
/// Messages of one sender that are being put together.
const MAX_OPEN: usize = 16;
const MAX_OPEN_ALL: usize = 512;
const FORGET: Duration = Duration::from_secs(5);

/// Cuts a message up. The same transfer number lets parts of a repetition fill the holes of the first.
pub(crate) fn cut(message: &[u8], transfer: u64) -> Vec<Packet> {
    let count = u8::try_from(message.len().div_ceil(PART)).unwrap_or(u8::MAX);
    (0..count)
        .zip(message.chunks(PART))
        .map(|(index, part)| Packet::Fragment {
            transfer,
            index,
            count,
            part: Bytes::copy_from_slice(part),
        })
        .collect()
}

#[derive(Debug)]
struct Open {
    parts: Vec<Option<Bytes>>,
    last: Duration,
}

/// Puts messages together.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    open: BTreeMap<(Sender, u64), Open>,
}

impl Assembly {
    /// Takes a part in; returns the message when it is whole.
    pub(crate) fn take(
        &mut self,
        sender: Sender,
        transfer: u64,
        index: u8,
        count: u8,
        part: Bytes,
        now: Duration,
    ) -> Option<Vec<u8>> {
        let (index, count) = (usize::from(index), usize::from(count));
        if index >= count || count > MAX_MESSAGE.div_ceil(PART) || part.len() > PART {
            return None;
        }
        self.open.retain(|_, open| now < open.last + FORGET);
        let key = (sender, transfer);
        if !self.open.contains_key(&key) {
            let of_sender = self
                .open
                .range((sender, 0)..=(sender, u64::MAX))
                .min_by_key(|(_, open)| open.last)
                .map(|(key, _)| *key);
            let count_of_sender = self.open.range((sender, 0)..=(sender, u64::MAX)).count();
            if self.open.len() >= MAX_OPEN_ALL {
                return None;
            }
            if count_of_sender >= MAX_OPEN
                && let Some(oldest) = of_sender
            {
                self.open.remove(&oldest);
            }
        }
        let open = self.open.entry(key).or_insert_with(|| Open {
            parts: vec![None; count],
            last: now,
        });
        if open.parts.len() != count {
            return None;
        }
        open.last = now;
        open.parts[index] = Some(part);
        if open.parts.iter().any(Option::is_none) {
            return None;
        }
        let open = self.open.remove(&key)?;
        Some(open.parts.into_iter().flatten().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::NodeAddr;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_comes_together_in_any_order(length in 1..MAX_MESSAGE, keys in prop::collection::vec(any::<u64>(), 32)) {
            let message: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut parts: Vec<_> = keys.into_iter().zip(cut(&message, 3)).collect();
            parts.sort_by_key(|(key, _)| *key);
            let sender = Sender { node: NodeAddr::from_index(1).unwrap(), tag: 0 };
            let mut assembly = Assembly::default();
            let mut whole = None;
            for (_, packet) in parts {
                prop_assert!(whole.is_none());
                let Packet::Fragment { transfer, index, count, part } = packet else { unreachable!() };
                whole = assembly.take(sender, transfer, index, count, part, Duration::ZERO);
            }
            prop_assert_eq!(whole, Some(message));
        }
    }
}
