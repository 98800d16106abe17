//! Who may: tokens and certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use arpanet_consul::{ConsulConfig, ConsulDiscovery, ConsulKeyValue, TlsConfig, Token};
use arpanet_core::kv::KeyValue;
use arpanet_core::{Discovery, ErrorKind};
use serde_json::json;

use crate::consuls::{Site, binary, told};
use crate::{consuls, require_consul};

const MANAGEMENT: &str = "8f4b2b5c-6f0e-4a53-9d34-0a3c5c0d9a11";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_unknown_or_may_not_is_told() {
    require_consul!();
    let acl = json!({
        "enabled": true,
        "default_policy": "deny",
        "tokens": {"master": MANAGEMENT, "agent": MANAGEMENT, "default": ""},
    });
    let site = Site::with_token(1, json!({ "acl": acl }), MANAGEMENT).await;
    let config = site.agents[0].client();
    let with = |token: Option<&str>| {
        let mut config = config.clone();
        config.token = token.map(Token::new);
        config.confirm_ms = 5_000;
        config
    };
    let membership = &consuls::memberships(1)[0];
    for (token, kind) in [
        (None, ErrorKind::PermissionDenied),
        (
            Some("c0ffee00-0000-0000-0000-000000000000"),
            ErrorKind::Unauthenticated,
        ),
    ] {
        let discovery = ConsulDiscovery::new(with(token)).unwrap();
        let refused = discovery.start(membership).await.unwrap_err();
        let kv = ConsulKeyValue::new(with(token)).unwrap();
        let put = kv.put(&"a".parse().unwrap(), "1".into()).await.unwrap_err();
        for error in [refused, put] {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.hint().unwrap().contains("ACL token"));
            let shown = format!("{error:?}");
            assert!(!token.is_some_and(|token| shown.contains(token)), "{shown}");
        }
    }
    let discovery = ConsulDiscovery::new(with(Some(MANAGEMENT))).unwrap();
    discovery.start(membership).await.unwrap();
    let kv = ConsulKeyValue::new(with(Some(MANAGEMENT))).unwrap();
    kv.put(&"a".parse().unwrap(), "1".into()).await.unwrap();
}

/// A certificate for consul's server and for a client, of an authority of their own, by consul itself.
fn certificates(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for args in [
        &["tls", "ca", "create"][..],
        &[
            "tls",
            "cert",
            "create",
            "-server",
            "-additional-ipaddress",
            "10.253.0.1",
        ],
        &["tls", "cert", "create", "-client"],
    ] {
        let output = Command::new(binary().unwrap())
            .args(args)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_by_both_sides() {
    require_consul!();
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    certificates(&own);
    certificates(&other);
    let file = |folder: &Path, name: &str| -> PathBuf { folder.join(name) };
    let (ca, server, client) = (
        "consul-agent-ca.pem",
        "dc1-server-consul-0",
        "dc1-client-consul-0",
    );
    let site = Site::with(
        1,
        0,
        json!({
            "ports": {"https": 8501, "dns": -1, "serf_wan": -1, "grpc": -1},
            "client_addr": "10.253.0.1",
            "ca_file": file(&own, ca),
            "cert_file": file(&own, &format!("{server}.pem")),
            "key_file": file(&own, &format!("{server}-key.pem")),
            "verify_incoming_https": true,
        }),
    )
    .await;

    let trusting = |folder: &Path| TlsConfig::default().ca(file(folder, ca));
    let shown_by = |tls: TlsConfig, folder: &Path| {
        tls.certificate(
            file(folder, &format!("{client}.pem")),
            file(folder, &format!("{client}-key.pem")),
        )
    };
    let get = |address: &str, tls: TlsConfig| {
        let config = ConsulConfig::default().address(address).tls(tls);
        site.agents[0].inside(async move || {
            let kv = ConsulKeyValue::new(config).unwrap();
            kv.get(&"a".parse().unwrap()).await
        })
    };
    let https = "https://10.253.0.1:8501";
    let good = shown_by(trusting(&own), &own);
    assert_eq!(get(https, good.clone()).unwrap(), None);
    assert_eq!(
        get(https, good.clone().server_name("server.dc1.consul")).unwrap(),
        None
    );
    for (what, tls) in [
        ("another authority", shown_by(trusting(&other), &own)),
        (
            "another name",
            good.clone().server_name("server.dc9.consul"),
        ),
        ("no certificate of one's own", trusting(&own)),
        ("one of another authority", shown_by(trusting(&own), &other)),
    ] {
        let error = get(https, tls).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Unauthenticated,
            "{what}: {}",
            told(&error)
        );
        assert!(error.to_string().contains("certificate"), "{error}");
        assert!(error.hint().unwrap().contains("tls.ca"));
    }
    let error = get("http://10.253.0.1:8501", TlsConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{}", told(&error));
    let error = get("https://10.253.0.1:8300", good).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::Incompatible | ErrorKind::Unavailable
        ),
        "{}",
        told(&error)
    );
}
