//! Commands that are run in a running container.

use arpanet_core::ErrorKind;
use arpanet_core::runtime::{Exec, ExecInput, ExecOutput, ExecSpec, OutputStream, Runtime};
use arpanet_process::ProcessRuntime;
use bytes::Bytes;
use tokio::time::timeout;

use crate::scene::{BOUND, name, path_of, processes_with, run, scene, shell, until};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_command_inside", a_command_inside),
    ("input_goes_through_whole", input_goes_through_whole),
    ("exec_that_cannot_be", exec_that_cannot_be),
    ("dropping_both_ends_kills", dropping_both_ends_kills),
    ("a_terminal_has_a_size", a_terminal_has_a_size),
    ("a_stop_ends_it", a_stop_ends_it),
];

async fn exec(runtime: &ProcessRuntime, spec: &ExecSpec) -> Exec {
    runtime.exec(&name("w1"), spec).await.unwrap()
}

fn script(script: &str) -> ExecSpec {
    ExecSpec::new(["sh", "-c", script])
}

/// All that comes, and the exit code.
async fn outcome(mut exec: Exec) -> (String, String, i32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match timeout(BOUND, exec.output.recv()).await.unwrap().unwrap() {
            ExecOutput::Output(output) if output.stream == OutputStream::Stderr => {
                err.extend_from_slice(&output.bytes);
            }
            ExecOutput::Output(output) => out.extend_from_slice(&output.bytes),
            ExecOutput::Exited(code) => {
                assert_eq!(timeout(BOUND, exec.output.recv()).await.unwrap(), None);
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(out), text(err), code);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn a_command_inside() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let spec = shell("w1", "sleep 1000; :").env("A", "1").env("B", "1");
        let container = run(&runtime, &spec).await;
        let inside = std::fs::read_link(path_of(&container)).unwrap();
        let mut spec = script(
            "hostname; readlink /proc/self/ns/net; echo $A$B; tr '\\0' ' ' < /proc/1/cmdline; \
             echo wrong >&2; exit 4",
        );
        spec.env.0.insert("B".to_owned(), "2".to_owned());
        let (out, err, code) = outcome(exec(&runtime, &spec).await).await;
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..3], ["w1", inside.to_str().unwrap(), "12"]);
        assert!(lines[3].contains("init"), "{out}");
        assert_eq!((err.as_str(), code), ("wrong\n", 4));
        let (_, _, code) = outcome(exec(&runtime, &script("kill -9 $$")).await).await;
        assert_eq!(code, 137);
        // Does not wait for what it leaves behind.
        let (out, _, code) = outcome(exec(&runtime, &script("sleep 1000 & echo hi")).await).await;
        assert_eq!((out.as_str(), code), ("hi\n", 0));
    });
}

fn input_goes_through_whole() {
    scene(async |scene| {
        let runtime = scene.open().await;
        run(&runtime, &shell("w1", "sleep 1000; :")).await;
        let exec = exec(&runtime, &ExecSpec::new(["md5sum"])).await;
        let Exec { input, output, .. } = exec;
        for _ in 0..40 {
            let piece = Bytes::from(vec![b'x'; 100_000]);
            timeout(BOUND, input.send(ExecInput::Data(piece)))
                .await
                .unwrap()
                .unwrap();
        }
        drop(input);
        let (unused, _) = tokio::sync::mpsc::channel(1);
        let (out, _, code) = outcome(Exec::new(unused, output)).await;
        // Of 4 000 000 times x.
        let sum = std::process::Command::new("sh")
            .args(["-c", "head -c 4000000 /dev/zero | tr '\\0' x | md5sum"])
            .output()
            .unwrap();
        assert_eq!((out.as_bytes(), code), (&sum.stdout[..], 0));

        // A command that does not read does not swallow without bound.
        let exec = self::exec(&runtime, &ExecSpec::new(["sleep", "1000"])).await;
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let mut sent = 0;
        let filling = async {
            while exec
                .input
                .send(ExecInput::Data(piece.clone()))
                .await
                .is_ok()
            {
                sent += 1;
            }
        };
        let full = timeout(std::time::Duration::from_millis(500), filling).await;
        assert!(full.is_err() && sent < 64, "{sent} MB");
    });
}

fn exec_that_cannot_be() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let refused =
            async |spec: &ExecSpec| runtime.exec(&name("w1"), spec).await.unwrap_err().kind();
        let spec = script("true");
        assert_eq!(refused(&spec).await, ErrorKind::NotFound);
        runtime.create(&shell("w1", "sleep 1000")).await.unwrap();
        assert_eq!(refused(&spec).await, ErrorKind::Unavailable);
        runtime.start(&name("w1")).await.unwrap();
        let missing = ExecSpec::new(["/nonexistent"]);
        assert_eq!(refused(&missing).await, ErrorKind::InvalidInput);
        let nothing = ExecSpec::default();
        assert_eq!(refused(&nothing).await, ErrorKind::InvalidInput);
        runtime.stop(&name("w1")).await.unwrap();
        assert_eq!(refused(&spec).await, ErrorKind::Unavailable);
    });
}

fn dropping_both_ends_kills() {
    scene(async |scene| {
        let runtime = scene.open().await;
        run(&runtime, &shell("w1", "sleep 1000; :")).await;
        let mark = format!("marked-{}", scene.folder().display());
        let spec = script(&format!(": {mark}; sleep 1000; :"));
        for first in ["input", "output", "clogged"] {
            let exec = exec(&runtime, &spec).await;
            until("it runs", async || !processes_with(&mark).is_empty()).await;
            let Exec { input, output, .. } = exec;
            match first {
                "input" => {
                    drop(input);
                    assert!(
                        !processes_with(&mark).is_empty(),
                        "one end is enough to live"
                    );
                    drop(output);
                }
                "output" => {
                    drop(output);
                    assert!(
                        !processes_with(&mark).is_empty(),
                        "one end is enough to live"
                    );
                    drop(input);
                }
                _ => {
                    let piece = Bytes::from(vec![0; 1 << 20]);
                    input.try_send(ExecInput::Data(piece)).unwrap();
                    drop((input, output));
                }
            }
            until("it is killed", async || processes_with(&mark).is_empty()).await;
        }
    });
}

fn a_terminal_has_a_size() {
    scene(async |scene| {
        let runtime = scene.open().await;
        run(&runtime, &shell("w1", "sleep 1000; :")).await;
        let mut spec =
            script("test -t 0 && test -t 1 && tty; stty size; read line; stty size; cat");
        spec.terminal = Some((100, 40));
        let mut exec = exec(&runtime, &spec).await;
        let mut seen = String::new();
        while !seen.contains("40 100\r\n") {
            match timeout(BOUND, exec.output.recv()).await.unwrap().unwrap() {
                ExecOutput::Output(output) => {
                    seen.push_str(std::str::from_utf8(&output.bytes).unwrap());
                }
                other => panic!("{other:?} after {seen}"),
            }
        }
        exec.input.send(ExecInput::Resize(80, 25)).await.unwrap();
        exec.input
            .send(ExecInput::Data(Bytes::from_static(b"\n")))
            .await
            .unwrap();
        let Exec { input, output, .. } = exec;
        drop(input);
        let (unused, _) = tokio::sync::mpsc::channel(1);
        let (out, _, code) = outcome(Exec::new(unused, output)).await;
        assert!(out.contains("25 80\r\n"), "{out:?}");
        assert_eq!(code, 0);
    });
}

fn a_stop_ends_it() {
    scene(async |scene| {
        let runtime = scene.open().await;
        run(&runtime, &shell("w1", "exec sleep 1000")).await;
        let exec = exec(&runtime, &script("sleep 1000; :")).await;
        assert_eq!(runtime.stop(&name("w1")).await.unwrap(), 143);
        let (_, _, code) = outcome(exec).await;
        assert_eq!(code, 137);
    });
}
