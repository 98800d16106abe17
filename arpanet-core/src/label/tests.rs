use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn wants(pairs: &[(&str, &str)]) -> Wants {
    read(&labels(pairs), None)
}

fn nets(wants: &Wants) -> Vec<String> {
    assert_eq!(wants.problems, Vec::<String>::new());
    wants.nets.iter().map(ToString::to_string).collect()
}

/// The one sentence about what is wrong.
fn problem(pairs: &[(&str, &str)]) -> String {
    let wants = wants(pairs);
    assert_eq!(wants.problems.len(), 1, "{:?}", wants.problems);
    wants.problems[0].clone()
}

#[test]
fn labels_of_others_want_nothing() {
    assert!(wants(&[("com.docker.compose.service", "web")]).is_empty());
    assert!(read(&BTreeMap::new(), Some("none")).is_empty());
}

#[test]
fn networks_by_cidr_and_by_name_and_addresses() {
    let both = wants(&[(NET, "10.1.0.0/16, shop"), (IP, "10.3.0.9/24,10.4.0.2/8")]);
    assert_eq!(
        nets(&both),
        ["10.1.0.0/16", "shop", "10.3.0.9/24", "10.4.0.2/8"]
    );
    assert!(matches!(both.nets[1], NetRequest::Named(_)));
}

#[test]
fn an_address_stands_for_its_network_and_may_borrow_its_prefix() {
    let beside = [(NET, "10.1.0.0/24"), (IP, "10.1.0.5")];
    assert_eq!(nets(&wants(&beside)), ["10.1.0.5/24"]);
    let same = [(NET, "10.1.0.0/16,10.1.0.0/16"), (IP, "10.1.0.5/16")];
    assert_eq!(nets(&wants(&same)), ["10.1.0.5/16"]);
    assert!(problem(&[(IP, "10.1.0.5")]).contains("10.1.0.5/16"));
}

#[test]
fn a_service_with_port_tags_and_check() {
    let wants = wants(&[
        (NET, "10.1.0.0/16"),
        (SERVICE, "Web"),
        (PORT, "80"),
        (TAGS, "v2,blue"),
        (CHECK, "http:/health"),
        (CHECK_INTERVAL, "500ms"),
        (CHECK_TIMEOUT, "2"),
    ]);
    assert!(wants.problems.is_empty(), "{:?}", wants.problems);
    let mut spec = ContainerSpec::image("nginx").service("old".parse().unwrap(), 1);
    wants.put_into(&mut spec);
    let service = spec.service.unwrap();
    assert_eq!((service.name.as_str(), service.port), ("web", 80));
    assert_eq!(service.tags.len(), 2);
    assert_eq!(spec.checks[0].probe.to_string(), "http:/health");
    assert_eq!(spec.checks[0].interval, Some(Duration::from_millis(500)));
    assert_eq!(spec.checks[0].timeout, Some(Duration::from_secs(2)));
}

#[test]
fn checks_are_read_as_they_print() {
    for text in [
        "http:/",
        "http:/a/b?c=d,e",
        "http:8080/health",
        "tcp",
        "tcp:5432",
        "cmd:pg_isready -U 'me', you",
    ] {
        let web = [(SERVICE, "web"), (PORT, "80"), (CHECK, text)];
        let wants = wants(&web);
        assert!(wants.problems.is_empty(), "{:?}", wants.problems);
        assert_eq!(wants.checks[0].probe.to_string(), text);
    }
    // Without a path it is the root.
    let root = wants(&[(CHECK, "http:8080")]);
    assert_eq!(root.checks[0].probe.to_string(), "http:8080/");
}

#[test]
fn each_bad_label_is_one_sentence_that_names_it() {
    for (name, value) in [
        (NET, "10.1.0.1/16"),
        (NET, "10.253.0.0/16"),
        (NET, "under_score"),
        (IP, "10.1.0.0/16"),
        (IP, "10.255.0.1/16"),
        (IP, "shop"),
        (SERVICE, "web.shop"),
        (CHECK, "https:/health"),
        (CHECK, "http:/health"),
        (CHECK, "http:0/health"),
        (CHECK, "tcp:"),
        (CHECK, "cmd:"),
        (PLUGIN, "240"),
        (PLUGIN, "253"),
        (PLUGIN, "me"),
    ] {
        let told = problem(&[(name, value)]);
        assert!(told.starts_with(&format!("{name}={value} ")), "{told}");
    }
    for (name, value) in [(PORT, "0"), (PORT, "http"), (TAGS, "a b")] {
        let told = problem(&[(SERVICE, "web"), (name, value)]);
        assert!(told.starts_with(&format!("{name}={value} ")), "{told}");
    }
    for (name, value) in [
        (CHECK_INTERVAL, "0s"),
        (CHECK_TIMEOUT, "5 hours"),
        (CHECK_START, "soon"),
        (CHECK_RISE, "0"),
        (CHECK_FALL, "101"),
    ] {
        let told = problem(&[(CHECK, "tcp:80"), (name, value)]);
        assert!(told.starts_with(&format!("{name}={value} ")), "{told}");
    }
    assert!(problem(&[(PORT, "80")]).contains(SERVICE));
    for (name, value) in [(CHECK_INTERVAL, "5s"), (CHECK_FALL, "2")] {
        assert!(problem(&[(name, value)]).contains(CHECK));
    }
}

#[test]
fn what_can_be_read_stands_beside_what_can_not() {
    let wants = wants(&[
        (NET, "10.1.0.0/16,10.9.9.9/99"),
        (SERVICE, "web"),
        (PORT, "x"),
    ]);
    assert_eq!(wants.problems.len(), 2);
    assert_eq!(wants.nets.len(), 1);
    assert_eq!(wants.service.unwrap().port, 0);
}

#[test]
fn weave_cidr_is_read_as_weave_does() {
    let none = BTreeMap::new();
    let text = "10.1.0.5/16 ip:10.2.0.5/24  net:10.3.0.0/16 net:default";
    let wants = read(&none, Some(text));
    assert_eq!(
        nets(&wants),
        ["10.1.0.5/16", "10.2.0.5/24", "10.3.0.0/16", "default"]
    );
    for bad in ["10.1.0.0/16", "net:shop", "ip:10.1.0.5", "10.32.1.5/12"] {
        let problems = read(&none, Some(bad)).problems;
        assert_eq!(problems.len(), 1, "{bad}");
        assert!(problems[0].starts_with("WEAVE_CIDR="), "{problems:?}");
    }
    // Beside labels, each is there once.
    let wants = read(&labels(&[(NET, "10.1.0.0/16")]), Some("10.1.0.5/16"));
    assert_eq!(nets(&wants), ["10.1.0.5/16"]);
}

#[test]
fn a_plugin_has_its_block() {
    let wants = wants(&[(PLUGIN, "252")]);
    assert_eq!(wants.plugin, PluginBlock::new(252));
    let json = serde_json::to_string(&wants.plugin).unwrap();
    assert_eq!(json, "252");
}

proptest! {
    #[test]
    fn whatever_is_written_is_wanted_or_told_of(
        net in "[0-9a-z./, -]{0,20}",
        ip in "[0-9./, ]{0,20}",
        check in "(http|tcp|cmd)?:?[0-9]{0,6}[/a-z]{0,6}",
        weave in "(net:|ip:)?[0-9./ ]{0,20}",
    ) {
        let pairs = labels(&[(NET, &net), (IP, &ip), (CHECK, &check)]);
        let wants = read(&pairs, Some(&weave));
        // What is wanted can be kept with the container and read again.
        let mut spec = ContainerSpec::image("a");
        let problems = wants.clone().put_into(&mut spec);
        prop_assert_eq!(problems.len() + wants.checks.len(), wants.problems.len() + spec.checks.len());
        let json = serde_json::to_string(&spec).unwrap();
        let kept: ContainerSpec = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&kept, &spec);
        // An empty check says something wrong, too.
        let told = wants.problems.iter().any(|told| told.starts_with("arpanet.check="));
        prop_assert_eq!(told, wants.checks.is_empty());
        for (at, one) in wants.nets.iter().enumerate() {
            prop_assert!(!wants.nets[..at].contains(one));
        }
    }

    #[test]
    fn addresses_are_read_as_they_print(bits: u32, prefix in 8..=30u8) {
        let text = format!("{}/{prefix}", Ipv4Addr::from(bits));
        let wants = read(&labels(&[(IP, &text)]), None);
        match text.parse::<AppAddr>() {
            Ok(addr) => prop_assert_eq!(wants.nets, [NetRequest::Addr(addr)]),
            Err(_) => prop_assert_eq!(wants.problems.len(), 1),
        }
    }
}
