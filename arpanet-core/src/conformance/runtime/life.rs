//! Creating, starting, stopping and removing containers.

use std::time::Duration;

use tokio::time::Instant;

use super::{Program, Rig, comes_to_be, name, needs_crashes, spec, started};
use crate::ErrorKind;
use crate::conformance::check::{
    Check, INTERRUPTIONS, Verdict, check, ensure, interrupted, refused, until,
};
use crate::runtime::{ContainerSpec, ContainerState, PullRequest};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            what_it_can_do_is_constant,
            "Constant for one backend in one configuration."
        ),
        check!(
            a_created_container_is_whole,
            "Makes a container, with a namespace that it can be attached by where the backend can attach before the start."
        ),
        check!(
            creating_again_finds_the_first,
            "The same name and spec again: answers with the one that is there."
        ),
        check!(
            another_spec_is_a_conflict,
            "Conflict when the name is taken by another spec;"
        ),
        check!(
            a_spec_that_can_not_run_is_refused,
            "InvalidInput for a spec without a name, or that this backend can't run."
        ),
        check!(
            a_started_container_runs,
            "Starts it. A second call does nothing while it runs."
        ),
        check!(
            a_command_that_is_missing_is_told,
            "InvalidInput when its command can't be started, saying why."
        ),
        check!(
            a_container_ends_with_its_exit_code,
            "Ended with this exit code; 128 + N after signal N."
        ),
        check!(
            a_container_that_ended_starts_again,
            "A second call does nothing while it runs."
        ),
        check!(
            stop_answers_with_the_exit_code,
            "returns when it has ended, with its exit code. One that has ended already answers at once."
        ),
        check!(
            stop_kills_after_the_grace,
            "Stops it: SIGTERM, its grace, SIGKILL;"
        ),
        check!(
            a_removed_container_is_gone,
            "Ends it at once and removes all of it, logs included. A second call does nothing."
        ),
        check!(unknown_ones_are_not_found, "NotFound for an unknown one."),
        check!(
            all_are_listed_by_name,
            "All containers that arpanet2 made or looks after, sorted by name."
        ),
        check!(
            containers_outlive_the_process,
            "Containers outlive the process that made them; list after a restart finds them all.",
            needs_crashes
        ),
        check!(
            dropped_calls_are_finished_by_the_next,
            "Dropping a call's future at any point leaves nothing behind, or something that the same call finishes."
        ),
        check!(
            what_it_can_not_do_answers_unsupported,
            "What it can't do answers Unsupported, at once."
        ),
        check!(
            the_bridge_is_told,
            "The address of the bridge that containers without an overlay address reach their host by;"
        ),
    ]
}

async fn what_it_can_do_is_constant(rig: &Rig) -> Verdict {
    let runtime = rig.runtime();
    let before = (runtime.name(), runtime.capabilities());
    started(rig, 0, Program::Wait).await?;
    let after = (runtime.name(), runtime.capabilities());
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

async fn a_created_container_is_whole(rig: &Rig) -> Verdict {
    let spec = spec(rig, 0, Program::Wait)?
        .env("COLOUR", "blue")
        .label("team", "one")
        .addr("10.1.0.5/16".parse()?)
        .service("web".parse()?, 80);
    let created = rig.runtime().create(&spec).await?;
    let found = rig.runtime().inspect(&created.name).await?;
    for container in [&created, &found] {
        ensure!(
            container.name == name(0)?,
            "it is called {}",
            container.name
        );
        ensure!(container.spec == spec, "its spec is {:?}", container.spec);
        ensure!(
            container.state == ContainerState::Created,
            "it is {:?}",
            container.state
        );
        ensure!(!container.id.is_empty(), "it has no id");
        let early = rig.runtime().capabilities().attach_before_start;
        ensure!(
            !early || container.namespace.is_some(),
            "it can be attached before the start, and has no namespace"
        );
    }
    Ok(())
}

async fn creating_again_finds_the_first(rig: &Rig) -> Verdict {
    let spec = spec(rig, 0, Program::Wait)?;
    let first = rig.runtime().create(&spec).await?;
    let second = rig.runtime().create(&spec).await?;
    ensure!(first.id == second.id, "{} became {}", first.id, second.id);
    rig.runtime().start(&first.name).await?;
    let third = rig.runtime().create(&spec).await?;
    ensure!(
        (&third.id, third.state) == (&first.id, ContainerState::Running),
        "the running one became {third:?}"
    );
    ensure!(rig.runtime().list().await?.len() == 1, "there are several");
    Ok(())
}

async fn another_spec_is_a_conflict(rig: &Rig) -> Verdict {
    let first = rig.runtime().create(&spec(rig, 0, Program::Wait)?).await?;
    let other = spec(rig, 0, Program::Wait)?.env("COLOUR", "red");
    let answer = rig.runtime().create(&other).await;
    refused("create", answer, &[ErrorKind::Conflict])?;
    let found = rig.runtime().inspect(&first.name).await?;
    ensure!(found.spec == first.spec, "its spec became {:?}", found.spec);
    Ok(())
}

async fn a_spec_that_can_not_run_is_refused(rig: &Rig) -> Verdict {
    let invalid = [ErrorKind::InvalidInput];
    let mut nameless = spec(rig, 0, Program::Wait)?;
    nameless.name = None;
    let answer = rig.runtime().create(&nameless).await;
    refused("create without a name", answer, &invalid)?;
    let nothing = ContainerSpec::default().named(name(0)?);
    let answer = rig.runtime().create(&nothing).await;
    refused("create of nothing", answer, &invalid)?;
    if !rig.runtime().capabilities().images {
        let image = ContainerSpec::image("nginx:1").named(name(0)?);
        let answer = rig.runtime().create(&image).await;
        refused("create of an image", answer, &invalid)?;
    }
    let left = rig.runtime().list().await?;
    ensure!(left.is_empty(), "{left:?} were left behind");
    Ok(())
}

async fn a_started_container_runs(rig: &Rig) -> Verdict {
    let created = started(rig, 0, Program::Wait).await?;
    for _ in 0..2 {
        let found = rig.runtime().inspect(&created.name).await?;
        ensure!(
            (&found.id, found.state) == (&created.id, ContainerState::Running),
            "it is {found:?}"
        );
        ensure!(found.namespace.is_some(), "it runs without a namespace");
        rig.runtime().start(&created.name).await?;
    }
    Ok(())
}

async fn a_command_that_is_missing_is_told(rig: &Rig) -> Verdict {
    let spec = spec(rig, 0, Program::Missing)?;
    // It may be known at the creation already.
    let answer = match rig.runtime().create(&spec).await {
        Ok(container) => rig.runtime().start(&container.name).await,
        Err(error) => Err(error),
    };
    let error = refused("start", answer, &[ErrorKind::InvalidInput])?;
    ensure!(
        error.to_string().contains("/nonexistent/program")
            || std::error::Error::source(&error).is_some(),
        "\"{error}\" does not say why"
    );
    if let Ok(container) = rig.runtime().inspect(&name(0)?).await {
        ensure!(container.state != ContainerState::Running, "it runs");
    }
    Ok(())
}

async fn a_container_ends_with_its_exit_code(rig: &Rig) -> Verdict {
    for (number, code) in [(0, 0), (1, 7), (2, 255)] {
        let container = started(rig, number, Program::Exit(code)).await?;
        comes_to_be(rig, &container.name, ContainerState::Exited { code }).await?;
    }
    Ok(())
}

async fn a_container_that_ended_starts_again(rig: &Rig) -> Verdict {
    let container = started(rig, 0, Program::Wait).await?;
    for _ in 0..2 {
        rig.runtime().stop(&container.name).await?;
        rig.runtime().start(&container.name).await?;
        let found = rig.runtime().inspect(&container.name).await?;
        ensure!(
            found.state == ContainerState::Running && found.namespace.is_some(),
            "started again it is {found:?}"
        );
    }
    Ok(())
}

async fn stop_answers_with_the_exit_code(rig: &Rig) -> Verdict {
    let container = started(rig, 0, Program::Exit(7)).await?;
    comes_to_be(rig, &container.name, ContainerState::Exited { code: 7 }).await?;
    for _ in 0..2 {
        let code = rig.runtime().stop(&container.name).await?;
        ensure!(code == 7, "it ended with 7, and the stop answers {code}");
    }
    let container = started(rig, 1, Program::Wait).await?;
    let code = rig.runtime().stop(&container.name).await?;
    for _ in 0..2 {
        let state = rig.runtime().inspect(&container.name).await?.state;
        ensure!(
            state == ContainerState::Exited { code },
            "the stop answered {code}, and it is {state:?}"
        );
        let again = rig.runtime().stop(&container.name).await?;
        ensure!(again == code, "a second stop answers {again} after {code}");
    }
    Ok(())
}

async fn stop_kills_after_the_grace(rig: &Rig) -> Verdict {
    let grace = Duration::from_secs(1);
    let mut spec = spec(rig, 0, Program::IgnoreTerm)?;
    spec.stop_grace = Some(grace);
    let container = rig.runtime().create(&spec).await?;
    rig.runtime().start(&container.name).await?;
    super::logs::comes_to_write(rig, &container.name, "ready\n", "").await?;
    let asked = Instant::now();
    let code = rig.runtime().stop(&container.name).await?;
    let took = asked.elapsed();
    ensure!(
        code == 128 + 9,
        "it was killed, and the stop answers {code}"
    );
    ensure!(
        (grace..grace + rig.patience()).contains(&took),
        "with a grace of {grace:?} it took {took:?}"
    );
    Ok(())
}

async fn a_removed_container_is_gone(rig: &Rig) -> Verdict {
    let missing = [ErrorKind::NotFound];
    for program in [Program::IgnoreTerm, Program::Exit(0)] {
        let container = started(rig, 0, program).await?;
        for _ in 0..2 {
            rig.runtime().remove(&container.name).await?;
        }
        let found = rig.runtime().inspect(&container.name).await;
        refused("inspect", found, &missing)?;
        let all = crate::runtime::LogOptions::all();
        let logs = rig.runtime().logs(&container.name, all).await;
        refused("logs", logs, &missing)?;
        let left = rig.runtime().list().await?;
        ensure!(left.is_empty(), "{left:?} are left");
    }
    // Neither started nor there.
    rig.runtime().create(&spec(rig, 0, Program::Wait)?).await?;
    rig.runtime().remove(&name(0)?).await?;
    Ok(rig.runtime().remove(&name(1)?).await?)
}

async fn unknown_ones_are_not_found(rig: &Rig) -> Verdict {
    let missing = [ErrorKind::NotFound];
    let (runtime, name) = (rig.runtime(), name(0)?);
    refused("start", runtime.start(&name).await, &missing)?;
    refused("stop", runtime.stop(&name).await, &missing)?;
    refused("inspect", runtime.inspect(&name).await, &missing)?;
    let logs = runtime.logs(&name, crate::runtime::LogOptions::all()).await;
    refused("logs", logs, &missing).map(drop)
}

async fn all_are_listed_by_name(rig: &Rig) -> Verdict {
    ensure!(rig.runtime().list().await?.is_empty(), "it began with some");
    for number in [1, 2, 0] {
        rig.runtime()
            .create(&spec(rig, number, Program::Wait)?)
            .await?;
    }
    rig.runtime().start(&name(1)?).await?;
    let listed = rig.runtime().list().await?;
    let names: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
    ensure!(names == super::NAMES, "{names:?} are listed");
    for one in &listed {
        let inspected = rig.runtime().inspect(&one.name).await?;
        ensure!(*one == inspected, "{one:?} is inspected as {inspected:?}");
    }
    Ok(())
}

async fn containers_outlive_the_process(rig: &Rig) -> Verdict {
    let running = started(rig, 0, Program::Wait).await?;
    let ended = started(rig, 1, Program::Exit(7)).await?;
    comes_to_be(rig, &ended.name, ContainerState::Exited { code: 7 }).await?;
    let created = rig.runtime().create(&spec(rig, 2, Program::Wait)?).await?;
    let before = rig.runtime().list().await?;
    rig.crash().await;
    until(rig.patience(), async || {
        let after = rig.runtime().list().await?;
        ensure!(before == after, "{before:?} became {after:?}");
        Ok(())
    })
    .await?;
    rig.runtime().start(&created.name).await?;
    rig.runtime().stop(&running.name).await?;
    let code = rig.runtime().stop(&ended.name).await?;
    ensure!(
        code == 7,
        "it ended with 7, and a later process says {code}"
    );
    Ok(())
}

async fn dropped_calls_are_finished_by_the_next(rig: &Rig) -> Verdict {
    let (runtime, name) = (rig.runtime(), name(0)?);
    let spec = spec(rig, 0, Program::Wait)?;
    for polls in INTERRUPTIONS {
        interrupted(runtime.create(&spec), polls).await;
        let container = runtime.create(&spec).await?;
        ensure!(container.spec == spec, "its spec is {:?}", container.spec);
        interrupted(runtime.start(&name), polls).await;
        runtime.start(&name).await?;
        comes_to_be(rig, &name, ContainerState::Running).await?;
        interrupted(runtime.stop(&name), polls).await;
        let code = runtime.stop(&name).await?;
        comes_to_be(rig, &name, ContainerState::Exited { code }).await?;
        interrupted(runtime.remove(&name), polls).await;
        runtime.remove(&name).await?;
        let left = runtime.list().await?;
        ensure!(left.is_empty(), "{left:?} are left");
        // What was created in part is removed in whole.
        interrupted(runtime.create(&spec), polls).await;
        runtime.remove(&name).await?;
        let left = runtime.list().await?;
        ensure!(left.is_empty(), "{left:?} are left");
    }
    Ok(())
}

async fn what_it_can_not_do_answers_unsupported(rig: &Rig) -> Verdict {
    let unsupported = [ErrorKind::Unsupported];
    let runtime = rig.runtime();
    if !runtime.capabilities().images {
        let request = PullRequest::new("nginx:1");
        refused("pull", runtime.pull(&request).await, &unsupported)?;
    }
    if !runtime.capabilities().relabel {
        let answer = runtime.set_label(&name(0)?, "team", None).await;
        refused("set_label", answer, &unsupported)?;
    }
    if !runtime.capabilities().resolver {
        let answer = runtime.set_resolver(&name(0)?, None).await;
        refused("set_resolver", answer, &unsupported)?;
    }
    if !runtime.capabilities().exec {
        let container = started(rig, 0, Program::Wait).await?;
        let command = crate::runtime::ExecSpec::new(rig.command(Program::Exit(0)));
        let answer = runtime.exec(&container.name, &command).await;
        refused("exec", answer, &unsupported)?;
    }
    Ok(())
}

async fn the_bridge_is_told(rig: &Rig) -> Verdict {
    let bridge = rig.runtime().bridge_address().await?;
    let again = rig.runtime().bridge_address().await?;
    ensure!(bridge == again, "{bridge:?} became {again:?}");
    ensure!(
        bridge.is_none_or(|ip| !ip.is_loopback() && !ip.is_unspecified()),
        "{bridge:?} is no bridge's address"
    );
    Ok(())
}
