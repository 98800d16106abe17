//! What a consul that lies may say.

use arpanet_core::conformance::bytes::Draw;
use serde_json::{Value, json};

/// The bytes of an answer.
pub(super) fn answer(said: &mut Draw<'_>) -> Vec<u8> {
    const STATUS: [u16; 10] = [200, 200, 200, 200, 204, 404, 409, 403, 429, 500];
    let status = said.one_of(&STATUS);
    let mut head = format!("HTTP/1.1 {status} said\r\n");
    if said.coin() {
        head += &format!("X-Consul-Index: {}\r\n", said.number());
    }
    if said.byte() < 16 {
        head += "X-Consul-KnownLeader: false\r\n";
    }
    let body = match said.byte() % 8 {
        0 => said.piece().to_vec(),
        1 => return said.piece().to_vec(),
        2 => return [head.as_bytes(), b"\r\n", said.piece()].concat(),
        kind => body(kind, said).to_string().into_bytes(),
    };
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), &body].concat()
}

fn body(kind: u8, said: &mut Draw<'_>) -> Value {
    match kind {
        3 => many(said, entry),
        4 => many(said, pair),
        5 => match said.byte() % 4 {
            0 => json!({ "Results": many(said, |said| json!({ "KV": pair(said) })) }),
            _ => {
                json!({ "Results": null, "Errors": many(said, |said| json!({ "What": fault(said) })) })
            }
        },
        6 => match said.byte() % 6 {
            0 => json!(true),
            1 => json!(false),
            2 => json!({ "ID": name(said) }),
            3 => json!([{ "ID": name(said) }]),
            4 => Value::Null,
            _ => json!(name(said)),
        },
        _ => match said.byte() % 4 {
            0 => (0..said.byte() % 4)
                .map(|_| (name(said), json!([])))
                .collect(),
            1 => many(
                said,
                |said| json!({ "Name": name(said), "Status": said.byte() % 5 }),
            ),
            2 => many(said, |said| json!(name(said))),
            _ => service(said),
        },
    }
}

fn many(said: &mut Draw<'_>, mut one: impl FnMut(&mut Draw<'_>) -> Value) -> Value {
    (0..said.byte() % 5).map(|_| one(said)).collect()
}

/// Most are those that are asked about.
fn name(said: &mut Draw<'_>) -> String {
    const NAMES: [&str; 14] = [
        "web",
        "web",
        "db",
        "Web",
        "consul",
        "arpanet-member",
        "arpanet:0.1:web",
        "node1",
        "node2",
        "a/b",
        "arpanet/locks/a/b",
        "mine",
        "",
        "..",
    ];
    match said.byte() {
        other @ 200.. => format!("{}{other}", said.text()),
        known => NAMES[usize::from(known) % NAMES.len()].to_owned(),
    }
}

fn fault(said: &mut Draw<'_>) -> String {
    const WORDS: [&str; 7] = [
        "lock is already held",
        "lock delay",
        "invalid session",
        "index is stale",
        "lock isn't held",
        "Permission denied",
        "",
    ];
    format!("{}{}", said.one_of(&WORDS), said.text())
}

fn pair(said: &mut Draw<'_>) -> Value {
    json!({
        "Key": name(said),
        "Value": said.one_of(&[json!(null), json!("dmFsdWU="), json!("?"), json!("")].each_ref()),
        "Session": said.coin().then(|| name(said)),
        "LockIndex": said.number(),
        "CreateIndex": said.number(),
        "ModifyIndex": said.number(),
    })
}

fn check(said: &mut Draw<'_>) -> Value {
    json!({
        "CheckID": said.one_of(&["serfHealth", "arpanet", "arpanet:0.1:web:health", "service:x", ""]),
        "Status": said.one_of(&["passing", "warning", "critical", "maintenance"]),
        "ServiceID": if said.coin() { name(said) } else { String::new() },
    })
}

fn service(said: &mut Draw<'_>) -> Value {
    let ip = |said: &mut Draw<'_>| match said.byte() % 8 {
        0 => String::new(),
        1 => said.text().to_owned(),
        2 => format!("10.253.0.{}", said.byte()),
        _ => format!("10.1.0.{}", said.byte()),
    };
    let meta = json!({
        "arpanet-node": said.one_of(&["0.1", "0.2", "0.0", "x"]),
        "arpanet-name": said.one_of(&["node1", "node2", "-", ""]),
        "arpanet-role": said.one_of(&["boot", "server", "client", "king"]),
        "arpanet-net": said.one_of(&["10.1.0.0/16", "10.1.0.0/24", "10.0.0.0/8", "x"]),
    });
    json!({
        "ID": name(said),
        "Service": name(said),
        "Tags": said.coin().then(|| many(said, |said| json!(name(said)))),
        "Address": ip(said),
        "Port": said.number() & 0x1_FFFF,
        "Meta": said.coin().then_some(meta),
    })
}

fn entry(said: &mut Draw<'_>) -> Value {
    json!({
        "Node": { "Node": name(said), "Address": format!("10.253.0.{}", said.byte()) },
        "Service": service(said),
        "Checks": said.coin().then(|| many(said, check)),
    })
}
