//! Commands in running containers.

use bytes::Bytes;

use super::{Program, Rig, spec, started};
use crate::ErrorKind;
use crate::conformance::check::{Broken, Check, Verdict, check, ensure, refused};
use crate::runtime::{Exec, ExecInput, ExecOutput, ExecSpec, OutputStream};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            a_command_tells_its_output_and_its_exit_code,
            "It ended with this exit code (128 + N after signal N); nothing comes after that.",
            needs_exec
        ),
        check!(
            a_command_reads_until_its_input_is_dropped,
            "Dropping input closes its standard input;",
            needs_exec
        ),
        check!(
            a_command_has_the_environment_of_its_container_and_its_own,
            "Added to the container's environment.",
            needs_exec
        ),
        check!(
            only_running_containers_run_commands,
            "NotFound for an unknown container, Unavailable for one that does not run,",
            needs_exec
        ),
        check!(
            a_missing_command_is_told,
            "InvalidInput when the command can't be started, saying why.",
            needs_exec
        ),
    ]
}

fn needs_exec(rig: &Rig) -> Option<&'static str> {
    let able = rig.runtime().capabilities().exec;
    (!able).then_some("the backend runs no commands in containers")
}

fn command(rig: &Rig, program: Program<'_>) -> ExecSpec {
    ExecSpec::new(rig.command(program))
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) out: String,
    err: String,
    code: Option<i32>,
}

/// Reads a command's output to the end, with its input open.
pub(super) async fn read(rig: &Rig, exec: &mut Exec) -> Verdict<Told> {
    let mut told = Told::default();
    let reading = async {
        while let Some(output) = exec.output.recv().await {
            ensure!(told.code.is_none(), "something came after the exit code");
            match output {
                ExecOutput::Exited(code) => told.code = Some(code),
                ExecOutput::Output(piece) => {
                    let text = String::from_utf8_lossy(&piece.bytes);
                    match piece.stream {
                        OutputStream::Stdout => told.out.push_str(&text),
                        OutputStream::Stderr => told.err.push_str(&text),
                    }
                }
            }
        }
        Ok(())
    };
    match tokio::time::timeout(rig.patience(), reading).await {
        Ok(read) => read?,
        Err(_) => return Err(Broken::new(format!("it did not end after {told:?}"))),
    }
    Ok(told)
}

async fn a_command_tells_its_output_and_its_exit_code(rig: &Rig) -> Verdict {
    let container = started(rig, 0, Program::Wait).await?;
    for (program, out, err, code) in [
        (
            Program::Print("to out", "to err"),
            "to out\n",
            "to err\n",
            0,
        ),
        (Program::Exit(7), "", "", 7),
    ] {
        let runtime = rig.runtime();
        let mut exec = runtime
            .exec(&container.name, &command(rig, program))
            .await?;
        let told = read(rig, &mut exec).await?;
        let wanted = Told {
            out: out.to_owned(),
            err: err.to_owned(),
            code: Some(code),
        };
        ensure!(told == wanted, "{program:?} told {told:?}");
    }
    Ok(())
}

async fn a_command_reads_until_its_input_is_dropped(rig: &Rig) -> Verdict {
    let container = started(rig, 0, Program::Wait).await?;
    let runtime = rig.runtime();
    let exec = runtime
        .exec(&container.name, &command(rig, Program::Cat))
        .await?;
    let Exec { input, output, .. } = exec;
    for part in ["one ", "two"] {
        let data = ExecInput::Data(Bytes::from_static(part.as_bytes()));
        let sent = input.send(data).await;
        ensure!(sent.is_ok(), "it takes no input");
    }
    drop(input);
    // An end that nobody sends to stands for the one that was dropped.
    let (nobody, _) = tokio::sync::mpsc::channel(1);
    let told = read(rig, &mut Exec::new(nobody, output)).await?;
    ensure!(
        (told.out.as_str(), told.code) == ("one two", Some(0)),
        "it told {told:?}"
    );
    Ok(())
}

async fn a_command_has_the_environment_of_its_container_and_its_own(rig: &Rig) -> Verdict {
    let spec = spec(rig, 0, Program::Wait)?.env("COLOUR", "blue");
    let container = rig.runtime().create(&spec).await?;
    rig.runtime().start(&container.name).await?;
    for (own, wanted) in [(None, "blue\n"), (Some("red"), "red\n")] {
        let mut command = command(rig, Program::Env("COLOUR"));
        if let Some(own) = own {
            command.env.0.insert("COLOUR".to_owned(), own.to_owned());
        }
        let mut exec = rig.runtime().exec(&container.name, &command).await?;
        let told = read(rig, &mut exec).await?;
        ensure!(
            told.out == wanted,
            "with {own:?} of its own it told {told:?}"
        );
    }
    Ok(())
}

async fn only_running_containers_run_commands(rig: &Rig) -> Verdict {
    let command = command(rig, Program::Exit(0));
    let runtime = rig.runtime();
    let unknown = runtime.exec(&super::name(1)?, &command).await;
    refused("exec in an unknown one", unknown, &[ErrorKind::NotFound])?;
    let container = runtime.create(&spec(rig, 0, Program::Wait)?).await?;
    let created = runtime.exec(&container.name, &command).await;
    refused("exec before the start", created, &[ErrorKind::Unavailable])?;
    runtime.start(&container.name).await?;
    runtime.exec(&container.name, &command).await?;
    runtime.stop(&container.name).await?;
    let ended = runtime.exec(&container.name, &command).await;
    refused("exec after the end", ended, &[ErrorKind::Unavailable]).map(drop)
}

async fn a_missing_command_is_told(rig: &Rig) -> Verdict {
    let container = started(rig, 0, Program::Wait).await?;
    let command = command(rig, Program::Missing);
    let answer = rig.runtime().exec(&container.name, &command).await;
    refused("exec", answer, &[ErrorKind::InvalidInput]).map(drop)
}
