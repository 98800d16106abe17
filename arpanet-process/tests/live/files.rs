//! What a container finds: its files, its name, its user, its environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use arpanet_core::runtime::Runtime;

use crate::scene::{
    BOUND, Scene, first_process, name, on_this_thread, own_mounts, run, scene, shell, until,
    written,
};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("own_resolver_hosts_and_name", own_resolver_hosts_and_name),
    (
        "a_resolver_file_that_is_replaced_on_the_host",
        a_resolver_file_that_is_replaced_on_the_host,
    ),
    (
        "user_directory_and_environment",
        user_directory_and_environment,
    ),
    (
        "nothing_secret_is_readable_by_others",
        nothing_secret_is_readable_by_others,
    ),
];

fn own_resolver_hosts_and_name() {
    scene(async |scene| {
        let before = fs::read("/etc/resolv.conf").unwrap();
        let runtime = scene.open().await;
        let out = scene.file("out");
        let script = format!(
            "exec > {}; cat /etc/resolv.conf; hostname; cat /etc/hosts; echo $$; \
             ls /sys/class/net; ls -d /proc/[0-9]* | wc -l; echo end; sleep 1000",
            out.display()
        );
        let mut spec = shell("w1", &script).addr("10.1.0.5/16".parse().unwrap());
        spec.dns = vec!["169.254.1.1".parse().unwrap()];
        spec.dns_search = vec!["service.consul".to_owned()];
        run(&runtime, &spec).await;
        let text = written(&out).await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            ["nameserver 169.254.1.1", "search service.consul", "w1"]
        );
        assert!(lines.contains(&"10.1.0.5\tw1"), "{text}");
        assert!(text.contains("127.0.0.1\tlocalhost"), "{text}");
        // Its own numbers for processes, and its own links only: the shell is the second process.
        let tail: Vec<&str> = lines.iter().rev().take(3).copied().collect();
        assert_eq!(tail[1..], ["lo", "2"], "{text}");
        let processes: u32 = tail[0].parse().unwrap();
        assert!(processes < 8, "{text}");
        assert_eq!(fs::read("/etc/resolv.conf").unwrap(), before);
        assert_ne!(nix::unistd::gethostname().unwrap(), "w1");
    });
}

fn a_resolver_file_that_is_replaced_on_the_host() {
    own_mounts();
    // An /etc for this thread and its containers only.
    let scene = Scene::new();
    let etc = scene.file("etc");
    fs::create_dir(&etc).unwrap();
    for file in ["passwd", "group", "ld.so.cache"] {
        let _ = fs::copy(format!("/etc/{file}"), etc.join(file));
    }
    fs::write(etc.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    let nothing = None::<&str>;
    nix::mount::mount(
        Some(&etc),
        "/etc",
        nothing,
        nix::mount::MsFlags::MS_BIND,
        nothing,
    )
    .unwrap();
    on_this_thread(3 * BOUND, async {
        let runtime = scene.open().await;
        let mut spec = shell("w1", "sleep 1000");
        spec.dns = vec!["169.254.1.1".parse().unwrap()];
        let container = run(&runtime, &spec).await;
        let inside = format!("/proc/{}/root/etc/resolv.conf", first_process(&container));
        let is_own =
            || fs::read_to_string(&inside).is_ok_and(|text| text == "nameserver 169.254.1.1\n");
        assert!(is_own());
        for _ in 0..3 {
            fs::write(etc.join("fresh"), "nameserver 192.0.2.2\n").unwrap();
            fs::rename("/etc/fresh", "/etc/resolv.conf").unwrap();
            until("the container has its own again", async || is_own()).await;
        }
        // As one that is a link to elsewhere.
        fs::create_dir(etc.join("run")).unwrap();
        fs::write(etc.join("run/stub"), "nameserver 192.0.2.3\n").unwrap();
        std::os::unix::fs::symlink("run/stub", etc.join("fresh")).unwrap();
        fs::rename("/etc/fresh", "/etc/resolv.conf").unwrap();
        until("the container has its own again", async || is_own()).await;
        fs::write(etc.join("run/fresh"), "nameserver 192.0.2.4\n").unwrap();
        fs::rename("/etc/run/fresh", "/etc/run/stub").unwrap();
        until("the container has its own again", async || is_own()).await;
        let host = fs::read_to_string("/etc/resolv.conf").unwrap();
        assert_eq!(host, "nameserver 192.0.2.4\n");
        runtime.remove(&name("w1")).await.unwrap();
    });
}

fn user_directory_and_environment() {
    scene(async |scene| {
        let runtime = scene.open().await;
        let out = scene.file("out");
        let script = format!(
            "exec > {}; id -u; id -g; id -G; pwd; echo $A; umask; env | grep -c CARGO; echo end",
            out.display()
        );
        let mut spec = shell("w1", &script).env("A", "of its own");
        spec.user = Some("4711:4712".to_owned());
        spec.workdir = Some("/usr".to_owned());
        run(&runtime, &spec).await;
        let text = written(&out).await;
        let lines: Vec<&str> = text.lines().collect();
        let wanted = ["4711", "4712", "4712", "/usr", "of its own", "0022", "0"];
        assert_eq!(lines, wanted);
    });
}

fn nothing_secret_is_readable_by_others() {
    scene(async |scene| {
        let runtime = scene.open().await;
        run(
            &runtime,
            &shell("w1", "sleep 1000").env("PASSWORD", "secret"),
        )
        .await;
        let mode =
            |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = scene.folder();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("w1")), 0o700);
        for file in ["spec.json", "status.json", "log", "shim.log", "shim.lock"] {
            assert_eq!(mode(&folder.join("w1").join(file)), 0o600, "{file}");
        }
        let seen = format!("{:?}", runtime.inspect(&name("w1")).await.unwrap());
        assert!(!seen.contains("secret"), "{seen}");
    });
}
