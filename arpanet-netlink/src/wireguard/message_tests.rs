use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KEY: [u8; 32] = [0xAB; 32];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Bytes in hexadecimal, with spaces as one likes.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .collect();
    let bytes = digits.chunks(2).map(|two| two.iter().collect::<String>());
    bytes
        .map(|two| u8::from_str_radix(&two, 16).unwrap())
        .collect()
}

/// Written from include/uapi/linux/wireguard.h and include/linux/netlink.h, for a machine that puts the low byte first.
#[cfg(target_endian = "little")]
#[test]
fn a_change_is_what_the_kernel_reads() {
    let endpoint = "192.0.2.7:51820".parse().unwrap();
    let change = DeviceChange::new()
        .private_key(WireGuardSecret::from_bytes(&[0x11; 32]))
        .listen_port(51821)
        .mark(0xA2)
        .replace_peers()
        .peer(
            PeerChange::new(KEY)
                .replace_allowed_ips()
                .endpoint(endpoint)
                .keepalive(25)
                .allow([net("10.255.0.2/32")]),
        )
        .peer(PeerChange::new([0xCD; 32]).remove());
    let key = "ab".repeat(32);
    let expected = format!(
        "01 01 0000
         0800 0200 77673000
         2400 0300 {private}
         0800 0500 01000000
         0600 0600 6dca 0000
         0800 0700 a2000000
         a000 0880
           6c00 0080
             2400 0100 {key}
             0800 0300 02000000
             1400 0400 0200 ca6c c0000207 0000000000000000
             0600 0500 1900 0000
             2000 0980
               1c00 0080
                 0600 0100 0200 0000
                 0800 0200 0aff0002
                 0500 0300 20 000000
           3000 0080
             2400 0100 {other}
             0800 0300 01000000",
        private = "11".repeat(32),
        other = "cd".repeat(32),
    );
    let parts = set("wg0", &change);
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].bytes(), hex(&expected));
}

#[cfg(target_endian = "little")]
#[test]
fn the_question_is_what_the_kernel_reads() {
    assert_eq!(get("wg0").bytes(), hex("00 01 0000 0800 0200 77673000"));
}

#[cfg(target_endian = "little")]
#[test]
fn an_answer_is_read_as_the_kernel_writes_it() {
    let key = "ab".repeat(32);
    let first = format!(
        "00 01 0000
         0600 0600 6dca 0000
         0800 0700 a2000000
         0800 0100 07000000
         0800 0200 77673000
         2400 0300 {private}
         2400 0400 {public}
         c000 0880
           bc00 0080
             2400 0100 {key}
             2400 0200 {none}
             1400 0600 d2029649 00000000 15cd5b07 00000000
             0600 0500 1900 0000
             0c00 0800 0200000000000000
             0c00 0700 0001000000000000
             0800 0a00 01000000
             1400 0400 0200 ca6c c0000207 0000000000000000
             2000 0980
               1c00 0080
                 0500 0300 20 000000
                 0600 0100 0200 0000
                 0800 0200 0aff0002",
        private = "11".repeat(32),
        public = "22".repeat(32),
        none = "00".repeat(32),
    );
    let second = format!(
        "00 01 0000
         5800 0880
           5400 0080
             2400 0100 {key}
             2c00 0980
               2800 0080
                 0500 0300 40 000000
                 0600 0100 0a00 0000
                 1400 0200 20010db8000000000000000000000000"
    );
    let mut device = WireGuardDevice::default();
    for part in [first, second] {
        read_part(&hex(&part), &mut device);
    }
    assert_eq!(device.listen_port, 51821);
    assert_eq!(device.mark, 0xA2);
    assert_eq!(device.public_key, Some([0x22; 32]));
    assert_eq!(device.private_key.unwrap().as_bytes(), &[0x11; 32]);
    let [peer] = &device.peers[..] else {
        panic!("{:?}", device.peers)
    };
    assert_eq!(peer.public_key, KEY);
    assert_eq!(peer.endpoint, Some("192.0.2.7:51820".parse().unwrap()));
    assert_eq!(peer.keepalive, 25);
    assert_eq!((peer.rx_bytes, peer.tx_bytes), (256, 2));
    let moment = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    assert_eq!(peer.last_handshake, Some(moment));
    assert_eq!(
        peer.allowed_ips,
        [net("10.255.0.2/32"), net("2001:db8::/64")]
    );
}

#[test]
fn a_peer_that_never_was_heard_of_has_no_handshake() {
    assert_eq!(read_moment(&[0; 16]), None);
    assert_eq!(read_moment(&[0xFF; 16]), None);
    assert_eq!(read_moment(&[0; 3]), None);
}

fn change(peers: &[usize]) -> DeviceChange {
    let peers = peers.iter().enumerate().map(|(number, addresses)| {
        let addresses =
            (0..*addresses as u32).map(|ip| IpNet::from(IpAddr::from(Ipv4Addr::from(ip))));
        PeerChange::new([number as u8; 32])
            .replace_allowed_ips()
            .allow(addresses)
    });
    peers.fold(DeviceChange::new().listen_port(1), DeviceChange::peer)
}

proptest! {
    /// However many peers and addresses there are: no part is longer than it may be, all that was asked for is in one, and only
    /// the first mention of a peer replaces what it had.
    #[test]
    fn a_change_in_parts_is_the_whole(peers in proptest::collection::vec(0_usize..700, 0..12)) {
        let change = change(&peers);
        let mut told: BTreeMap<[u8; 32], Vec<IpNet>> = BTreeMap::new();
        for (number, part) in set("wg0", &change).iter().enumerate() {
            prop_assert!(part.len() <= 2 * LARGEST);
            let has_port = attributes(&part.bytes()[4..]).any(|(kind, _)| kind == device::LISTEN_PORT);
            prop_assert_eq!(has_port, number == 0);
            let list = attributes(&part.bytes()[4..]).find(|(kind, _)| *kind == device::PEERS);
            for (_, bytes) in list.into_iter().flat_map(|(_, list)| attributes(list)) {
                let peer = read_peer(bytes).unwrap();
                let replaces = attributes(bytes).any(|(kind, _)| kind == peer::FLAGS);
                prop_assert_eq!(replaces, !told.contains_key(&peer.public_key));
                told.entry(peer.public_key).or_default().extend(peer.allowed_ips);
            }
        }
        let wanted: BTreeMap<[u8; 32], Vec<IpNet>> = change
            .peers
            .into_iter()
            .map(|peer| (peer.public_key, peer.allowed_ips))
            .collect();
        prop_assert_eq!(told, wanted);
    }

    #[test]
    fn no_answer_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        read_part(&bytes, &mut WireGuardDevice::default());
    }
}
