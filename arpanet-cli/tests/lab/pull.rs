//! Images of a registry, on a real engine, as an operator asks for them.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::registry::Registry;
use crate::site::{BINARY, Outcome, Site};

const HOST: &str = "node1";

/// Runs `arpanet2` with docker's settings in this folder.
fn with(site: &Site, settings: &Path, line: &str) -> Outcome {
    let settings = settings.display();
    let path = format!("{settings}:/usr/sbin:/usr/bin:/sbin:/bin");
    let line = format!("env DOCKER_CONFIG={settings} PATH={path} {BINARY} {line}");
    site.run(HOST, &line)
}

/// It failed with this sentence, whatever its causes, and with this way out.
fn refused(outcome: &Outcome, sentence: &str, hint: &str) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.out, "", "{outcome:?}");
    let told = |begin: &str| {
        outcome
            .err
            .lines()
            .find_map(|line| line.strip_prefix(begin))
    };
    let message = told("error: ").unwrap_or_default();
    assert!(message.ends_with(sentence), "{outcome:?}");
    assert!(
        told("hint: ").unwrap_or_default().contains(hint),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_with_progress_or_says_why_not() {
    let Some(site) = Site::up_with_docker(1).await else {
        return;
    };
    site.ok(HOST, "boot 0.1 Apples");
    let namespace = site.lab.namespace(HOST).unwrap();
    let registry = Registry::serve(&namespace).await;
    let nobody = tempfile::tempdir().unwrap();
    let ask = |line: &str| with(&site, nobody.path(), line);

    let web = registry.image("team/web:1");
    let pulled = ask(&format!("pull {web}"));
    assert_eq!(pulled.code, Some(0), "{pulled:?}");
    assert!(pulled.out.starts_with("sha256:"), "{pulled:?}");
    assert!(
        pulled.err.starts_with(&format!("pulling {web}")),
        "{pulled:?}"
    );
    let done = pulled.err.lines().filter(|line| line.ends_with(": done"));
    assert_eq!(done.count(), 3, "{pulled:?}");
    let again = ask(&format!("pull {web} --json"));
    let told: serde_json::Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(told["is_new"], false);
    assert_eq!(told["id"], *pulled.out);

    // A container has its image pulled as its policy says.
    let other = registry.image("other:1");
    let run = |policy: &str, image: &str, name: &str| {
        let line = format!("run --pull {policy} --image {image} --name {name} -- sleep 600");
        ask(&line)
    };
    refused(
        &run("never", &other, "w1"),
        "is not to be pulled",
        "pull it first",
    );
    let ran = run("missing", &other, "w1");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "w1"), "{ran:?}");
    assert!(ran.err.contains(": done"), "{ran:?}");
    let ran = run("always", &web, "w2");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(run("never", &web, "w3").code, Some(0));
    let wrong = run("sometimes", &web, "w4");
    assert_eq!(wrong.code, Some(2), "{wrong:?}");

    // What there is not, and who is not there.
    let unknown = ask(&format!("pull {}", registry.image("nonexistent:1")));
    refused(
        &unknown,
        "its registry does not have it",
        "is its name right?",
    );
    let free = namespace.run(|| TcpListener::bind("127.0.0.1:0"));
    let free = free.unwrap().unwrap().local_addr().unwrap();
    let closed = ask(&format!("pull {free}/web:1"));
    refused(&closed, "its registry is out of reach", &free.to_string());
    assert!(closed.err.contains("connection refused"), "{closed:?}");
    let elsewhere = ask("pull registry.invalid/web:1");
    refused(
        &elsewhere,
        "its registry is out of reach",
        "registry.invalid",
    );
    let nonsense = ask("pull ../web");
    assert_eq!(nonsense.code, Some(2), "{nonsense:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_shown_what_docker_login_left() {
    let Some(site) = Site::up_with_docker(1).await else {
        return;
    };
    site.ok(HOST, "boot 0.1 Apples");
    let registry = Registry::serve(&site.lab.namespace(HOST).unwrap()).await;
    // Characters that are told in two ways in base64.
    registry.admit_only("jane", "Pears?>~");
    let image = registry.image("team/web:1");
    let name = registry.image("");
    let name = name.trim_end_matches('/');
    let settings = tempfile::tempdir().unwrap();
    let pull = || with(&site, settings.path(), &format!("pull {image}"));

    let hint = format!("docker login {name}");
    refused(&pull(), "its registry wants to know who asks", &hint);

    let file = settings.path().join("config.json");
    let login = |password: &str| {
        let auth = base64::Engine::encode(
            &base64::prelude::BASE64_STANDARD,
            format!("jane:{password}"),
        );
        format!(r#"{{"auths": {{"{name}": {{"auth": "{auth}"}}}}}}"#)
    };
    std::fs::write(&file, login("Apples")).unwrap();
    refused(
        &pull(),
        "its registry does not take these credentials",
        &hint,
    );
    std::fs::write(&file, "{").unwrap();
    let damaged = pull();
    refused(&damaged, "its registry wants to know who asks", &hint);
    assert!(
        damaged.err.contains("warning: pulling without"),
        "{damaged:?}"
    );

    // A helper has them.
    let helper = settings.path().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r registry\n[ \"$1 $registry\" = 'get {name}' ] || exit 1\necho '{{\"Username\": \"jane\", \"Secret\": \"Pears?>~\"}}'\n"
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(&file, r#"{"credsStore": "test"}"#).unwrap();
    let pulled = pull();
    assert_eq!(pulled.code, Some(0), "{pulled:?}");

    // And so does the file that docker's own client writes.
    std::fs::remove_file(&file).unwrap();
    let line = format!(
        "echo 'Pears?>~' | DOCKER_CONFIG={} /usr/bin/docker login -u jane --password-stdin {name}",
        settings.path().display()
    );
    let known = site.command(HOST, &["sh", "-c", &line]);
    assert_eq!(known.code, Some(0), "{known:?}");
    let pulled = pull();
    assert_eq!(pulled.code, Some(0), "{pulled:?}");
    let log = site.run(HOST, "cat /var/lib/arpanet2/agent.log").out;
    assert!(!log.contains("Pears"), "{log}");
}
