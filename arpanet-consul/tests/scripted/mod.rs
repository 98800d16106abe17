//! An agent that says what the test wants.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How long anything may take here.
const LIMIT: Duration = Duration::from_secs(30);

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) query: String,
    pub(crate) token: Option<String>,
    pub(crate) body: Vec<u8>,
    /// How often this path has been asked, this time included.
    pub(crate) times: usize,
}

impl Asked {
    /// The index that it waits beyond.
    pub(crate) fn index(&self) -> Option<u64> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(name, value)| (name == "index").then(|| value.parse().unwrap()))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What is said to it.
#[derive(Debug, Clone)]
pub(crate) struct Reply(Option<(u16, Option<u64>, String)>);

impl Reply {
    pub(crate) fn json(body: Value) -> Self {
        Self(Some((200, None, body.to_string())))
    }

    pub(crate) fn index(index: u64, body: Value) -> Self {
        Self(Some((200, Some(index), body.to_string())))
    }

    pub(crate) fn missing(index: u64) -> Self {
        Self(Some((404, Some(index), String::new())))
    }

    pub(crate) fn error(status: u16, body: &str) -> Self {
        Self(Some((status, None, body.to_owned())))
    }

    /// Nothing, for as long as it waits.
    pub(crate) const fn never() -> Self {
        Self(None)
    }
}

type Script = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;

#[derive(Default)]
struct Inner {
    scripts: Mutex<HashMap<String, Script>>,
    asked: watch::Sender<BTreeMap<String, Vec<Asked>>>,
}

pub(crate) struct Agent {
    inner: Arc<Inner>,
    address: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `/v1/agent/self` as of 1.20, with a little of its `DebugConfig`.
fn agent_self() -> Value {
    json!({
        "Config": {
            "Datacenter": "dc1", "PrimaryDatacenter": "dc1", "NodeName": "banana",
            "NodeID": "bb04ea12-6bd2-4a35-9be1-03b0b0c1a2cf", "Partition": "default", "Revision": "44f9fa7a",
            "Server": true, "Version": "1.20.1", "BuildDate": "2024-10-29T19:04:05Z",
        },
        "DebugConfig": {"ACLTokens": {"ACLAgentToken": "hidden"}, "PeeringEnabled": true},
        "Coord": {"Vec": [0, 0], "Error": 1.5, "Adjustment": 0, "Height": 0.00001},
        "Member": {"Name": "banana", "Addr": "10.253.0.2", "Port": 8301, "Tags": {}, "Status": 1},
        "Stats": {"raft": {"state": "Leader"}},
        "Meta": {"consul-network-segment": "", "consul-version": "1.20.1"},
        "xDS": {"SupportedProxies": {"envoy": ["1.31.2"]}, "Port": 8502, "Ports": {"Plaintext": 8502, "TLS": 8503}},
    })
}

fn member(name: &str) -> Value {
    json!({
        "Name": name, "Addr": "10.253.0.2", "Port": 8301, "Status": 1,
        "Tags": {"build": "1.20.1:44f9fa7a", "grpc_tls_port": "8503", "role": "consul", "segment": ""},
        "ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2, "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4,
    })
}

/// One of `/v1/health/service/NAME` as of 1.20, on a node that serf has in this state.
pub(crate) fn entry(node: &str, id: &str, service: &str, serf: &str) -> Value {
    json!({
        "Node": {
            "ID": "bb04ea12-6bd2-4a35-9be1-03b0b0c1a2cf", "Node": node, "Address": "10.253.0.2", "Datacenter": "dc1",
            "TaggedAddresses": {"lan": "10.253.0.2", "lan_ipv4": "10.253.0.2", "wan": "10.253.0.2"},
            "Meta": {"consul-network-segment": "", "consul-version": "1.20.1"},
            "Locality": null, "PeerName": "", "Partition": "default", "CreateIndex": 13, "ModifyIndex": 15,
        },
        "Service": {
            "ID": id, "Service": service, "Tags": null, "Address": "10.1.0.5",
            "TaggedAddresses": {"lan_ipv4": {"Address": "10.1.0.5", "Port": 80}, "wan_ipv4": {"Address": "10.1.0.5", "Port": 80}},
            "Meta": {"arpanet-node": "0.2", "arpanet-net": "10.1.0.0/16"},
            "Port": 80, "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false, "SocketPath": "",
            "Proxy": {"Mode": "", "MeshGateway": {}, "Expose": {}}, "Connect": {}, "Locality": null,
            "PeerName": "", "Namespace": "default", "Partition": "default", "CreateIndex": 20, "ModifyIndex": 20,
        },
        "Checks": [
            check(node, "serfHealth", serf, ""),
            check(node, "arpanet", "passing", ""),
            check(node, &format!("service:{id}"), "passing", id),
        ],
    })
}

fn check(node: &str, id: &str, status: &str, service: &str) -> Value {
    json!({
        "Node": node, "CheckID": id, "Name": id, "Status": status, "Notes": "", "Output": "", "ServiceID": service,
        "ServiceName": "", "ServiceTags": null, "Type": "ttl", "Interval": "", "Timeout": "", "ExposedPort": 0,
        "Definition": {}, "PeerName": "", "Namespace": "default", "Partition": "default",
        "CreateIndex": 20, "ModifyIndex": 20,
    })
}

impl Agent {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner::default());
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&inner));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let agent = Self {
            inner,
            address,
            server,
        };
        agent.answer("/v1/agent/self", |_| Reply::json(agent_self()));
        agent.answer("/v1/status/leader", |_| {
            Reply::json(json!("10.253.0.2:8300"))
        });
        agent.answer("/v1/agent/members", |_| {
            Reply::json(json!([member("banana")]))
        });
        agent.answer("/v1/agent/services", |_| Reply::json(json!({})));
        for done in [
            "/v1/agent/service/register",
            "/v1/agent/check/register",
            "/v1/agent/check/update/arpanet",
        ] {
            agent.answer(done, |asked| {
                assert_eq!(asked.method, "PUT");
                Reply::error(200, "")
            });
        }
        agent
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Has this path answered so from now on.
    pub(crate) fn answer(
        &self,
        path: &str,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) {
        self.inner
            .scripts
            .lock()
            .unwrap()
            .insert(path.to_owned(), Box::new(script));
    }

    /// Has it in the catalogue that a node is a member.
    pub(crate) fn knows_a_member(&self, name: &str, node: &str, role: &str) {
        let mut entry = entry(name, "arpanet-member", "arpanet-member", "passing");
        entry["Service"]["Address"] = json!("");
        entry["Service"]["Meta"] =
            json!({"arpanet-node": node, "arpanet-name": name, "arpanet-role": role});
        self.answer(
            "/v1/health/service/arpanet-member",
            move |asked| match asked.index() {
                None => Reply::index(30, json!([entry])),
                Some(_) => Reply::never(),
            },
        );
    }

    /// All that was asked of a path.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.inner.asked.borrow();
        asked.get(path).cloned().unwrap_or_default()
    }

    pub(crate) async fn comes_to_be_asked(&self, path: &str, times: usize) {
        self.until_asked(path, |all| all.len() >= times).await;
    }

    /// Waits until this path was asked so.
    pub(crate) async fn comes_to_hear(&self, path: &str, so: impl Fn(&Asked) -> bool) {
        self.until_asked(path, |all| all.iter().any(&so)).await;
    }

    async fn until_asked(&self, path: &str, so: impl Fn(&[Asked]) -> bool) {
        let mut asked = self.inner.asked.subscribe();
        let come = asked.wait_for(|asked| asked.get(path).is_some_and(|all| so(all)));
        tokio::time::timeout(LIMIT, come).await.unwrap().unwrap();
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let token = head.headers.get("x-consul-token");
    let mut asked = Asked {
        method: head.method.to_string(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        token: token.map(|token| token.to_str().unwrap().to_owned()),
        body: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
        times: 0,
    };
    inner.asked.send_modify(|all| {
        let all = all.entry(path.clone()).or_default();
        asked.times = all.len() + 1;
        all.push(asked.clone());
    });
    let reply = match inner.scripts.lock().unwrap().get(&path) {
        Some(script) => script(&asked),
        // As consul does for a service that it has never heard of.
        None if path.starts_with("/v1/health/service/") => Reply::index(1, json!([])),
        None => Reply::error(404, &format!("nobody said what to answer to {path}")),
    };
    let Some((status, index, body)) = reply.0 else {
        return std::future::pending().await;
    };
    let mut response = Response::builder()
        .status(status)
        .header("X-Consul-Default-Acl-Policy", "allow")
        .header("X-Consul-Query-Backend", "blocking-query");
    if let Some(index) = index {
        response = response
            .header("X-Consul-Index", index)
            .header("X-Consul-Knownleader", "true");
    }
    response.body(Body::from(body)).unwrap()
}
