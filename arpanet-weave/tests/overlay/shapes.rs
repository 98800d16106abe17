//! That the tests' router answers as the real one was recorded to answer.

use std::collections::BTreeSet;

use arpanet_core::Overlay;
use serde_json::Value;

use crate::site::{connect, one_host, two_hosts, until};

/// What stands where in a report, without what it is: a line for each place and type. Lists have one kind of thing in them.
fn shape(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "text",
            Value::Array(_) => "list",
            Value::Object(_) => "object",
        };
        found.insert(format!("{path}: {kind}"));
        match value {
            Value::Array(items) => items
                .iter()
                .for_each(|item| walk(item, &format!("{path}[]"), found)),
            Value::Object(fields) => fields
                .iter()
                .for_each(|(name, field)| walk(field, &format!("{path}.{name}"), found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(value, "", &mut found);
    found
}

/// Every recorded report, without the parts about addresses and DNS, which arpanet2 has switched off.
fn recorded() -> Vec<Value> {
    macro_rules! recording {
        ($($name:literal)*) => {
            [$(include_str!(concat!("../recordings/", $name))),*]
        };
    }
    let texts = recording!(
        "three-peers/report.json" "three-peers/report_end.json" "failures/connect-to-self.report.json"
        "failures/established-no-routes-yet.report.json" "failures/lone-peer.report.json"
        "failures/name-collision.report.json" "failures/refused-and-connecting.report.json"
        "failures/refused-and-noroute.report.json" "failures/retrying.report.json"
        "failures/wrong-password-dialler.report.json" "failures/wrong-password-listener.report.json"
    );
    texts
        .iter()
        .map(|text| {
            let mut report: Value = serde_json::from_str(text).unwrap();
            let fields = report.as_object_mut().unwrap();
            fields.remove("IPAM");
            fields.remove("DNS");
            report
        })
        .collect()
}

/// Nothing is where no recording has it, and all is there that every recording has.
fn assert_recorded(report: &Value) {
    let shapes: Vec<BTreeSet<String>> = recorded().iter().map(shape).collect();
    let known: BTreeSet<&String> = shapes.iter().flatten().collect();
    let own = shape(report);
    let new: Vec<&String> = own.iter().filter(|place| !known.contains(place)).collect();
    assert!(new.is_empty(), "no recording has {new:#?} of {report:#}");
    let always = known
        .iter()
        .filter(|place| shapes.iter().all(|shape| shape.contains(**place)));
    let missing: Vec<_> = always.filter(|place| !own.contains(**place)).collect();
    assert!(missing.is_empty(), "all recordings have {missing:#?}");
    let states = ["established", "pending", "connecting", "retrying", "failed"];
    for connection in report["Router"]["Connections"]
        .as_array()
        .into_iter()
        .flatten()
    {
        assert!(
            states.contains(&connection["State"].as_str().unwrap()),
            "{connection}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_have_the_shape_of_recordings_in_every_state() {
    let Some((one, mut two)) = two_hosts().await else {
        return;
    };
    one.launch().await;
    assert_recorded(&one.report());
    // Nothing listens there, and nobody is there.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    one.ask(
        "POST",
        "/connect",
        form,
        "peer=192.168.9.2:6783&peer=192.168.9.77",
    );
    assert_recorded(&one.report());
    until("one of them has failed", async || {
        let report = one.report();
        assert_recorded(&report);
        report.to_string().contains("connection refused")
    })
    .await;
    // Another password.
    two.key = 8;
    two.launch().await;
    until("the password is wrong", async || {
        let report = one.report();
        assert_recorded(&report);
        report.to_string().contains("Unable to decrypt TCP msg")
    })
    .await;
    assert_recorded(&two.report());
    two.overlay.reset().await.unwrap();
    two.key = one.key;
    connect(&one, &two).await;
    for host in [&one, &two] {
        assert_recorded(&host.report());
        host.leave_nothing_behind().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_answers_are_those_that_were_recorded() {
    let Some(one) = one_host().await else {
        return;
    };
    one.launch().await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    macro_rules! body {
        ($name:literal) => {
            include_str!(concat!("../recordings/three-peers/", $name, ".txt"))
        };
    }
    let asked = [
        (
            "report_no_accept",
            "GET",
            "/report",
            "",
            body!("report_no_accept"),
        ),
        (
            "connect",
            "POST",
            "/connect",
            "peer=192.168.77.99",
            body!("connect"),
        ),
        (
            "connect_multi",
            "POST",
            "/connect",
            "peer=192.168.77.98&peer=192.168.77.97:7000",
            body!("connect_multi"),
        ),
        (
            "connect_badport",
            "POST",
            "/connect",
            "peer=192.168.77.98:!!",
            body!("connect_badport"),
        ),
        (
            "connect_get_405",
            "GET",
            "/connect",
            "",
            body!("connect_get_405"),
        ),
        (
            "forget",
            "POST",
            "/forget",
            "peer=192.168.77.99&peer=192.168.77.98&peer=192.168.77.97:7000",
            body!("forget"),
        ),
        (
            "forget_unknown",
            "POST",
            "/forget",
            "peer=1.2.3.4",
            body!("forget_unknown"),
        ),
    ];
    let index = include_str!("../recordings/three-peers/INDEX.tsv");
    for (file, method, path, sent, recorded) in asked {
        let line = index
            .lines()
            .find(|line| line.starts_with(&format!("{file}.txt\t")))
            .unwrap();
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!((fields[1], fields[2]), (method, path));
        let (head, body) = one.ask(method, path, form, sent);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {} ", fields[4])),
            "{file}: {head}"
        );
        let kind = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Type: "));
        assert_eq!(kind.unwrap_or_default(), fields[5], "{file}");
        assert_eq!(body, recorded, "{file}");
    }
    // Of these arpanet2 has no use, and there is nothing to compare with.
    for (method, path) in [
        ("POST", "/expose/10.254.0.1/8"),
        ("GET", "/ring"),
        ("DELETE", "/peer"),
    ] {
        let (head, _) = one.ask(method, path, "", "");
        assert!(head.starts_with("HTTP/1.1 501 "), "{method} {path}: {head}");
    }
    one.leave_nothing_behind().await;
}
