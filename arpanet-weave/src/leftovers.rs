//! What a weave router leaves on a host when it ends: links, firewall rules, files. Weave's own `reset` is a script that needs
//! docker; this does the same for what a router launched by arpanet2 makes.

use std::io;
use std::path::Path;
use std::process::{Command, Output};

use arpanet_core::{ErrorKind, Result};
use arpanet_netlink::{Namespace, Netlink};

use crate::error::{own, system};
use crate::record::{Record, remove_file};

/// The links that weave makes beside its bridge (net/bridge.go).
const LINKS: [&str; 4] = [
    "vethwe-bridge",
    "vethwe-pcap",
    "vethwe-datapath",
    "vethwedu",
];
/// The datapath of Open vSwitch, which only its own tools remove.
pub(crate) const DATAPATH: &str = "datapath";
/// In the folder.
pub(crate) const DATABASE: &str = "weavedata.db";
pub(crate) const SENTINEL: &str = "restart.sentinel";
pub(crate) const LOG: &str = "weaver.log";

/// The tables that weave writes to.
const TABLES: [&str; 2] = ["filter", "nat"];
/// What its chains begin with, or are.
const CHAIN: &str = "WEAVE";
/// What stands on its rule for the HTTP port.
const CONTROL_PORT: &str = "Block non-local access to Weave Net control port";

/// Removes weave's bridge, its links and its firewall rules.
pub(crate) async fn remove_network(host: &Netlink, bridge: &str) -> Result<()> {
    let mut outcome = Ok(());
    for link in [bridge].into_iter().chain(LINKS) {
        outcome = outcome.and(host.delete_link(link).await);
    }
    let namespace = host.namespace().clone();
    let bridge = bridge.to_owned();
    let rules = tokio::task::spawn_blocking(move || remove_rules(&namespace, &bridge)).await;
    outcome = outcome.and(rules.unwrap_or_else(|error| {
        Err(own(
            ErrorKind::Internal,
            "weave's firewall rules can't be removed",
        )
        .with_source(error))
    }));
    if host.link(DATAPATH).await?.is_some() && host.delete_link(DATAPATH).await.is_err() {
        outcome = outcome.and(Err(own(
            ErrorKind::Unsupported,
            format!("weave's Open vSwitch datapath {DATAPATH:?} is left, since only its own tools can remove it"),
        )
        .with_hint("ovs-dpctl del-dp datapath, or the next reboot, removes it")));
    }
    outcome
}

/// Removes what a router has written into its folder, and the folder if nothing else is in it.
pub(crate) fn remove_files(folder: &Path) -> Result<()> {
    for file in [DATABASE, SENTINEL, LOG] {
        remove_file(&folder.join(file))?;
    }
    Record::remove(folder)?;
    match std::fs::remove_dir(folder) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(system(
                format!("{} can't be removed", folder.display()),
                error,
            ))
        }
        _ => Ok(()),
    }
}

fn remove_rules(namespace: &Namespace, bridge: &str) -> Result<()> {
    for table in TABLES {
        let Some(rules) = list(namespace, table)? else {
            // Without the program there are no rules of weave's either: it makes them with that.
            return Ok(());
        };
        for arguments in removals(&rules, bridge) {
            let output = iptables(namespace, table, &arguments)?;
            // Somebody may have removed it meanwhile: what counts is what is left.
            tracing::debug!(table, ?arguments, status = %output.status, "removing weave's firewall rules");
        }
        let left = list(namespace, table)?.unwrap_or_default();
        if let Some(first) = removals(&left, bridge).first() {
            return Err(own(
                ErrorKind::Internal,
                format!("weave's firewall rules can't be removed from the table {table}"),
            )
            .with_hint(format!(
                "try it by hand: iptables -t {table} {}",
                first.join(" ")
            )));
        }
    }
    Ok(())
}

fn list(namespace: &Namespace, table: &str) -> Result<Option<String>> {
    let output = match iptables(namespace, table, &["-S".to_owned()]) {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(own(
        ErrorKind::Internal,
        format!("the firewall's table {table} can't be read: {words}"),
    ))
}

fn iptables(namespace: &Namespace, table: &str, arguments: &[String]) -> Result<Output> {
    let run = || {
        Command::new("iptables")
            .args(["-w", "5", "-t", table])
            .args(arguments)
            .output()
    };
    namespace
        .run(run)?
        .map_err(|error| system("iptables can't be run", error))
}

/// What removes weave's rules from a table that `iptables -S` shows so: first the rules, then the chains.
fn removals(rules: &str, bridge: &str) -> Vec<Vec<String>> {
    let (mut deletions, mut chains) = (Vec::new(), Vec::new());
    for line in rules.lines() {
        let mut words = words(line);
        let of_chain = |word: &str| word == CHAIN || word.starts_with("WEAVE-");
        match words.first().map(String::as_str) {
            Some("-N") if words.get(1).is_some_and(|name| of_chain(name)) => {
                chains.push(words[1].clone());
            }
            Some("-A") => {
                let pairs = words.windows(2);
                let is_weaves = of_chain(&words[1])
                    || pairs.into_iter().any(|pair| match pair[0].as_str() {
                        "-i" | "-o" => pair[1] == bridge,
                        "-j" | "-g" => of_chain(&pair[1]),
                        "--comment" => pair[1] == CONTROL_PORT,
                        _ => false,
                    });
                if is_weaves {
                    "-D".clone_into(&mut words[0]);
                    deletions.push(words);
                }
            }
            _ => {}
        }
    }
    let chains = chains.into_iter().map(|chain| vec!["-X".to_owned(), chain]);
    deletions.into_iter().chain(chains).collect()
}

/// A line of `iptables -S` in its words. Those with spaces stand in quotation marks, with a backslash before such a mark.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            '\\' if quoted => word.extend(letters.next()),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            letter => word.push(letter),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `iptables -S` shows what net/bridge.go makes, among rules of others.
    const FILTER: &str = r#"-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-N WEAVE-EXPOSE
-A INPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 6784 -m addrtype ! --src-type LOCAL -m conntrack ! --ctstate RELATED,ESTABLISHED -m comment --comment "Block non-local access to Weave Net control port" -j DROP
-A INPUT -p tcp -m comment --comment "not \"weave\" at all" -j ACCEPT
-A FORWARD -i weave -o weave -j ACCEPT
-A FORWARD -o weave -j WEAVE-EXPOSE
-A FORWARD -i weave ! -o weave -j ACCEPT
-A FORWARD -o weave -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i weaver0 -j ACCEPT
-A WEAVE-EXPOSE -d 10.0.0.0/8 -j ACCEPT"#;

    #[test]
    fn weaves_rules_are_told_from_others() {
        let removals = removals(FILTER, "weave");
        let lines: Vec<String> = removals.iter().map(|words| words.join(" ")).collect();
        assert_eq!(removals.len(), 7, "{lines:#?}");
        assert!(lines[0].starts_with("-D INPUT -d 127.0.0.1/32"));
        assert!(removals[0].contains(&CONTROL_PORT.to_owned()));
        assert_eq!(lines[1], "-D FORWARD -i weave -o weave -j ACCEPT");
        // A chain goes when nothing leads to it and nothing is in it.
        assert_eq!(lines.last().unwrap(), "-X WEAVE-EXPOSE");
        for other in ["docker0", "weaver0", "at all"] {
            assert!(!lines.iter().any(|line| line.contains(other)), "{other}");
        }
    }

    #[test]
    fn a_relaunchs_masquerading_goes_too() {
        let nat = "-P POSTROUTING ACCEPT\n-N WEAVE\n-A POSTROUTING -j WEAVE\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n-A WEAVE -s 10.0.0.0/8 -d 224.0.0.0/4 -j RETURN\n-A WEAVE ! -s 10.0.0.0/8 -d 10.0.0.0/8 -j MASQUERADE\n";
        let lines: Vec<String> = removals(nat, "weave")
            .iter()
            .map(|words| words.join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "-D POSTROUTING -j WEAVE",
                "-D WEAVE -s 10.0.0.0/8 -d 224.0.0.0/4 -j RETURN",
                "-D WEAVE ! -s 10.0.0.0/8 -d 10.0.0.0/8 -j MASQUERADE",
                "-X WEAVE"
            ]
        );
    }

    #[test]
    fn quoted_words_are_one() {
        assert_eq!(
            words(r#"-A X --comment "a \"b\" c" -j Y"#),
            ["-A", "X", "--comment", "a \"b\" c", "-j", "Y"]
        );
        assert_eq!(words(r#"a  "" b"#), ["a", "", "b"]);
    }
}
