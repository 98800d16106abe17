//! Tests of what chance does: by seeds, so that what fails can be had again.

use std::thread::panicking;

use crate::random::Random;

/// Chance that is the same for a seed, everywhere.
#[derive(Debug)]
pub struct Dice(Random);

impl Dice {
    /// As this seed has it.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// One of so many sides, from 0 on.
    ///
    /// # Panics
    /// Where there is none.
    pub const fn roll(&mut self, sides: u64) -> u64 {
        self.0.next() % sides
    }

    /// One of these, if there are any.
    pub fn one_of<T: Clone>(&mut self, among: &[T]) -> Option<T> {
        let sides = among.len() as u64;
        (sides > 0).then(|| among[self.roll(sides) as usize].clone())
    }
}

/// Looks at the seeds that `ARPANET_CHAOS=FIRST:COUNT` names, and at 1 to `usual` where it names none. One that fails is said, with
/// `command`, which has it again.
///
/// # Panics
/// Where `look` does, and where the variable is there and says no seeds.
pub fn each_seed(usual: u64, command: &str, mut look: impl FnMut(u64)) {
    let named = std::env::var("ARPANET_CHAOS").ok();
    let (first, count): (u64, u64) = named.map_or((1, usual), |named| {
        let range = named.split_once(':').and_then(|(first, count)| {
            let (first, count) = (first.parse().ok()?, count.parse().ok()?);
            Some((first, count))
        });
        range.unwrap_or_else(|| panic!("ARPANET_CHAOS is FIRST:COUNT, and not {named}"))
    });
    for seed in first..first.saturating_add(count) {
        let _replay = Replay { seed, command };
        look(seed);
    }
}

/// Tells how a seed that fails is had again.
struct Replay<'a> {
    seed: u64,
    command: &'a str,
}

impl Drop for Replay<'_> {
    #[allow(clippy::print_stderr, reason = "for whoever runs tests")]
    fn drop(&mut self) {
        if panicking() {
            eprintln!("again: ARPANET_CHAOS={}:1 {}", self.seed, self.command);
        }
    }
}
