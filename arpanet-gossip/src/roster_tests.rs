//! Who may say what of the roster.

use arpanet_core::roster::Role;

use super::*;

const CLUSTER: ClusterId = ClusterId::from_bytes([4; 16]);

fn key(index: u8) -> SigningKey {
    SigningKey::from_bytes(&[index; 32])
}

fn addr(index: u8) -> NodeAddr {
    NodeAddr::from_index(index.into()).unwrap()
}

fn entry(index: u8, role: Role) -> RosterEntry {
    RosterEntry::new(
        addr(index),
        format!("node{index}").parse().unwrap(),
        role,
        Identity::from_bytes(key(index).verifying_key().to_bytes()),
        index.into(),
    )
}

/// Node 1 has booted, 2 is a server, 3 a client; seen from node 2.
fn roster() -> ProvenRoster {
    let entries = [(1, Role::Boot), (2, Role::Server), (3, Role::Client)];
    let roster = entries.map(|(index, role)| entry(index, role));
    ProvenRoster::new(CLUSTER, addr(2), roster.into_iter().collect(), Vec::new())
}

fn signed(entry: RosterEntry, by: u8) -> SignedEntry {
    SignedEntry::sign(&CLUSTER, entry, addr(by), &key(by))
}

fn forgotten(index: u8, role: Role) -> RosterEntry {
    let mut entry = entry(index, role);
    entry.generation += 1;
    entry.forgotten = true;
    entry
}

#[test]
fn only_those_who_admit_can_let_others_in() {
    let newcomer = entry(9, Role::Server);
    let mut roster = roster();
    assert_eq!(roster.hear(signed(newcomer.clone(), 3)), Heard::Forged);
    // The word of node 1, with another's signature, or for another cluster.
    let mut borrowed = signed(newcomer.clone(), 3);
    borrowed.by = addr(1);
    assert_eq!(roster.hear(borrowed), Heard::Forged);
    let other = ClusterId::from_bytes([5; 16]);
    let foreign = SignedEntry::sign(&other, newcomer.clone(), addr(1), &key(1));
    assert_eq!(roster.hear(foreign), Heard::Forged);
    // What was signed and then changed.
    let mut changed = signed(entry(9, Role::Client), 1);
    changed.entry.role = Role::Server;
    assert_eq!(roster.hear(changed), Heard::Forged);
    assert!(roster.roster().holder(addr(9)).is_none());

    assert_eq!(roster.hear(signed(newcomer.clone(), 1)), Heard::Taken);
    assert_eq!(roster.hear(signed(newcomer.clone(), 1)), Heard::Known);
    assert_eq!(roster.roster().holder(addr(9)), Some(&newcomer));
}

#[test]
fn a_client_can_not_make_itself_a_server_or_take_an_address_over() {
    let mut roster = roster();
    let mut risen = entry(3, Role::Server);
    risen.generation = 2;
    assert_eq!(roster.hear(signed(risen, 3)), Heard::Forged);
    let mut thief = entry(3, Role::Client);
    thief.node = addr(1);
    thief.generation = 7;
    assert_eq!(roster.hear(signed(thief, 3)), Heard::Forged);
    assert_eq!(
        roster.roster().holder(addr(3)),
        Some(&entry(3, Role::Client))
    );
    assert_eq!(roster.roster().holder(addr(1)), Some(&entry(1, Role::Boot)));
}

#[test]
fn a_node_forgets_itself_and_a_client_nobody_else() {
    let mut roster = roster();
    assert_eq!(
        roster.hear(signed(forgotten(1, Role::Boot), 3)),
        Heard::Forged
    );
    assert_eq!(
        roster.hear(signed(forgotten(3, Role::Client), 3)),
        Heard::Taken
    );
    assert!(roster.roster().holder(addr(3)).is_none());
    // From then on its word counts for nothing, and its old entry does not come back.
    assert_eq!(
        roster.hear(signed(entry(3, Role::Client), 1)),
        Heard::Refused
    );
    assert_eq!(
        roster.hear(signed(forgotten(1, Role::Boot), 2)),
        Heard::Taken
    );
    assert_eq!(
        roster.hear(signed(entry(9, Role::Client), 1)),
        Heard::Unproven
    );
}

#[test]
fn an_entry_waits_for_the_one_who_vouches_for_it() {
    let mut roster = roster();
    let (server, client) = (entry(8, Role::Server), entry(9, Role::Client));
    assert_eq!(roster.hear(signed(client.clone(), 8)), Heard::Unproven);
    assert!(roster.roster().holder(addr(9)).is_none());
    assert_eq!(roster.hear(signed(server, 1)), Heard::Taken);
    assert_eq!(roster.roster().holder(addr(9)), Some(&client));
}

#[test]
fn who_admits_vouches_for_what_it_trusts_and_a_client_does_not() {
    let roster = roster();
    let proof = roster.proof(addr(3), &key(2)).unwrap();
    let entries = [entry(1, Role::Boot), entry(2, Role::Server)];
    let mut other = ProvenRoster::new(CLUSTER, addr(1), entries.into_iter().collect(), Vec::new());
    assert_eq!(other.hear(proof), Heard::Taken);
    let entries = [entry(1, Role::Boot), entry(3, Role::Client)];
    let client = ProvenRoster::new(CLUSTER, addr(3), entries.into_iter().collect(), Vec::new());
    assert!(client.proof(addr(1), &key(3)).is_none());
}
