//! Which packets of a session have come (RFC 6479).

/// Bits a word.
const WORD: u64 = 64;
const WORDS: u64 = 128;
/// Packets that may come late: one word less than there are, since the last one is being filled.
const WINDOW: u64 = (WORDS - 1) * WORD;

/// The counters that have been seen, of the last 8,128.
#[derive(Debug)]
pub(super) struct Window {
    /// One more than the highest.
    next: u64,
    seen: [u64; WORDS as usize],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS as usize],
        }
    }
}

impl Window {
    /// Whether a counter is new, and remembers it. To be asked only of packets that are genuine.
    pub(super) fn admit(&mut self, counter: u64) -> bool {
        if counter >= self.next {
            // What is between is cleared, word by word, but never more than there are.
            let (last, this) = (self.next.saturating_sub(1) / WORD, counter / WORD);
            for word in (last + 1..=this).take(WORDS as usize) {
                self.seen[(word % WORDS) as usize] = 0;
            }
            self.next = counter + 1;
        } else if self.next - counter > WINDOW {
            return false;
        }
        let word = &mut self.seen[(counter / WORD % WORDS) as usize];
        let bit = 1 << (counter % WORD);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_that_is_admitted_is_a_window_back() {
        let mut window = Window::default();
        assert!(window.admit(WINDOW + 9));
        assert!(window.admit(10));
        assert!(!window.admit(9));
        assert!(!window.admit(10));
        assert!(window.admit(u64::MAX - 1));
        assert!(!window.admit(WINDOW + 10));
    }

    proptest! {
        #[test]
        fn nothing_is_admitted_twice_and_nothing_new_refused(
            steps in prop::collection::vec((0_u64..3 * WINDOW, 0_u64..2 * WINDOW), 1..400),
        ) {
            let (mut window, mut seen, mut highest) = (Window::default(), HashSet::new(), 0);
            let mut base = 0_u64;
            for (ahead, back) in steps {
                // Mostly in small steps, at times far.
                base += if ahead % 7 == 0 { ahead } else { ahead % 5 };
                let counter = base.saturating_sub(if back % 3 == 0 { back } else { back % 70 });
                let late = seen.is_empty() || counter + WINDOW > highest;
                let expected = late && !seen.contains(&counter);
                prop_assert_eq!(window.admit(counter), expected, "{} after {}", counter, highest);
                if expected {
                    seen.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }
    }
}
