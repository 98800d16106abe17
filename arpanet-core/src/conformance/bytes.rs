//! What has to hold whatever the bytes are: the same functions that a fuzzer drives with coverage, driven without, over its
//! seeds and what is a little different from them. So ordinary tests keep them true between two runs of the fuzzer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::random::Random;

/// The longest input that is made up.
const LONGEST: usize = 2048;

/// The folder with the seeds of one of this repository's own targets.
#[must_use]
pub fn seeds(target: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds")).join(target)
}

/// Has a function look at all seeds in a folder, and at so many inputs that are made of them and of chance: the same ones
/// each time.
///
/// # Panics
/// Where the function does, with the bytes, and where there is no seed.
pub fn hold(seeds: impl AsRef<Path>, rounds: u32, look: impl Fn(&[u8])) {
    let seeds = read(seeds.as_ref());
    let mut random = Random::new(rounds.into());
    let look = |bytes: &[u8]| {
        if let Err(why) = catch_unwind(AssertUnwindSafe(|| look(bytes))) {
            let word = why.downcast_ref::<&str>().copied();
            let words = why.downcast_ref::<String>().map(String::as_str);
            let why = words.or(word).unwrap_or("it panics");
            panic!("{why}\nwith the {} bytes {}", bytes.len(), hex(bytes));
        }
    };
    seeds.iter().for_each(|seed| look(seed));
    for _ in 0..rounds {
        look(&made_up(&seeds, &mut random));
    }
}

fn read(folder: &Path) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder).and_then(|files| {
        let mut paths = files
            .map(|file| Ok(file?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        // The order that a folder has its files in is chance.
        paths.sort();
        paths.into_iter().map(std::fs::read).collect()
    });
    let files: Vec<Vec<u8>> = match files {
        Ok(files) => files,
        Err(error) => panic!("{} can't be read: {error}", folder.display()),
    };
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn below(random: &mut Random, bound: usize) -> usize {
    let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
    usize::try_from(random.next() % bound).unwrap_or(0)
}

fn noise(random: &mut Random, longest: usize) -> Vec<u8> {
    let length = below(random, longest);
    (0..length)
        .map(|_| random.next().to_be_bytes()[0])
        .collect()
}

/// One input in eight has nothing of the seeds.
fn made_up(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if below(random, 8) == 0 {
        return noise(random, LONGEST);
    }
    let mut bytes = seeds[below(random, seeds.len())].clone();
    for _ in 0..=below(random, 6) {
        change(&mut bytes, seeds, random);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = below(random, bytes.len());
    let end = at + below(random, bytes.len() - at + 1);
    match below(random, 8) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << below(random, 8),
        1 if !bytes.is_empty() => {
            bytes[at] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF, b'"', b' '][below(random, 8)];
        }
        2 if !bytes.is_empty() => bytes[at] = random.next().to_be_bytes()[0],
        3 => drop(bytes.drain(at..end)),
        4 => bytes.truncate(end),
        5 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        6 => {
            let other = &seeds[below(random, seeds.len())];
            let from = below(random, other.len());
            bytes.splice(at.., other[from..].iter().copied());
        }
        _ => {
            let new = noise(random, 16);
            bytes.splice(at..at, new);
        }
    }
}

/// Reads an input as what a function wants to look at: whatever the bytes are there is something, and a byte more or less
/// here changes little there.
#[derive(Debug, Clone)]
pub struct Draw<'a>(&'a [u8]);

impl<'a> Draw<'a> {
    /// From all of an input.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left; from then on all that is drawn is zero, or empty.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// One of these.
    ///
    /// # Panics
    /// Where there are none.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    /// Any number: most are small, or at an edge.
    pub fn number(&mut self) -> u64 {
        const EDGES: [u64; 8] = [
            u64::MAX,
            u64::MAX - 1,
            i64::MAX as u64,
            u32::MAX as u64,
            1 << 32,
            u16::MAX as u64,
            1 << 16,
            256,
        ];
        match self.byte() {
            small @ ..=0xEF => small.into(),
            edge @ ..=0xF7 => EDGES[usize::from(edge - 0xF0)],
            _ => u64::from_be_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// Some of the bytes: up to 127, or by one byte more of length up to 32,767.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = match self.byte() {
            short @ ..=0x7F => usize::from(short),
            long => usize::from(long & 0x7F) << 8 | usize::from(self.byte()),
        };
        let (piece, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// What is text of [`piece`](Self::piece), from its beginning.
    pub fn text(&mut self) -> &'a str {
        let piece = self.piece();
        piece.utf8_chunks().next().map_or("", |chunk| chunk.valid())
    }

    /// [`piece`](Self::piece) by piece, to the end.
    pub fn pieces(mut self) -> impl Iterator<Item = &'a [u8]> {
        std::iter::from_fn(move || (!self.is_done()).then(|| self.piece()))
    }

    /// Whether, as often as not.
    pub fn coin(&mut self) -> bool {
        self.byte() % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn folder(seeds: &[&[u8]]) -> std::path::PathBuf {
        let name = format!("arpanet-bytes-{}-{}", std::process::id(), seeds.len());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(number.to_string()), seed).unwrap();
        }
        folder
    }

    #[test]
    fn what_does_not_hold_is_told_with_its_bytes() {
        let folder = folder(&[b"abcabc", b"xyz"]);
        let looked = Cell::new(0);
        hold(&folder, 500, |_| looked.set(looked.get() + 1));
        assert_eq!(looked.get(), 502);
        // A seed that is changed a little: neither is a seed.
        let fault = catch_unwind(|| {
            hold(&folder, 5_000, |bytes| {
                assert!(!bytes.starts_with(b"abca\xFF"), "found it");
            });
        });
        let told = *fault.unwrap_err().downcast::<String>().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        assert!(told.starts_with("found it\nwith the "), "{told}");
        assert!(told.contains("bytes 61626361ff"), "{told}");
    }

    #[test]
    fn a_folder_without_seeds_is_no_test() {
        let empty = folder(&[]);
        for folder in [empty.as_path(), Path::new("/nonexistent")] {
            assert!(catch_unwind(|| hold(folder, 1, |_| {})).is_err());
        }
        std::fs::remove_dir_all(empty).unwrap();
    }

    #[test]
    fn whatever_the_bytes_are_something_is_drawn() {
        let mut draw = Draw::new(&[3, b'a', 0xFF, b'b', 0xF0, 7, 0x81, 0, 1]);
        assert_eq!((draw.text(), draw.number()), ("a", u64::MAX));
        assert_eq!(draw.one_of(&["x", "y"]), "y");
        assert_eq!(draw.piece(), [1]);
        assert!(draw.is_done());
        assert_eq!((draw.byte(), draw.number(), draw.text()), (0, 0, ""));
        let pieces: Vec<&[u8]> = Draw::new(&[1, 9, 0, 2, 7]).pieces().collect();
        assert_eq!(pieces, [&[9][..], &[], &[7]]);
    }
}
