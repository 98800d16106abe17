//! Whom running containers ask for names.

use std::net::Ipv4Addr;

use super::{Program, Rig, execs, name, spec, started};
use crate::ContainerName;
use crate::ErrorKind;
use crate::conformance::check::{Broken, Check, Verdict, check, ensure, refused};
use crate::runtime::{ExecSpec, Resolver};

/// Nobody's, both (RFC 5737).
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const ITS_OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            a_running_container_asks_whom_it_is_told,
            "Has a running container ask these name servers from now on; with None, those that its engine gave it.",
            needs_resolver
        ),
        check!(
            name_servers_of_its_maker_are_kept,
            "A container whose maker named servers, or whose engine answers for networks of its own, keeps what it has.",
            needs_resolver
        ),
        check!(
            name_servers_are_forgotten_at_the_end,
            "It holds until the container ends: after each start it is to be said again.",
            needs_resolver
        ),
        check!(
            only_running_containers_are_told_whom_to_ask,
            "NotFound for an unknown one; Unavailable for one that does not run;",
            needs_resolver
        ),
    ]
}

fn needs_resolver(rig: &Rig) -> Option<&'static str> {
    let able = rig.runtime().capabilities().resolver;
    (!able).then_some("the backend does not change whom containers ask for names")
}

fn ours() -> Resolver {
    Resolver::new([OURS]).search("service.example")
}

/// Whether it asks our server, and no other. Not known of a backend that runs no commands.
async fn asks_ours(rig: &Rig, name: &ContainerName) -> Verdict<Option<bool>> {
    if !rig.runtime().capabilities().exec {
        return Ok(None);
    }
    let command = ExecSpec::new(rig.command(Program::Servers));
    let mut exec = rig.runtime().exec(name, &command).await?;
    let told = execs::read(rig, &mut exec).await?;
    let servers: Vec<&str> = told.out.lines().collect();
    let ours = OURS.to_string();
    if servers.len() > 1 && servers.contains(&ours.as_str()) {
        return Err(Broken::new(format!("it asks others too: {servers:?}")));
    }
    Ok(Some(servers == [ours]))
}

async fn a_running_container_asks_whom_it_is_told(rig: &Rig) -> Verdict {
    let (runtime, name) = (rig.runtime(), name(0)?);
    started(rig, 0, Program::Wait).await?;
    for resolver in [Some(ours()), None, Some(ours())] {
        let wanted = resolver.is_some();
        for _ in 0..2 {
            let asks = runtime.set_resolver(&name, resolver.clone()).await?;
            ensure!(asks == wanted, "told {resolver:?}, it answers {asks}");
            let seen = asks_ours(rig, &name).await?;
            ensure!(
                seen.is_none_or(|seen| seen == wanted),
                "told {resolver:?}, it does not ask as it was told"
            );
        }
    }
    Ok(())
}

async fn name_servers_of_its_maker_are_kept(rig: &Rig) -> Verdict {
    let (runtime, name) = (rig.runtime(), name(0)?);
    let mut given = spec(rig, 0, Program::Wait)?;
    given.dns.push(ITS_OWN);
    runtime.create(&given).await?;
    runtime.start(&name).await?;
    for resolver in [Some(ours()), None] {
        let asks = runtime.set_resolver(&name, resolver).await?;
        ensure!(!asks, "it answers that it asks ours");
        let seen = asks_ours(rig, &name).await?;
        ensure!(seen != Some(true), "it asks ours");
    }
    Ok(())
}

async fn name_servers_are_forgotten_at_the_end(rig: &Rig) -> Verdict {
    let (runtime, name) = (rig.runtime(), name(0)?);
    started(rig, 0, Program::Wait).await?;
    runtime.set_resolver(&name, Some(ours())).await?;
    runtime.stop(&name).await?;
    runtime.start(&name).await?;
    let seen = asks_ours(rig, &name).await?;
    ensure!(seen != Some(true), "started again it still asks ours");
    let asks = runtime.set_resolver(&name, Some(ours())).await?;
    let seen = asks_ours(rig, &name).await?;
    ensure!(asks && seen != Some(false), "told again it does not");
    Ok(())
}

async fn only_running_containers_are_told_whom_to_ask(rig: &Rig) -> Verdict {
    let (runtime, name) = (rig.runtime(), name(0)?);
    let answer = runtime.set_resolver(&name, Some(ours())).await;
    refused("set_resolver", answer, &[ErrorKind::NotFound])?;
    runtime.create(&spec(rig, 0, Program::Wait)?).await?;
    let answer = runtime.set_resolver(&name, Some(ours())).await;
    refused(
        "set_resolver before the start",
        answer,
        &[ErrorKind::Unavailable],
    )?;
    runtime.start(&name).await?;
    runtime.stop(&name).await?;
    let answer = runtime.set_resolver(&name, None).await;
    refused(
        "set_resolver after the end",
        answer,
        &[ErrorKind::Unavailable],
    )?;
    Ok(())
}
