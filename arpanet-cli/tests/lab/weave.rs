//! What is different where the overlay is weave, and what must not be.

use std::time::Duration;

use crate::site::{self, BINARY, SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_host_with_another_overlay_is_refused_and_left_as_it_was() {
    let Some(site) = Site::up_over_weave(2).await else {
        return;
    };
    for (ours, theirs) in [("weave", "wireguard"), ("wireguard", "weave")] {
        site.ok("node1", &format!("boot 0.1 Apples --overlay {theirs}"));
        let before = site.run("node2", "ip -o link").out;
        let join = format!("server 0.2 Apples 0.1 {SEED} --overlay {ours}");
        let refused = site.arpanet2("node2", &join);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let words = format!("this node's overlay is {ours}, and the cluster's is {theirs}");
        assert!(refused.err.contains(&words), "{refused:?}");
        assert!(refused.err.contains("hint: "), "{refused:?}");
        until(
            "its links are as before",
            LIMIT,
            || site.run("node2", "ip -o link").out,
            |now| links(now) == links(&before),
        );
        site.ok("node1", "reset");
    }
}

/// The process of a host's router, by what the agent keeps.
fn router(site: &Site, host: &str) -> i64 {
    let kept = site
        .run(host, "cat /var/lib/arpanet2/weave/router.json")
        .out;
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap_or_default();
    kept["process"]["id"].as_i64().unwrap_or_default()
}

#[tokio::test]
async fn where_there_is_no_program_the_engine_launches_weave_s_image() {
    let Some(site) = Site::up_with_weave_s_image(2).await else {
        return;
    };
    site.cluster();
    let running = || {
        let format = "{{.Names}} {{.Image}}";
        site.command("node1", &["/usr/bin/docker", "ps", "--format", format])
            .out
    };
    assert_eq!(running(), "arpanet2-weaver weaver:test");
    assert_eq!(
        site.run("node2", "ping -c1 -W2 10.255.0.1").code,
        Some(0),
        "{}",
        site.log("node2")
    );
    // One that ends is launched again, by another process.
    let before = router(&site, "node1");
    site.docker("node1", "kill arpanet2-weaver");
    until(
        "it runs again",
        LIMIT,
        || (running(), router(&site, "node1")),
        |(running, now)| !running.is_empty() && *now != before && *now > 0,
    );
    let reached = || site.run("node2", "ping -c1 -W1 10.255.0.1").code;
    until("packets come through", LIMIT, reached, |code| {
        *code == Some(0)
    });
    for host in ["node2", "node1"] {
        site.ok(host, "reset");
        assert_eq!(site.docker(host, "ps -aq"), "");
        assert!(!site.run(host, "ip -o link").out.contains("weave"));
    }
    // An image that can't be had is told, and nothing is left.
    site.set("node1", "stack = \"embedded\"");
    site.run(
        "node1",
        "sed -i s/weaver:test/nobody.invalid\\/weave:0/ /etc/arpanet2/config.toml",
    );
    let refused = site.arpanet2("node1", "boot 0.1 Apples --overlay weave");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .err
            .contains("nobody.invalid/weave:0 can't be launched"),
        "{refused:?}"
    );
    assert_eq!(site.docker("node1", "ps -aq"), "");
}

#[tokio::test]
async fn setup_prepares_a_host_for_the_classic_stack_and_says_what_it_would_download() {
    let Some(site) = Site::up_classic(1).await else {
        return;
    };
    let told = site.ok("node1", "setup --stack classic --dry-run");
    for words in [
        "ok   weave: its router is",
        "ok   consul: it is",
        "ok   docker: ",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("download"), "{told}");
    site.run("node1", "sed -i /weaver/d /etc/arpanet2/config.toml");
    let told = site.ok("node1", "setup --stack classic --dry-run");
    let words = "would download the image rajchaudhuri/weave:2.9.0, by the docker engine";
    assert!(told.contains(words), "{told}");
    site.run("node1", "sed -i /consul/d /etc/arpanet2/config.toml");
    let told = site.run(
        "node1",
        &format!("env PATH=/usr/bin:/bin {BINARY} setup --stack classic --dry-run"),
    );
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.out.contains("FAIL consul: "), "{told:?}");
}

#[tokio::test]
async fn while_routers_fail_in_turn_nothing_wrong_is_said_and_all_is_well_after() {
    let Some(site) = Site::up_over_our_weave(3).await else {
        return;
    };
    site.cluster();
    site.ok("node3", "register web --port 80");
    let mood = |host: &str, mood: &str| {
        std::fs::write(site.weave(host).join("mood"), mood).unwrap();
    };
    let resolved = || site.arpanet2("node1", "resolve web").out;
    for (number, trouble) in ["slow", "500", "half", "hang", "garbage", "503"]
        .iter()
        .enumerate()
    {
        let host = ["node1", "node2", "node3"][number % 3];
        mood(host, trouble);
        // Its process goes too, while it answers so.
        if number % 2 == 0 {
            site.run(host, &format!("kill -9 {}", router(&site, host)));
        }
        let began = std::time::Instant::now();
        let status = site.status(host);
        assert!(began.elapsed() < LIMIT, "{trouble}: {:?}", began.elapsed());
        assert_eq!(status["nodes"].as_array().unwrap().len(), 3, "{trouble}");
        // Who is a member is told by others than the router.
        until("the name stays", LIMIT, resolved, |ip| ip == "10.255.0.14");
        mood(host, "");
        let reached = || {
            ["10.255.0.1", "10.255.0.2", "10.255.0.14"]
                .map(|to| site.run(host, &format!("ping -c1 -W1 {to}")).code)
        };
        until(
            &format!("all is well after {trouble}"),
            LIMIT * 2,
            reached,
            |codes| codes.iter().all(|code| *code == Some(0)),
        );
        assert!(!site.log(host).contains("panicked"), "{}", site.log(host));
    }
    // One whose router never gets well does not come up, and leaves nothing.
    site.ok("node3", "reset");
    mood("node3", "500");
    let began = std::time::Instant::now();
    let failed = site.arpanet2("node3", &format!("client 0.14 Apples 0.1 {SEED}"));
    assert!(began.elapsed() < LIMIT * 3, "{:?}", began.elapsed());
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(
        failed.err.contains("could not launch the overlay"),
        "{failed:?}"
    );
    assert!(!site.run("node3", "ip -o link").out.contains("weave"));
    assert_eq!(site.run("node3", "ls /var/lib/arpanet2").out, "");
    mood("node3", "");
    // It was admitted before, and the address is its own until it is taken over.
    let join = format!("client 0.14 Apples 0.1 {SEED} --replace");
    site.ok("node3", &join);
}

/// Their names.
fn links(listed: &str) -> Vec<&str> {
    let mut names: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_stack_is_one_word_and_status_says_what_it_is() {
    let Some(site) = Site::up_over_weave(2).await else {
        return;
    };
    site.cluster();
    for host in ["node1", "node2"] {
        assert_eq!(site.status(host)["stack"]["overlay"], "weave");
    }
    let password = "--weave-password Pears";
    let outcome = site.arpanet2(
        "node2",
        &format!("boot 0.3 Apples --overlay wireguard {password}"),
    );
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}

#[tokio::test]
async fn a_router_that_was_there_before_is_refused_or_used_and_outlives_a_reset() {
    let Some(site) = Site::up_over_weave(2).await else {
        return;
    };
    let program = site::weaver().unwrap_or_else(|| site.weave("node1").join("weaver"));
    let line = format!(
        "mkdir /run/own && cd /run/own && WEAVE_PASSWORD=Pears CHECKPOINT_DISABLE=1 {} --port 6783 --name 0a:00:00:00:00:01 --nickname own --weave-bridge weave --datapath datapath --no-fastdp --docker-api '' --db-prefix /run/own/weave --ipalloc-range '' --no-dns --http-addr 127.0.0.1:6784 --status-addr '' >log 2>&1 & echo $!",
        program.display()
    );
    let id = site.command("node1", &["sh", "-c", &line]).out;
    let answers = || {
        let alive = site.run("node1", &format!("kill -0 {id}")).code == Some(0);
        let listening = site.run("node1", "ss -Hltn sport = :6784").out;
        assert!(alive, "{:?}", site.run("node1", "cat /run/own/log"));
        !listening.is_empty()
    };
    until("it answers", LIMIT, answers, |answers| *answers);
    let refused = site.arpanet2("node1", "boot 0.1 Apples");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in [
        "a weave router that arpanet2 has not launched runs at 127.0.0.1:6784 already",
        "--weave-password",
    ] {
        assert!(refused.err.contains(words), "{refused:?}");
    }
    site.ok("node1", "boot 0.1 Apples --weave-password Pears");
    let join = format!("server 0.2 Apples 0.1 {SEED} --weave-password Pears");
    site.ok("node2", &join);
    let reached = site.run("node2", "ping -c1 -W2 10.255.0.1");
    assert_eq!(reached.code, Some(0), "{reached:?}");
    // With another password, which is told.
    site.ok("node2", "reset");
    let join = format!("server 0.2 Apples 0.1 {SEED} --replace --weave-password Plums");
    let failed = site.arpanet2("node2", &join);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.err.contains("password"), "{failed:?}");
    site.ok("node1", "reset");
    assert!(answers());
    site.run("node1", &format!("kill {id}"));
}
