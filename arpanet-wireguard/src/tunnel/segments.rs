//! TCP segments that follow each other, as the one large segment that the kernel would have made of them.

use tun_rs::VIRTIO_NET_HDR_LEN;

const IPV4_HEADER: usize = 20;
const TCP: u8 = 6;
const PUSH: u8 = 0x08;
const ACK: u8 = 0x10;
/// What both headers can take at most, with TCP's options.
const HEADERS: usize = IPV4_HEADER + 60;
const MAX_PACKET: usize = 65_535;
/// Segments joined at most: what the other side can have cut one into.
pub(super) const MAX_SEGMENTS: usize = 128;

/// In the header of virtio: the checksum is to be finished.
const NEEDS_CHECKSUM: u8 = 1;
/// In the header of virtio: a TCP segment over IPv4 that is to be cut.
const TCP_OVER_IPV4: u8 = 1;
/// Where TCP has its checksum.
const CHECKSUM_AT: u16 = 16;

/// What is needed of a segment to join another to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    headers: usize,
    payload: usize,
    sequence: u32,
    push: bool,
}

/// `None` if it is something else, or a segment that must stay alone.
fn segment(packet: &[u8]) -> Option<Segment> {
    // Without options, and not a fragment.
    let plain = packet.len() > IPV4_HEADER + 20
        && packet[0] == 0x45
        && packet[6] & !0x40 == 0
        && packet[7] == 0
        && packet[9] == TCP;
    if !plain {
        return None;
    }
    let headers = IPV4_HEADER + usize::from(packet[32] >> 4) * 4;
    if headers < IPV4_HEADER + 20 || packet.len() <= headers || packet[33] & !PUSH != ACK {
        return None;
    }
    Some(Segment {
        headers,
        payload: packet.len() - headers,
        sequence: u32::from_be_bytes([packet[24], packet[25], packet[26], packet[27]]),
        push: packet[33] & PUSH != 0,
    })
}

/// Whether two segments differ in nothing but length, identification, sequence, PSH and checksums.
fn alike(one: &[u8], other: &[u8], headers: usize) -> bool {
    [0..2, 6..10, 12..24, 28..33, 34..36, 38..headers]
        .into_iter()
        .all(|part| one[part.clone()] == other[part])
}

/// Packets that go to the kernel with one write: segments joined, or a single packet of any kind.
#[derive(Debug)]
pub(super) struct Run<P> {
    packets: Vec<P>,
    /// Of the first packet, if others can be joined to it.
    first: Option<Segment>,
    payload: usize,
    /// The last one was shorter, or asked to be delivered at once.
    complete: bool,
    push: bool,
}

impl<P> Default for Run<P> {
    fn default() -> Self {
        Self {
            packets: Vec::with_capacity(MAX_SEGMENTS),
            first: None,
            payload: 0,
            complete: false,
            push: false,
        }
    }
}

impl<P: AsRef<[u8]>> Run<P> {
    /// Adds a packet, or gives it back: the run is to be written first.
    pub(super) fn push(&mut self, packet: P) -> Option<P> {
        let Some(head) = self.packets.first() else {
            self.first = segment(packet.as_ref());
            (self.payload, self.push) = self
                .first
                .map_or((0, false), |first| (first.payload, first.push));
            self.complete = self.push || self.first.is_none();
            self.packets.push(packet);
            return None;
        };
        let joined = self.first.zip(segment(packet.as_ref()));
        let joined = joined.filter(|(first, next)| {
            !self.complete
                && self.packets.len() < MAX_SEGMENTS
                && next.headers == first.headers
                && next.payload <= first.payload
                && next.sequence == first.sequence.wrapping_add(self.payload as u32)
                && first.headers + self.payload + next.payload <= MAX_PACKET
                && alike(head.as_ref(), packet.as_ref(), first.headers)
        });
        let Some((first, next)) = joined else {
            return Some(packet);
        };
        self.payload += next.payload;
        self.push = next.push;
        self.complete = next.push || next.payload < first.payload;
        self.packets.push(packet);
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.packets.clear();
    }

    /// What to write: the header of virtio with, where packets are joined, their common headers, then the rest.
    pub(super) fn parts(&self) -> (Header, impl Iterator<Item = &[u8]>) {
        let joined = self.first.filter(|_| self.packets.len() > 1);
        let (header, skip) = match joined.zip(self.packets.first()) {
            Some((first, head)) => (self.header(first, head.as_ref()), first.headers),
            None => (Header::alone(), 0),
        };
        (
            header,
            self.packets
                .iter()
                .map(move |packet| &packet.as_ref()[skip..]),
        )
    }

    fn header(&self, first: Segment, head: &[u8]) -> Header {
        let length = first.headers + self.payload;
        let mut bytes = [0; VIRTIO_NET_HDR_LEN + HEADERS];
        let (virtio, rest) = bytes.split_at_mut(VIRTIO_NET_HDR_LEN);
        (virtio[0], virtio[1]) = (NEEDS_CHECKSUM, TCP_OVER_IPV4);
        let fields = [
            first.headers as u16,
            first.payload as u16,
            IPV4_HEADER as u16,
            CHECKSUM_AT,
        ];
        for (place, field) in virtio[2..].chunks_exact_mut(2).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        let headers = &mut rest[..first.headers];
        headers.copy_from_slice(&head[..first.headers]);
        headers[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        headers[10..12].fill(0);
        let checksum = !folded(sum(&headers[..IPV4_HEADER]));
        headers[10..12].copy_from_slice(&checksum.to_be_bytes());
        if self.push {
            headers[33] |= PUSH;
        }
        // The kernel finishes it from the sum of the addresses, the protocol and the length.
        let pseudo = sum(&headers[12..20]) + u32::from(TCP) + (length - IPV4_HEADER) as u32;
        headers[36..38].copy_from_slice(&folded(pseudo).to_be_bytes());
        Header {
            bytes,
            length: VIRTIO_NET_HDR_LEN + first.headers,
        }
    }
}

/// What stands before the payload of a write.
pub(super) struct Header {
    bytes: [u8; VIRTIO_NET_HDR_LEN + HEADERS],
    length: usize,
}

impl Header {
    const fn alone() -> Self {
        Self {
            bytes: [0; VIRTIO_NET_HDR_LEN + HEADERS],
            length: VIRTIO_NET_HDR_LEN,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The sum of RFC 1071 before it is folded, of an even number of bytes.
fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A segment with one option of 12 bytes, as Linux sends them.
    fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 52];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(52 + payload.len() as u16).to_be_bytes());
        packet[6] = 0x40;
        (packet[8], packet[9]) = (64, TCP);
        packet[12..20].copy_from_slice(&[10, 9, 0, 1, 10, 9, 0, 2]);
        packet[24..28].copy_from_slice(&sequence.to_be_bytes());
        (packet[32], packet[33]) = (8 << 4, flags);
        packet.extend_from_slice(payload);
        packet
    }

    fn written(run: &Run<Vec<u8>>) -> Vec<u8> {
        let (header, parts) = run.parts();
        let mut bytes = header.as_bytes().to_vec();
        parts.for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    fn run(packets: &[Vec<u8>]) -> (Run<Vec<u8>>, usize) {
        let mut run = Run::default();
        let taken = packets
            .iter()
            .take_while(|packet| run.push(packet.to_vec()).is_none())
            .count();
        (run, taken)
    }

    #[test]
    fn a_packet_alone_is_written_as_it_is() {
        for packet in [
            tcp(7, ACK, b"payload"),
            tcp(7, ACK, b""),
            vec![0x45, 1, 2],
            vec![],
        ] {
            let (run, _) = run(std::slice::from_ref(&packet));
            assert_eq!(written(&run)[..VIRTIO_NET_HDR_LEN], [0; VIRTIO_NET_HDR_LEN]);
            assert_eq!(written(&run)[VIRTIO_NET_HDR_LEN..], packet);
        }
    }

    #[test]
    fn what_differs_stays_apart() {
        let first = tcp(0, ACK, &[1; 100]);
        let next = tcp(100, ACK, &[2; 100]);
        assert_eq!(run(&[first.clone(), next.clone()]).1, 2);
        let change = |at: usize, to: u8| {
            let mut packet = next.clone();
            packet[at] = to;
            packet
        };
        let others = [
            tcp(101, ACK, &[2; 100]),
            tcp(100, ACK, &[2; 101]),
            tcp(100, ACK, b""),
            tcp(100, ACK | 1, &[2; 100]),
            change(1, 3),
            change(6, 0x60),
            change(7, 1),
            change(8, 63),
            change(15, 9),
            change(21, 9),
            change(31, 9),
            change(35, 9),
            change(51, 9),
        ];
        for other in others {
            assert_eq!(run(&[first.clone(), other.clone()]).1, 1, "{other:?}");
        }
        // After a segment that is shorter, or to be delivered at once, nothing joins.
        let short = tcp(100, ACK, &[2; 50]);
        assert_eq!(run(&[first.clone(), short, tcp(150, ACK, &[3; 50])]).1, 2);
        let push = tcp(100, ACK | PUSH, &[2; 100]);
        assert_eq!(run(&[first, push, tcp(200, ACK, &[3; 100])]).1, 2);
    }

    proptest! {
        #[test]
        fn joined_segments_are_the_large_one(
            sequence: u32,
            size in 1..1_400_usize,
            length in 1..60_000_u32,
            push: bool,
        ) {
            let data: Vec<u8> = (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let last = data.chunks(size).count() - 1;
            let packets: Vec<_> = data.chunks(size).enumerate().map(|(at, chunk)| {
                let flags = if push && at == last { ACK | PUSH } else { ACK };
                tcp(sequence.wrapping_add((at * size) as u32), flags, chunk)
            }).collect();
            let (run, taken) = run(&packets);
            prop_assert_eq!(taken, packets.len().min(MAX_SEGMENTS));
            if taken < 2 {
                return Ok(());
            }
            let bytes = written(&run);
            let (virtio, packet) = bytes.split_at(VIRTIO_NET_HDR_LEN);
            prop_assert_eq!(u16::from_ne_bytes([virtio[4], virtio[5]]), size as u16);
            prop_assert_eq!(&packet[52..], &data[..data.len().min(size * taken)]);
            prop_assert_eq!(&packet[24..28], &sequence.to_be_bytes()[..]);
            prop_assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            prop_assert_eq!(folded(sum(&packet[..20])), 0xFFFF);
            prop_assert_eq!(packet[33] & PUSH != 0, push && taken == packets.len());
        }
    }
}
