//! Commands that change a running node by hand, and what is left of that after its agent was killed.

use std::time::Duration;

use crate::site::{BINARY, Outcome, Site, until};

const LIMIT: Duration = Duration::from_secs(20);

/// Kills the agent of a host where it stands, and brings the node back.
fn restart(site: &Site, host: &str) {
    let pid = site.run(host, "cat /run/arpanet2/agent.lock").out;
    assert_eq!(site.run(host, &format!("kill -9 {pid}")).code, Some(0));
    site.ok(host, "start");
}

#[tokio::test]
async fn what_is_changed_by_hand_outlives_the_agent() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    site.cluster();
    site.ok(
        "node1",
        "run --net 10.3.0.0/16 --service web --port 80 --name w1 -- busybox httpd -f -p 80 -h /etc",
    );
    site.ok("node2", "run --net 10.1.0.0/16 --name c1 -- sleep 600");
    let resolve = |name: &str| site.arpanet2("node1", &format!("resolve {name}")).out;
    let web = resolve("web");

    // A further network, while it runs.
    let reach = || site.arpanet2("node2", &format!("exec c1 -- ping -c1 -W1 {web}"));
    let refused = reach();
    assert!(refused.out.contains("Packet filtered"), "{refused:?}");
    let given = site.ok("node2", "attach c1 10.3.0.0/16");
    assert!(
        given.starts_with("10.3.") && given.ends_with("/16"),
        "{given}"
    );
    assert_eq!(site.ok("node2", "attach c1 10.3.0.0/16"), given);
    let fetch = || {
        site.arpanet2(
            "node2",
            "exec c1 -- busybox wget -qO- http://web.service.consul/hostname",
        )
    };
    let fetched = |outcome: &Outcome| outcome.out == "w1";
    until("it reaches the other network", LIMIT, fetch, fetched);
    assert!(site.ok("node2", "ps").contains(&given));
    let taken = site.arpanet2("node2", &format!("attach c1 {web}/16"));
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.err.contains("w1 on node 0.1"), "{taken:?}");

    // A plane that answers nobody, and two instances, one for good.
    let plane = || site.run("node1", "ping -c1 -W1 10.254.0.2").code;
    let (answers, silent) = (
        |code: &Option<i32>| *code == Some(0),
        |code: &Option<i32>| *code == Some(1),
    );
    until("the docker plane answers", LIMIT, plane, answers);
    site.ok("node2", "hide docker");
    until("it is hidden", LIMIT, plane, silent);
    site.ok("node2", "expose docker");
    until("it answers again", LIMIT, plane, answers);
    site.ok("node2", "hide docker");
    site.ok("node2", "register api --port 80");
    let id = site.ok("node2", "register gone --port 81");
    site.ok("node2", &format!("deregister {id}"));
    let mode = site.run("node2", "stat -c %a /var/lib/arpanet2/registrations.json");
    assert_eq!(mode.out, "600");

    restart(&site, "node2");
    let api = |ip: &String| ip == "10.255.0.2";
    until("the instance is back", LIMIT, || resolve("api"), api);
    assert_eq!(resolve("gone"), "");
    until("the network is still there", LIMIT, fetch, fetched);
    assert!(site.ok("node2", "ps").contains(&given));
    until("the plane is still hidden", LIMIT, plane, silent);

    let ip = given.trim_end_matches("/16");
    site.ok("node2", &format!("detach c1 {ip}"));
    let lost = |outcome: &Outcome| outcome.code == Some(1);
    until("the network is gone", LIMIT, reach, lost);
    let again = site.arpanet2("node2", &format!("detach c1 {ip}"));
    assert!(again.err.contains("does not have"), "{again:?}");
    site.ok("node2", "reset");
}

#[tokio::test]
async fn setup_says_what_it_would_change_and_does_it_once() {
    let Some(site) = Site::up(1).await else {
        return;
    };
    let file = "/etc/arpanet2/config.toml";
    let said = site.ok("node1", "setup --dry-run");
    assert!(said.contains(&format!("would write {file}")), "{said}");
    let there = site.run("node1", &format!("test -e {file}"));
    assert_eq!(there.code, Some(1), "a dry run has written {file}");
    let said = site.ok("node1", "setup");
    assert!(said.contains(&format!("write {file}")), "{said}");
    let before = site.run("node1", &format!("cat {file}")).out;
    let said = site.ok("node1", "setup");
    assert!(said.contains("nothing to change"), "{said}");
    assert_eq!(site.run("node1", &format!("cat {file}")).out, before);

    site.ok("node1", "boot 0.1 Apples");
    site.ok("node1", "stop");
    let started = site.arpanet2("node1", "start");
    assert_eq!(started.err, "the node is up", "{started:?}");

    let killed = site.lab.exec("node1", &["sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.unwrap().code(), Some(128 + 9));
}

#[test]
fn completions_and_manual_know_every_command() {
    let told = |arguments: &[&str]| {
        let output = std::process::Command::new(BINARY).args(arguments).output();
        Outcome::from(output.unwrap()).out
    };
    let help = told(&["--help"]);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.strip_prefix("  "))
        // The rest of a long line is no command.
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 30, "{commands:?}");
    let folder = tempfile::tempdir().unwrap();
    told(&["man", "--out", folder.path().to_str().unwrap()]);
    for shell in ["bash", "zsh", "fish"] {
        let completions = told(&["completions", shell]);
        for command in &commands {
            assert!(completions.contains(command), "{shell} lacks {command}");
        }
    }
    for command in commands {
        let page = folder.path().join(format!("arpanet2-{command}.1"));
        assert!(page.exists(), "{command} has no page");
    }
}

#[tokio::test]
async fn who_waits_at_a_terminal_sees_the_steps() {
    let Some(site) = Site::up(1).await else {
        return;
    };
    // With spaces of its own: script(1) gives the command a terminal.
    let boot = format!("{BINARY} boot 0.1 Apples");
    let shown = site.command("node1", &["script", "-qec", &boot, "/dev/null"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.out.contains("starting "), "{shown:?}");
    assert_eq!(site.ok("node1", "stop"), "");
    let silent = site.arpanet2("node1", "start");
    assert_eq!(
        (silent.code, silent.err.as_str()),
        (Some(0), "the node is up")
    );
}
