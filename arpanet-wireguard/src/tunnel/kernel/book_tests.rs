use proptest::prelude::*;

use super::*;

const ONE: PublicKey = PublicKey::from_bytes([1; 32]);
const TWO: PublicKey = PublicKey::from_bytes([2; 32]);
const OWN: PublicKey = PublicKey::from_bytes([5; 32]);
const HIGHER: PublicKey = PublicKey::from_bytes([9; 32]);
const NOBODY: PublicKey = PublicKey::from_bytes([7; 32]);

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn book() -> Book {
    Book::new(OWN, NOBODY)
}

fn change(key: PublicKey) -> PeerChange {
    PeerChange::new(*key.as_bytes())
}

fn wanted(key: PublicKey, endpoint: Option<&str>, allowed: &[&str]) -> PeerConfig {
    let allowed = allowed.iter().map(|text| net(text)).collect();
    PeerConfig::new(key, endpoint.map(at), allowed)
}

fn seen(key: PublicKey, rx_bytes: u64) -> WireGuardPeer {
    let mut seen = WireGuardPeer::new(*key.as_bytes());
    seen.rx_bytes = rx_bytes;
    seen
}

#[test]
fn the_kernel_is_told_what_differs_and_nothing_else() {
    let (mut book, now) = (book(), Instant::now());
    let allowed = ["10.1.0.5/32", "10.1.0.6/32"];
    let first = wanted(ONE, Some("192.0.2.1:7"), &allowed);
    let told = change(ONE).keepalive(25).allow(nets(allowed.map(net)));
    let told = DeviceChange::new().peer(told.endpoint(at("192.0.2.1:7")));
    assert_eq!(book.want(&first, now), Some(told));
    assert_eq!(book.want(&first, now), None);
    // Without an endpoint the old one stands, and is told again only when it is another.
    assert_eq!(book.want(&wanted(ONE, None, &allowed), now), None);
    assert_eq!(book.want(&first, now), None);
    let moved = wanted(ONE, Some("192.0.2.2:7"), &allowed);
    let told = change(ONE).keepalive(25).endpoint(at("192.0.2.2:7"));
    assert_eq!(book.want(&moved, now), Some(DeviceChange::new().peer(told)));
    assert_eq!(
        book.unwant(&ONE),
        Some(DeviceChange::new().peer(change(ONE).remove()))
    );
    assert_eq!(book.unwant(&ONE), None);
}

#[test]
fn an_address_is_taken_away_without_replacing_the_others() {
    let (mut book, now) = (book(), Instant::now());
    book.want(&wanted(ONE, None, &["10.1.0.5/32", "10.1.0.6/32"]), now);
    let less = book.want(&wanted(ONE, None, &["10.1.0.6/32", "10.1.0.7/32"]), now);
    let told = DeviceChange::new()
        .peer(change(NOBODY).allow(nets([net("10.1.0.5/32")])))
        .peer(change(NOBODY).remove())
        .peer(change(ONE).keepalive(25).allow(nets([net("10.1.0.7/32")])));
    assert_eq!(less, Some(told));
}

#[test]
fn an_address_that_moved_is_not_taken_from_who_has_it_now() {
    let (mut book, now) = (book(), Instant::now());
    let both = ["10.1.0.5/32"];
    book.want(&wanted(ONE, None, &both), now);
    book.want(&wanted(TWO, None, &both), now);
    // The first is still said to have it: it moves back.
    assert!(book.want(&wanted(ONE, None, &both), now).is_some());
    assert!(book.want(&wanted(TWO, None, &[]), now).is_none());
    assert!(book.want(&wanted(ONE, None, &both), now).is_none());
}

#[test]
fn a_peer_that_was_found_stays_where_a_nat_has_put_it() {
    for (endpoint, moves) in [("192.0.2.1:51821", false), ("192.0.2.2:51821", true)] {
        let mut book = book();
        let mut found = seen(ONE, 0);
        found.endpoint = Some(at("192.0.2.1:4711"));
        found.allowed_ips = vec![net("10.1.0.5/32").into()];
        let mut device = WireGuardDevice::default();
        device.peers.push(found);
        book.read(&device);
        let wanted = wanted(ONE, Some(endpoint), &["10.1.0.5/32"]);
        assert_eq!(book.want(&wanted, Instant::now()).is_some(), moves);
    }
}

#[test]
fn a_handshake_begins_with_a_fresh_peer_and_has_its_time() {
    let (mut book, now) = (book(), Instant::now());
    book.want(&wanted(HIGHER, Some("192.0.2.1:7"), &["10.1.0.5/32"]), now);
    let mut nudge =
        |after: u64| book.nudge(&seen(HIGHER, 0), false, now + Duration::from_millis(after));
    assert_eq!(nudge(500), None, "it was begun when the peer was made");
    let told = DeviceChange::new().peer(change(HIGHER).remove()).peer(
        change(HIGHER)
            .keepalive(25)
            .allow(nets([net("10.1.0.5/32")]))
            .endpoint(at("192.0.2.1:7")),
    );
    assert_eq!(nudge(1_000), Some(told));
    assert_eq!(nudge(1_500), None);
    assert!(nudge(2_000).is_some());
    assert_eq!(book.nudge(&seen(TWO, 0), false, now), None, "a stranger");
}

#[test]
fn two_that_nudge_each_other_at_the_same_moments_do_not_cross_again() {
    let now = Instant::now();
    let mut sides = [Book::new(ONE, NOBODY), Book::new(TWO, NOBODY)];
    let others = [TWO, ONE];
    for (side, other) in sides.iter_mut().zip(others) {
        side.want(&wanted(other, Some("192.0.2.1:7"), &[]), now);
    }
    let alone = (1..20).any(|turn| {
        let now = now + Duration::from_millis(500) * turn;
        let begins = [0, 1].map(|side| {
            let seen = seen(others[side], 0);
            sides[side].nudge(&seen, false, now).is_some()
        });
        begins[0] != begins[1]
    });
    assert!(alone);
}

#[test]
fn a_session_is_given_up_only_when_nothing_comes_of_it() {
    let (mut book, now) = (book(), Instant::now());
    let mut device = WireGuardDevice::default();
    device.peers.push(seen(ONE, 10));
    book.read(&device);
    let mut nudge = |rx, after: u64| {
        let now = now + Duration::from_millis(after);
        book.nudge(&seen(ONE, rx), true, now).is_some()
    };
    assert!(!nudge(10, 0), "nothing is known yet");
    assert!(!nudge(10, 500), "it may come");
    assert!(!nudge(20, 2_000), "it came");
    assert!(!nudge(20, 2_900));
    assert!(nudge(20, 3_000));
}

#[test]
fn a_device_goes_on_that_is_the_nodes_own_and_whole_and_of_the_past() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let mut device = WireGuardDevice::default();
    device.private_key = Some(arpanet_netlink::WireGuardSecret::from_bytes(&[1; 32]));
    let mut peer = seen(ONE, 0);
    peer.last_handshake = Some(now - Duration::from_secs(5));
    device.peers.push(peer);
    assert!(may_go_on(&device, Some("me"), "me", now));
    assert!(!may_go_on(&device, Some("another"), "me", now));
    assert!(!may_go_on(&device, None, "me", now));
    let back = now - Duration::from_secs(3_600);
    assert!(!may_go_on(&device, Some("me"), "me", back));
    device.private_key = None;
    assert!(!may_go_on(&device, Some("me"), "me", now));
}

#[test]
fn a_session_is_one_for_three_minutes() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let age = |seconds| session_age(Some(now - Duration::from_secs(seconds)), now);
    assert_eq!(age(179), Some(Duration::from_secs(179)));
    assert_eq!(age(180), None);
    assert_eq!(session_age(None, now), None);
    assert_eq!(session_age(Some(now + SLACK), now), Some(Duration::ZERO));
}

/// What the kernel would have of a change (drivers/net/wireguard/netlink.c).
#[derive(Debug, Default)]
struct Kernel(BTreeMap<[u8; 32], BTreeSet<IpNet>>);

impl Kernel {
    fn take(&mut self, change: &DeviceChange) {
        for peer in change.peers() {
            if peer.is_removed() {
                self.0.remove(peer.public_key());
                continue;
            }
            for net in peer.allowed_ips() {
                for nets in self.0.values_mut() {
                    nets.remove(net);
                }
            }
            let nets = self.0.entry(*peer.public_key()).or_default();
            nets.extend(peer.allowed_ips());
        }
    }
}

proptest! {
    /// Whatever is wanted in whatever order, the kernel has what was last wanted, and at no moment less of what stays.
    #[test]
    fn the_kernel_has_what_was_last_wanted(
        steps in proptest::collection::vec((0_u8..4, proptest::collection::btree_set(0_u8..6, 0..5), any::<bool>()), 1..30)
    ) {
        let (mut book, mut kernel, now) = (book(), Kernel::default(), Instant::now());
        let mut owners: BTreeMap<IpNet, [u8; 32]> = BTreeMap::new();
        for (key, addresses, goes) in steps {
            let key = PublicKey::from_bytes([key; 32]);
            let addresses: Vec<Ipv4Net> = addresses.iter().map(|last| net(&format!("10.1.0.{last}/32"))).collect();
            owners.retain(|_, owner| owner != key.as_bytes());
            let change = if goes {
                book.unwant(&key)
            } else {
                owners.extend(nets(addresses.clone()).map(|net| (net, *key.as_bytes())));
                book.want(&PeerConfig::new(key, None, addresses), now)
            };
            change.iter().for_each(|change| kernel.take(change));
            let has: BTreeMap<IpNet, [u8; 32]> = kernel.0.iter()
                .flat_map(|(key, nets)| nets.iter().map(|net| (*net, *key)))
                .collect();
            prop_assert_eq!(&has, &owners);
            prop_assert!(!kernel.0.contains_key(NOBODY.as_bytes()));
        }
    }
}
