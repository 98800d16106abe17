//! Netlink attributes: a length, a kind, a value, and padding to 4 bytes (linux/netlink.h). Numbers are in the byte order of the
//! machine unless said.

use zeroize::Zeroizing;

/// Marks an attribute that is made of attributes.
const NESTED: u16 = 1 << 15;
/// The bits of a kind that are not its number.
const FLAGS: u16 = 0b11 << 14;
const HEAD: usize = 4;

/// Attributes that are being written. Wiped when dropped: there may be a key in them.
#[derive(Default)]
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    pub(super) fn new() -> Self {
        // Without room to grow, a private key would be left behind where the bytes were before.
        Self(Zeroizing::new(Vec::with_capacity(
            2 * super::message::LARGEST,
        )))
    }

    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        self.head(kind, value.len());
        self.raw(value);
        self.pad();
    }

    /// A string, with the zero that ends it.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.head(kind, value.len() + 1);
        self.raw(value.as_bytes());
        self.raw(&[0]);
        self.pad();
    }

    /// An attribute that is made of those that the closure writes.
    pub(super) fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.head(NESTED | kind, 0);
        write(self);
        let length = self.0.len() - at;
        self.set_u16(at, length);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn head(&mut self, kind: u16, length: usize) {
        let at = self.0.len();
        self.raw(&[0; 2]);
        self.raw(&kind.to_ne_bytes());
        self.set_u16(at, HEAD + length);
    }

    fn set_u16(&mut self, at: usize, value: usize) {
        debug_assert!(value <= usize::from(u16::MAX), "an attribute is too long");
        self.0[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    }

    fn pad(&mut self) {
        let padded = self.0.len().next_multiple_of(4);
        self.0.resize(padded, 0);
    }
}

/// The attributes in these bytes, by number, up to the first that is broken.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(array(bytes)?));
        let kind = u16::from_ne_bytes(array(bytes.get(2..)?)?) & !FLAGS;
        let value = bytes.get(HEAD..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first bytes, if there are as many.
pub(super) fn array<const LENGTH: usize>(bytes: &[u8]) -> Option<[u8; LENGTH]> {
    bytes.get(..LENGTH)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut writer = Writer::new();
        writer.put(1, &[7]);
        writer.text(2, "wg0");
        writer.nested(8, |writer| writer.put(3, &[1, 2, 3, 4, 5]));
        let read: Vec<(u16, &[u8])> = attributes(writer.bytes()).collect();
        assert_eq!(read[0], (1, &[7][..]));
        assert_eq!(read[1], (2, &b"wg0\0"[..]));
        assert_eq!(read[2].0, 8);
        let inside: Vec<(u16, &[u8])> = attributes(read[2].1).collect();
        assert_eq!(inside, [(3, &[1, 2, 3, 4, 5][..])]);
        assert_eq!(read.len(), 3);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(attributes(&bytes).count() <= bytes.len() / HEAD);
        }
    }
}
