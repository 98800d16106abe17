//! Packets that follow each other, as the one large packet that the kernel would have made of them.

use std::ops::Range;

use tun_rs::VIRTIO_NET_HDR_LEN;

const IPV4_HEADER: usize = 20;
const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const PUSH: u8 = 0x08;
const ACK: u8 = 0x10;
/// What both headers can take at most, with TCP's options.
const HEADERS: usize = IPV4_HEADER + 60;
const MAX_PACKET: usize = 65_535;
/// Packets joined at most: what the other side can have cut one into.
pub(super) const MAX_SEGMENTS: usize = 128;
/// Datagrams joined at most (UDP_MAX_SEGMENTS of Linux before 6.9).
const MAX_DATAGRAMS: usize = 64;

/// In the header of virtio: the checksum is to be finished.
const NEEDS_CHECKSUM: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp { sequence: u32, push: bool },
    Udp,
}

/// What is needed of a packet to join another to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    kind: Kind,
    headers: usize,
    payload: usize,
}

/// `None` if it must stay alone.
fn segment(packet: &[u8]) -> Option<Segment> {
    // Without options, and not a fragment.
    let plain = packet.len() > IPV4_HEADER + UDP_HEADER
        && packet[0] == 0x45
        && packet[6] & !0x40 == 0
        && packet[7] == 0;
    match packet.get(9) {
        Some(&TCP) if plain => tcp(packet),
        Some(&UDP) if plain => udp(packet),
        _ => None,
    }
}

fn tcp(packet: &[u8]) -> Option<Segment> {
    let headers = IPV4_HEADER + usize::from(packet.get(32)? >> 4) * 4;
    if headers < IPV4_HEADER + 20 || packet.len() <= headers || packet[33] & !PUSH != ACK {
        return None;
    }
    Some(Segment {
        kind: Kind::Tcp {
            sequence: u32::from_be_bytes([packet[24], packet[25], packet[26], packet[27]]),
            push: packet[33] & PUSH != 0,
        },
        headers,
        payload: packet.len() - headers,
    })
}

fn udp(packet: &[u8]) -> Option<Segment> {
    let length = usize::from(u16::from_be_bytes([packet[24], packet[25]]));
    // A checksum of zero is none, and must stay none.
    let whole = length == packet.len() - IPV4_HEADER && packet[26..28] != [0, 0];
    whole.then(|| Segment {
        kind: Kind::Udp,
        headers: IPV4_HEADER + UDP_HEADER,
        payload: length - UDP_HEADER,
    })
}

impl Segment {
    const fn push(self) -> bool {
        matches!(self.kind, Kind::Tcp { push: true, .. })
    }

    /// Whether another comes where this one's payload, with all that was joined to it, ends.
    fn goes_on(self, payload: usize, next: Self) -> bool {
        match (self.kind, next.kind) {
            (Kind::Tcp { sequence, .. }, Kind::Tcp { sequence: next, .. }) => {
                next == sequence.wrapping_add(payload as u32)
            }
            (Kind::Udp, Kind::Udp) => true,
            _ => false,
        }
    }

    const fn most(self) -> usize {
        match self.kind {
            Kind::Tcp { .. } => MAX_SEGMENTS,
            Kind::Udp => MAX_DATAGRAMS,
        }
    }

    /// In the header of virtio: how it is to be cut.
    const fn cut(self) -> u8 {
        match self.kind {
            Kind::Tcp { .. } => 1,
            Kind::Udp => 5,
        }
    }

    /// Where the checksum is, behind the header of IPv4.
    const fn checksum_at(self) -> usize {
        match self.kind {
            Kind::Tcp { .. } => 16,
            Kind::Udp => 6,
        }
    }

    /// Whether two packets differ in nothing but length, identification, sequence, PSH and checksums.
    fn alike(self, one: &[u8], other: &[u8]) -> bool {
        let addresses_and_ports: [Range<usize>; 3] = [0..2, 6..10, 12..24];
        let rest = match self.kind {
            Kind::Tcp { .. } => [28..33, 34..36, 38..self.headers],
            Kind::Udp => [0..0, 0..0, 0..0],
        };
        let mut parts = addresses_and_ports.into_iter().chain(rest);
        parts.all(|part| one[part.clone()] == other[part])
    }
}

/// Packets that go to the kernel with one write: some joined, or a single one of any kind.
#[derive(Debug)]
pub(super) struct Run<P> {
    /// Whether the device takes UDP datagrams joined.
    datagrams: bool,
    packets: Vec<P>,
    /// Of the first packet, if others can be joined to it.
    first: Option<Segment>,
    payload: usize,
    /// The last one was shorter, or asked to be delivered at once.
    complete: bool,
    push: bool,
}

impl<P: AsRef<[u8]>> Run<P> {
    /// Empty; `datagrams` says whether the device takes UDP datagrams joined.
    pub(super) fn new(datagrams: bool) -> Self {
        Self {
            datagrams,
            packets: Vec::with_capacity(MAX_SEGMENTS),
            first: None,
            payload: 0,
            complete: false,
            push: false,
        }
    }

    /// Adds a packet, or gives it back: the run is to be written first.
    pub(super) fn push(&mut self, packet: P) -> Option<P> {
        let segment =
            segment(packet.as_ref()).filter(|segment| self.datagrams || segment.kind != Kind::Udp);
        let Some(head) = self.packets.first() else {
            self.first = segment;
            self.payload = segment.map_or(0, |first| first.payload);
            self.push = segment.is_some_and(Segment::push);
            self.complete = self.push || segment.is_none();
            self.packets.push(packet);
            return None;
        };
        let joined = self.first.zip(segment).filter(|(first, next)| {
            !self.complete
                && self.packets.len() < first.most()
                && next.headers == first.headers
                && next.payload <= first.payload
                && first.goes_on(self.payload, *next)
                && first.headers + self.payload + next.payload <= MAX_PACKET
                && first.alike(head.as_ref(), packet.as_ref())
        });
        let Some((first, next)) = joined else {
            return Some(packet);
        };
        self.payload += next.payload;
        self.push = next.push();
        self.complete = self.push || next.payload < first.payload;
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
        (virtio[0], virtio[1]) = (NEEDS_CHECKSUM, first.cut());
        let fields = [
            first.headers as u16,
            first.payload as u16,
            IPV4_HEADER as u16,
            first.checksum_at() as u16,
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
        let behind = (length - IPV4_HEADER) as u16;
        match first.kind {
            Kind::Tcp { .. } if self.push => headers[33] |= PUSH,
            Kind::Tcp { .. } => {}
            Kind::Udp => headers[24..26].copy_from_slice(&behind.to_be_bytes()),
        }
        // The kernel finishes it from the sum of the addresses, the protocol and the length.
        let pseudo = sum(&headers[12..20]) + u32::from(headers[9]) + u32::from(behind);
        let at = IPV4_HEADER + first.checksum_at();
        headers[at..at + 2].copy_from_slice(&folded(pseudo).to_be_bytes());
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

    #[test]
    fn a_datagram_that_says_it_is_shorter_than_its_header_stays_alone() {
        let mut packet = vec![0; 40];
        (packet[0], packet[9]) = (0x45, UDP);
        (packet[25], packet[27]) = (7, 1);
        assert_eq!(segment(&packet), None);
        packet[25] = 20;
        assert!(segment(&packet).is_some());
    }

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

    fn udp(checksum: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = tcp(0, ACK, payload);
        packet.drain(28..52);
        packet[9] = UDP;
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
        packet[26..28].fill(checksum);
        packet
    }

    fn written(run: &Run<Vec<u8>>) -> Vec<u8> {
        let (header, parts) = run.parts();
        let mut bytes = header.as_bytes().to_vec();
        parts.for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    fn run(packets: &[Vec<u8>]) -> (Run<Vec<u8>>, usize) {
        let mut run = Run::new(true);
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

    #[test]
    fn datagrams_of_one_size_are_joined_where_the_device_takes_it() {
        let (one, two, three) = (udp(1, &[1; 100]), udp(2, &[2; 100]), udp(3, &[3; 9]));
        let (joined, taken) = run(&[one.clone(), two.clone(), three.clone(), one.clone()]);
        assert_eq!(taken, 3);
        let bytes = written(&joined);
        let (virtio, packet) = bytes.split_at(VIRTIO_NET_HDR_LEN);
        assert_eq!((virtio[1], packet.len()), (5, 237));
        assert_eq!(packet[24..26], 217_u16.to_be_bytes());
        assert_eq!(
            packet[28..],
            [&one[28..], &two[28..], &three[28..]].concat()
        );
        assert_eq!(run(&[one.clone(), udp(0, &[2; 100])]).1, 1);
        assert_eq!(run(&[three, one.clone()]).1, 1);
        let mut plain = Run::new(false);
        assert_eq!(plain.push(one), None);
        assert_eq!(plain.push(two.clone()), Some(two));
        // One that says it is longer than it is.
        let mut long = udp(1, &[1; 100]);
        long[25] += 1;
        assert_eq!(run(&[long.clone(), long]).1, 1);
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
