//! What containers write.

use arpanet_core::ErrorKind;
use arpanet_core::runtime::{LogOptions, OutputStream, Runtime};
use arpanet_process::ProcessRuntime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::scene::{BOUND, exit_code, name, run, scene, shell};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("both_streams_tail_and_since", both_streams_tail_and_since),
    (
        "following_over_a_restart_until_removal",
        following_over_a_restart_until_removal,
    ),
    ("much_output_is_whole", much_output_is_whole),
    ("endless_output_has_a_limit", endless_output_has_a_limit),
];

async fn all(runtime: &ProcessRuntime, container: &str, options: LogOptions) -> (String, String) {
    let mut from = runtime.logs(&name(container), options).await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(output) = timeout(BOUND, from.recv()).await.unwrap() {
        let to = if output.stream == OutputStream::Stderr {
            &mut err
        } else {
            &mut out
        };
        to.extend_from_slice(&output.bytes);
    }
    (
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

fn both_streams_tail_and_since() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let script = "echo one; echo two; sleep 0.2; echo three; sleep 0.2; echo wrong >&2";
        run(&runtime, &shell("w1", script)).await;
        assert_eq!(exit_code(&runtime, "w1").await, 0);
        let (out, err) = all(&runtime, "w1", LogOptions::all()).await;
        assert_eq!(
            (out.as_str(), err.as_str()),
            ("one\ntwo\nthree\n", "wrong\n")
        );
        let (out, err) = all(&runtime, "w1", LogOptions::all().tail(2)).await;
        assert_eq!((out.as_str(), err.as_str()), ("three\n", "wrong\n"));
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        let (out, _) = all(&runtime, "w1", LogOptions::all().since(later)).await;
        assert_eq!(out, "");
        let error = runtime
            .logs(&name("w2"), LogOptions::all())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

/// Reads until this text has come.
async fn read_until(from: &mut mpsc::Receiver<arpanet_core::runtime::Output>, text: &str) {
    let mut read = String::new();
    while !read.contains(text) {
        let output = timeout(BOUND, from.recv()).await.unwrap().unwrap();
        read.push_str(std::str::from_utf8(&output.bytes).unwrap());
    }
}

fn following_over_a_restart_until_removal() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let go = scene.file("go");
        let script = format!(
            "echo begun; until test -e {}; do sleep 0.01; done; echo over",
            go.display()
        );
        runtime.create(&shell("w1", &script)).await.unwrap();
        // Before there is anything.
        let follow = LogOptions::all().follow();
        let mut from = runtime.logs(&name("w1"), follow).await.unwrap();
        runtime.start(&name("w1")).await.unwrap();
        read_until(&mut from, "begun\n").await;
        std::fs::write(&go, "").unwrap();
        read_until(&mut from, "over\n").await;
        assert_eq!(exit_code(&runtime, "w1").await, 0);
        runtime.start(&name("w1")).await.unwrap();
        read_until(&mut from, "begun\nover\n").await;
        runtime.remove(&name("w1")).await.unwrap();
        assert_eq!(timeout(BOUND, from.recv()).await.unwrap(), None);
    });
}

fn much_output_is_whole() {
    scene(async |scene| {
        let runtime = scene.open().await;
        run(&runtime, &shell("w1", "seq 1 200000")).await;
        let followed = all(&runtime, "w1", LogOptions::all().tail(1)).await;
        drop(followed);
        assert_eq!(exit_code(&runtime, "w1").await, 0);
        let (out, _) = all(&runtime, "w1", LogOptions::all()).await;
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 200_000);
        assert_eq!(lines[199_999], "200000");
        let (tail, _) = all(&runtime, "w1", LogOptions::all().tail(3)).await;
        assert_eq!(tail, "199998\n199999\n200000\n");
    });
}

fn endless_output_has_a_limit() {
    scene(async |scene| {
        let limit = 200_000;
        let runtime = ProcessRuntime::open(scene.config().log_limit(limit))
            .await
            .unwrap();
        run(&runtime, &shell("w1", "seq 1 100000")).await;
        assert_eq!(exit_code(&runtime, "w1").await, 0);
        let size = |file: &str| {
            let path = scene.folder().join("w1").join(file);
            std::fs::metadata(path).unwrap().len()
        };
        // One piece, of 64 KiB at most, may be over it in each.
        assert!(size("log") + size("log.old") < limit + 2 * (65 << 10));
        let (out, _) = all(&runtime, "w1", LogOptions::all().tail(2)).await;
        assert_eq!(out, "99999\n100000\n");
        let (out, _) = all(&runtime, "w1", LogOptions::all()).await;
        assert!(
            out.len() > 90_000 && out.ends_with("\n100000\n"),
            "{}",
            out.len()
        );
    });
}
