//! The ledger on the kernel: a host is changed, and is then as it was before.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use arpanet_core::ErrorKind;
use arpanet_core::conformance::live;
use arpanet_netlink::{
    Change, Ledger, MacAddr, Namespace, Netlink, Route, Rule, RuleAction, TABLE_LOCAL, VethPair,
};

struct Fixture {
    folder: tempfile::TempDir,
    host: Netlink,
}

impl Fixture {
    /// A host of its own, or `None` where this process may not make one and the test is to be skipped.
    async fn new() -> Option<Self> {
        let namespace = live::found_or_skip("root", Namespace::create())?;
        let host = namespace.handle().unwrap();
        host.set_up("lo", true).await.unwrap();
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
            host,
        })
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(self.folder.path().join("ledger"), self.host.clone()).unwrap()
    }

    fn pin(&self) -> PathBuf {
        self.folder.path().join("router")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("resolv.conf")
    }

    /// One change of every kind, as a boot makes them.
    fn changes(&self) -> Vec<Change> {
        let local = |priority| {
            let mut rule = Rule::new(priority, RuleAction::Lookup(TABLE_LOCAL));
            // As the kernel made it, and as it then is not.
            rule.protocol = if priority == 0 { 2 } else { 0 };
            rule
        };
        let mac = MacAddr::new([2, 0, 0, 0, 0, 9]);
        vec![
            Change::PinNamespace { path: self.pin() },
            Change::AddVeth(VethPair::new("arpanet0", "host0", self.pin(), mac, 1420)),
            Change::AddAddress {
                link: "arpanet0".to_owned(),
                address: "10.255.0.1/32".parse().unwrap(),
            },
            Change::SetSysctl {
                name: "net.ipv4.ip_default_ttl".to_owned(),
                value: "65".to_owned(),
            },
            Change::AddRule(
                Rule::new(1010, RuleAction::Lookup(1010))
                    .iif("lo")
                    .to("10.0.0.0/8".parse().unwrap()),
            ),
            Change::AddRoute(Route::prohibit("10.0.0.0/8".parse().unwrap()).table(1010)),
            Change::MoveRule {
                from: local(0),
                to: local(1020),
            },
            Change::WriteFile {
                path: self.file(),
                contents: "nameserver 169.254.1.1\n".to_owned(),
                mode: 0o644,
            },
        ]
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        Namespace::unpin(self.pin()).unwrap();
    }
}

fn ttl(host: &Netlink) -> String {
    host.namespace().sysctl("net.ipv4.ip_default_ttl").unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_host_is_as_before_after_any_number_of_starts_and_one_reset() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    fs::write(fixture.file(), "nameserver 8.8.8.8\n").unwrap();
    fs::set_permissions(fixture.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let (before, ttl_before) = (fixture.host.snapshot().await.unwrap(), ttl(&fixture.host));

    let ledger = fixture.ledger();
    ledger.apply_all(fixture.changes()).await.unwrap();
    let after = fixture.host.snapshot().await.unwrap();
    assert!(
        after.difference(&before).len() >= 6,
        "{:?}",
        before.difference(&after)
    );
    assert_eq!(ttl(&fixture.host), "65");

    // The process is killed and starts again: everything is found as it is.
    drop(ledger);
    let ledger = fixture.ledger();
    assert_eq!(ledger.standing().await.len(), fixture.changes().len());
    ledger.apply_all(fixture.changes()).await.unwrap();
    let again = fixture.host.snapshot().await.unwrap();
    assert_eq!(after.difference(&again), Vec::<String>::new());
    assert_eq!(ledger.standing().await.len(), fixture.changes().len());

    for _ in 0..2 {
        ledger.undo_all().await.unwrap();
        let reset = fixture.host.snapshot().await.unwrap();
        assert_eq!(before.difference(&reset), Vec::<String>::new());
        assert_eq!(ttl(&fixture.host), ttl_before);
        assert_eq!(
            fs::read_to_string(fixture.file()).unwrap(),
            "nameserver 8.8.8.8\n"
        );
        assert_eq!(mode(&fixture.file()), 0o640);
        assert!(!fixture.pin().exists());
    }
}

/// The process is killed between two changes, at each of them: what is written down is always more than what was made.
#[tokio::test]
async fn a_host_is_as_before_wherever_the_process_was_killed() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let path = fixture.folder.path().join("ledger");
    let (before, ttl_before) = (fixture.host.snapshot().await.unwrap(), ttl(&fixture.host));
    let ledger = fixture.ledger();
    ledger.apply_all(fixture.changes()).await.unwrap();
    let written = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = written.split_inclusive('\n').collect();
    assert_eq!(lines.len(), fixture.changes().len());
    ledger.undo_all().await.unwrap();
    drop(ledger);
    for made in 0..lines.len() {
        let next = &lines[made][..lines[made].len() / 2];
        for written in [
            // Each by itself: the next one is on the disk, or half of it.
            lines[..=made].concat(),
            format!("{}{next}", lines[..made].concat()),
            // All together: they are written down at once.
            lines.concat(),
        ] {
            let ledger = fixture.ledger();
            let changes = fixture.changes().into_iter().take(made);
            ledger.apply_all(changes).await.unwrap();
            drop(ledger);
            fs::write(&path, written).unwrap();
            fixture.ledger().undo_all().await.unwrap();
            let reset = fixture.host.snapshot().await.unwrap();
            assert_eq!(before.difference(&reset), Vec::<String>::new(), "{made}");
            assert_eq!(ttl(&fixture.host), ttl_before);
            assert!(!fixture.file().exists() && !fixture.pin().exists());
            assert_eq!(fs::read_to_string(&path).unwrap(), "");
        }
    }
}

#[tokio::test]
async fn what_somebody_unmade_is_mended_by_the_same_call() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let ledger = fixture.ledger();
    ledger.apply_all(fixture.changes()).await.unwrap();
    let after = fixture.host.snapshot().await.unwrap();
    let rules = fixture.host.rules().await.unwrap();
    fixture
        .host
        .delete_rule(rules.iter().find(|rule| rule.priority == 1010).unwrap())
        .await
        .unwrap();
    fixture
        .host
        .delete_address("arpanet0", "10.255.0.1/32".parse().unwrap())
        .await
        .unwrap();
    ledger.apply_all(fixture.changes()).await.unwrap();
    assert_eq!(
        after.difference(&fixture.host.snapshot().await.unwrap()),
        Vec::<String>::new()
    );
    ledger.undo_all().await.unwrap();
}

#[tokio::test]
async fn a_change_that_fails_takes_those_before_it_with_it() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let before = fixture.host.snapshot().await.unwrap();
    let ledger = fixture.ledger();
    let mut changes = fixture.changes();
    changes.push(Change::AddAddress {
        link: "nothing".to_owned(),
        address: "10.255.0.1/32".parse().unwrap(),
    });
    let error = ledger.apply_all(changes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        before.difference(&fixture.host.snapshot().await.unwrap()),
        Vec::<String>::new()
    );
    assert_eq!(ledger.standing().await, []);
    assert!(!fixture.file().exists() && !fixture.pin().exists());
}

#[tokio::test]
async fn what_is_not_ours_is_neither_taken_nor_undone() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let foreign = Rule::new(1010, RuleAction::Prohibit).to("10.0.0.0/8".parse().unwrap());
    fixture.host.add_rule(&foreign).await.unwrap();
    fixture.host.add_bridge("arpanet0").await.unwrap();
    let before = fixture.host.snapshot().await.unwrap();
    let ledger = fixture.ledger();
    ledger.apply(Change::AddRule(foreign)).await.unwrap();
    assert_eq!(ledger.standing().await, []);
    let error = ledger.apply_all(fixture.changes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.hint().unwrap().contains("ip link del arpanet0"));
    ledger.undo_all().await.unwrap();
    assert_eq!(
        before.difference(&fixture.host.snapshot().await.unwrap()),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_file_that_somebody_changed_since_is_left_alone() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let ledger = fixture.ledger();
    ledger.apply_all(fixture.changes()).await.unwrap();
    fs::write(fixture.file(), "nameserver 9.9.9.9\n").unwrap();
    ledger.undo_all().await.unwrap();
    assert_eq!(
        fs::read_to_string(fixture.file()).unwrap(),
        "nameserver 9.9.9.9\n"
    );
}

#[tokio::test]
async fn an_undo_where_the_kernel_has_nothing_left_is_harmless() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    fixture.ledger().apply_all(fixture.changes()).await.unwrap();
    // What a power loss leaves of a lab host: the state folder, and a network namespace that is new.
    Namespace::unpin(fixture.pin()).unwrap();
    let fresh = Namespace::create().unwrap().handle().unwrap();
    let before = fresh.snapshot().await.unwrap();
    let ledger = Ledger::open(fixture.folder.path().join("ledger"), fresh.clone()).unwrap();
    ledger.undo_all().await.unwrap();
    assert_eq!(
        before.difference(&fresh.snapshot().await.unwrap()),
        Vec::<String>::new()
    );
}
