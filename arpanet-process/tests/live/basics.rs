//! A container's life.

use std::fs;

use arpanet_core::ErrorKind;
use arpanet_core::runtime::{ContainerSpec, ContainerState, Runtime};
use arpanet_netlink::Namespace;
use arpanet_process::ProcessRuntime;

use crate::scene::{
    exit_code, first_process, inspect, is_gone, name, path_of, processes_with, run, scene, shell,
    shims, until,
};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_life_from_create_to_remove", a_life_from_create_to_remove),
    ("exit_codes", exit_codes),
    ("stop_terminates_then_kills", stop_terminates_then_kills),
    (
        "commands_that_cannot_be_started",
        commands_that_cannot_be_started,
    ),
    ("the_same_again_and_another", the_same_again_and_another),
    ("nothing_is_left_behind", nothing_is_left_behind),
    ("thirty_at_once", thirty_at_once),
    ("an_ended_one_starts_again", an_ended_one_starts_again),
    ("two_runtimes_side_by_side", two_runtimes_side_by_side),
    (
        "without_root_in_a_user_namespace",
        without_root_in_a_user_namespace,
    ),
];

fn a_life_from_create_to_remove() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let made = runtime.create(&shell("w1", "sleep 1000")).await.unwrap();
        assert_eq!(made.state, ContainerState::Created);
        let namespace = Namespace::open(path_of(&made)).unwrap();
        assert!(!namespace.same_as(&Namespace::current().unwrap()));
        let links = namespace.handle().unwrap().links().await.unwrap();
        assert_eq!(links.len(), 1, "{links:?}");

        runtime.start(&made.name).await.unwrap();
        runtime.start(&made.name).await.unwrap();
        let running = inspect(&runtime, "w1").await;
        assert_eq!(running.state, ContainerState::Running);
        assert_eq!(running.namespace, made.namespace);
        assert_eq!(runtime.list().await.unwrap(), [running]);

        assert_eq!(runtime.stop(&made.name).await.unwrap(), 143);
        let ended = inspect(&runtime, "w1").await;
        assert_eq!(ended.state, ContainerState::Exited { code: 143 });
        assert_eq!(ended.namespace, None);
        assert_eq!(runtime.stop(&made.name).await.unwrap(), 143);

        runtime.remove(&made.name).await.unwrap();
        runtime.remove(&made.name).await.unwrap();
        assert!(is_gone(&runtime, "w1").await);
        assert_eq!(runtime.list().await.unwrap(), []);
        let error = runtime.start(&made.name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

fn exit_codes() {
    scene(async |scene| {
        let runtime = scene.open().await;
        for (container, script, code) in [
            ("zero", "exit 0", 0),
            ("three", "exit 3", 3),
            ("killed", "kill -9 $$", 137),
            ("aborted", "kill -6 $$", 134),
        ] {
            run(&runtime, &shell(container, script)).await;
            assert_eq!(exit_code(&runtime, container).await, code, "{container}");
        }
    });
}

fn stop_terminates_then_kills() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let ready = scene.file("ready");
        let polite = format!(
            "trap 'exit 5' TERM; touch {}; while :; do sleep 0.01; done",
            ready.display()
        );
        run(&runtime, &shell("polite", &polite)).await;
        until("the trap is set", async || ready.exists()).await;
        assert_eq!(runtime.stop(&name("polite")).await.unwrap(), 5);

        let mut stubborn = shell("stubborn", "trap '' TERM; while :; do sleep 0.01; done");
        stubborn.stop_grace = Some(std::time::Duration::from_millis(200));
        run(&runtime, &stubborn).await;
        // Before its trap is set it would be 143.
        let code = runtime.stop(&name("stubborn")).await.unwrap();
        assert!([137, 143].contains(&code), "{code}");

        let made = runtime.create(&shell("idle", "sleep 1000")).await.unwrap();
        assert_eq!(runtime.stop(&made.name).await.unwrap(), 0);
        assert_eq!(inspect(&runtime, "idle").await, made);
    });
}

fn commands_that_cannot_be_started() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let of = |container: &str, command: &str| {
            ContainerSpec::command([command]).named(name(container))
        };
        for (container, command, code) in [
            ("missing", "/nonexistent/command", 127),
            ("unknown", "no-such-command-anywhere", 127),
            ("no-program", "/etc/passwd", 126),
        ] {
            let made = runtime.create(&of(container, command)).await.unwrap();
            let error = runtime.start(&made.name).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(command), "{error}");
            assert_eq!(exit_code(&runtime, container).await, code, "{container}");
        }
        let mut lost = of("lost", "true");
        lost.workdir = Some("/nonexistent".to_owned());
        runtime.create(&lost).await.unwrap();
        let error = runtime.start(&name("lost")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("/nonexistent"), "{error}");
        let mut nobody = of("nobody", "true");
        nobody.user = Some("no-such-user".to_owned());
        runtime.create(&nobody).await.unwrap();
        let error = runtime.start(&name("nobody")).await.unwrap_err();
        assert!(error.to_string().contains("no-such-user"), "{error}");
    });
}

fn the_same_again_and_another() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let spec = shell("w1", "sleep 1000").env("A", "1");
        let made = runtime.create(&spec).await.unwrap();
        assert_eq!(runtime.create(&spec).await.unwrap(), made);
        let error = runtime
            .create(&spec.clone().env("A", "2"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        for wrong in [
            ContainerSpec::command(["true"]),
            ContainerSpec::image("nginx").named(name("w2")),
            ContainerSpec::default().named(name("w2")),
            shell("w2", "true").env("A=B", "1"),
            shell("w2", "true\0"),
        ] {
            let error = runtime.create(&wrong).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong:?}");
        }
        // Many at once make one.
        let many = (0..8).map(|_| {
            let (runtime, spec) = (runtime.clone(), shell("w3", "sleep 1000"));
            tokio::spawn(async move { runtime.create(&spec).await.unwrap().id })
        });
        let mut ids = Vec::new();
        for one in many.collect::<Vec<_>>() {
            ids.push(one.await.unwrap());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1);
    });
}

fn nothing_is_left_behind() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let mark = format!("sleep-{}", scene.folder().display());
        // Leaves children behind, in sessions of their own, one of which ignores the signal.
        let script = format!(
            ": {mark}; setsid sh -c ': {mark}; trap \"\" TERM; while :; do sleep 1; done' & \
             setsid sleep 1000 & exit 0"
        );
        let made = runtime.create(&shell("messy", &script)).await.unwrap();
        let init = first_process(&made);
        let shim = shims(&scene.folder())[0];
        runtime.start(&made.name).await.unwrap();
        assert_eq!(exit_code(&runtime, "messy").await, 0);
        assert_eq!(processes_with(&mark), [0; 0]);
        for process in [init, shim] {
            until("the processes are gone", async || {
                !fs::exists(format!("/proc/{process}")).unwrap()
            })
            .await;
        }
        runtime.remove(&made.name).await.unwrap();

        // One that runs, with its shim, is ended by the removal.
        let made = run(
            &runtime,
            &shell("busy", &format!(": {mark}; sleep 1000; :")),
        )
        .await;
        let init = first_process(&made);
        runtime.remove(&made.name).await.unwrap();
        assert!(!fs::exists(format!("/proc/{init}")).unwrap());
        assert_eq!(processes_with(&mark), [0; 0]);
        let left: Vec<_> = fs::read_dir(scene.folder())
            .unwrap()
            .map(|file| file.unwrap().file_name())
            .collect();
        assert_eq!(left, [".lock"]);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(scene.folder().to_str().unwrap()));
    });
}

fn thirty_at_once() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let all: Vec<_> = (0..30)
            .map(|number| {
                let runtime = runtime.clone();
                let spec = shell(&format!("w{number}"), "exec sleep 1000");
                tokio::spawn(async move { run(&runtime, &spec).await })
            })
            .collect();
        let mut namespaces = std::collections::BTreeSet::new();
        for one in all {
            let container = one.await.unwrap();
            assert_eq!(container.state, ContainerState::Running);
            namespaces.insert(fs::read_link(path_of(&container)).unwrap());
        }
        assert_eq!(namespaces.len(), 30);
        let ends: Vec<_> = runtime
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|container| {
                let runtime = runtime.clone();
                tokio::spawn(async move {
                    let code = runtime.stop(&container.name).await.unwrap();
                    runtime.remove(&container.name).await.unwrap();
                    code
                })
            })
            .collect();
        for end in ends {
            assert_eq!(end.await.unwrap(), 143);
        }
        assert_eq!(runtime.list().await.unwrap(), []);
    });
}

fn an_ended_one_starts_again() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let count = scene.file("count");
        let script = format!("echo x >> {}", count.display());
        runtime.create(&shell("again", &script)).await.unwrap();
        for round in 1..=5 {
            runtime.start(&name("again")).await.unwrap();
            assert_eq!(exit_code(&runtime, "again").await, 0);
            let lines = fs::read_to_string(&count).unwrap().lines().count();
            assert_eq!(lines, round);
        }
    });
}

fn two_runtimes_side_by_side() {
    scene(async |scene| {
        let one = scene.open().await;
        let error = ProcessRuntime::open(scene.config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let elsewhere = crate::scene::config(&scene.folder().join("other-place"));
        let two = ProcessRuntime::open(elsewhere).await.unwrap();
        let first = run(&one, &shell("w1", "sleep 1000")).await;
        let second = run(&two, &shell("w1", "sleep 2000")).await;
        let open = |container| Namespace::open(path_of(container)).unwrap();
        assert!(!open(&first).same_as(&open(&second)));
        two.remove(&name("w1")).await.unwrap();
        assert_eq!(inspect(&one, "w1").await, first);
        assert_eq!(two.list().await.unwrap(), []);
    });
}

fn without_root_in_a_user_namespace() {
    let inside = |command: &[&str]| {
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "--pid", "--fork"]);
        unshare.arg("--mount-proc").args(command).output().unwrap()
    };
    if !inside(&["true"]).status.success() {
        println!("skipped: this kernel does not let users make namespaces");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let tests = [
        "a_life_from_create_to_remove",
        "a_command_inside",
        "--exact",
    ];
    let command = [&[own.to_str().unwrap()], &tests[..]].concat();
    let outcome = inside(&command);
    let text = String::from_utf8(outcome.stdout).unwrap();
    assert!(text.contains("2 passed, 0 failed"), "{text}");
}
