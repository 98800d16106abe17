use serde_json::json;

use super::*;

fn entry(service: serde_json::Value, checks: serde_json::Value) -> ServiceEntry {
    serde_json::from_value(json!({
        "Node": {"Node": "banana", "Address": "10.253.0.2"},
        "Service": service,
        "Checks": checks,
    }))
    .unwrap()
}

fn web() -> Instance {
    Instance::new(
        "0.2:w1".parse().unwrap(),
        "web".parse().unwrap(),
        [10, 1, 0, 5].into(),
        80,
        "0.2".parse().unwrap(),
    )
    .in_net(Some("10.1.0.0/16".parse().unwrap()))
    .tagged(["blue".parse().unwrap()])
}

/// What consul makes of what it was told.
fn registered(instance: &Instance, more: serde_json::Value) -> ServiceEntry {
    let told = to_service(instance, &[]);
    let mut checks = vec![json!({
        "CheckID": told.checks[0].check_id,
        "Status": told.checks[0].status,
        "ServiceID": told.id,
    })];
    checks.extend(more.as_array().unwrap().iter().cloned());
    entry(
        json!({
            "ID": told.id, "Service": told.name, "Tags": told.tags,
            "Address": told.address, "Port": told.port, "Meta": told.meta,
        }),
        checks.into(),
    )
}

#[test]
fn an_instance_goes_there_and_back() {
    for health in [Health::Passing, Health::Critical] {
        let web = web().health(health);
        let entry = registered(&web, json!([]));
        assert_eq!(to_instance(&entry), Some(web.clone()));
        let entries = [entry];
        assert!(is_shown(&entries, "banana", &web));
        assert!(!is_shown(&entries, "apple", &web));
        let mut moved = web.clone();
        moved.port = 81;
        assert!(!is_shown(&entries, "banana", &moved));
    }
    let sick = web().health(Health::Critical);
    assert!(!is_shown(&[registered(&web(), json!([]))], "banana", &sick));
}

#[test]
fn a_node_that_is_lost_suspends_and_what_else_fails_is_critical() {
    for (checks, health) in [
        (
            json!([{"CheckID": "serfHealth", "Status": "passing"}]),
            Health::Passing,
        ),
        (
            json!([{"CheckID": "serfHealth", "Status": "critical"}]),
            Health::Suspended,
        ),
        (
            json!([{"CheckID": "arpanet", "Status": "critical"}]),
            Health::Suspended,
        ),
        (
            json!([{"CheckID": "disk", "Status": "warning"}]),
            Health::Passing,
        ),
        (
            json!([{"CheckID": "disk", "Status": "critical"}]),
            Health::Critical,
        ),
        (
            json!([{"CheckID": "_node_maintenance", "Status": "critical"}]),
            Health::Critical,
        ),
        // Somebody's check of a service may have any id.
        (
            json!([{"CheckID": "arpanet", "Status": "critical", "ServiceID": "w1"}]),
            Health::Critical,
        ),
    ] {
        let entry = registered(&web(), checks.clone());
        assert_eq!(to_instance(&entry).unwrap().health, health, "{checks}");
    }
}

#[test]
fn what_others_registered_at_consul_is_an_instance_where_it_can_be_one() {
    let db = to_instance(&entry(
        json!({"ID": "db1", "Service": "db", "Port": 5432}),
        json!([]),
    ));
    let db = db.unwrap();
    assert_eq!(db.id.as_str(), "0.2:db1");
    assert_eq!(
        (db.ip, db.node),
        ([10, 253, 0, 2].into(), "0.2".parse().unwrap())
    );
    for none in [
        json!({"ID": "consul", "Service": "consul", "Port": 8300}),
        json!({"ID": "arpanet-member", "Service": "arpanet-member"}),
        json!({"ID": "x", "Service": "not_a_label", "Port": 1}),
        json!({"ID": "x", "Service": "x", "Address": "example.org"}),
    ] {
        assert_eq!(to_instance(&entry(none.clone(), json!([]))), None, "{none}");
    }
}

#[test]
fn of_two_with_one_id_the_one_that_gets_traffic_counts() {
    let here = web().health(Health::Suspended);
    let mut there = web();
    there.node = "0.3".parse().unwrap();
    for both in [[here.clone(), there.clone()], [there.clone(), here]] {
        assert_eq!(
            by_id(both).into_values().collect::<Vec<_>>(),
            [there.clone()]
        );
    }
}

#[test]
fn a_member_goes_there_and_back() {
    let me = NodeInfo::new(
        "0.2".parse().unwrap(),
        "banana".parse().unwrap(),
        Role::Server,
    );
    let told = to_member(&me);
    let service = json!({"ID": told.id, "Service": told.name, "Meta": told.meta});
    let (at, member) = to_node(&entry(service.clone(), json!([]))).unwrap();
    assert_eq!(at, "banana");
    assert_eq!(member, Member::new(me.node, me.name, me.role));
    let lost = json!([{"CheckID": "serfHealth", "Status": "critical"}]);
    let (_, member) = to_node(&entry(service, lost)).unwrap();
    assert_eq!(member.state, MemberState::Down);
}
