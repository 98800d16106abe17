//! An engine on a unix socket that does what the test says.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use arpanet_docker::{ContainerDns, DockerApi, DockerApiConfig, DockerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(20);

struct World {
    folder: TempDir,
    engine: Option<UnixListener>,
    api: DockerApi,
}

impl World {
    fn new() -> Self {
        Self::with(|config| config.allowed(["127.0.0.0/8".parse().unwrap()]))
    }

    fn with(change: impl FnOnce(DockerApiConfig) -> DockerApiConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let engine = UnixListener::bind(&socket).unwrap();
        let dns = ContainerDns::default()
            .attached([Ipv4Addr::new(169, 254, 1, 1)])
            .others([Ipv4Addr::new(172, 17, 0, 1)]);
        let config = DockerApiConfig::new(&DockerConfig::default().socket(&socket)).dns(dns);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let api = DockerApi::serve(listener, change(config)).unwrap();
        Self {
            folder,
            engine: Some(engine),
            api,
        }
    }

    fn address(&self) -> SocketAddr {
        self.api.address()
    }

    /// A client's end and the engine's, after the client's first words arrived.
    async fn pair(&self, words: &str) -> (TcpStream, UnixStream) {
        let mut client = TcpStream::connect(self.address()).await.unwrap();
        client.write_all(words.as_bytes()).await.unwrap();
        let accepting = self.engine.as_ref().unwrap().accept();
        let (mut engine, _) = timeout(BOUND, accepting).await.unwrap().unwrap();
        expect(&mut engine, words).await;
        (client, engine)
    }
}

/// Reads exactly this.
async fn expect(from: &mut (impl AsyncRead + Unpin), text: &str) {
    let mut read = vec![0; text.len()];
    timeout(BOUND, from.read_exact(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&read), text);
}

/// Reads to the end.
async fn rest(from: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    timeout(BOUND, from.read_to_end(&mut read))
        .await
        .expect("the other end stays open")
        .unwrap();
    String::from_utf8(read).unwrap()
}

const UPGRADE: &str = "POST /v1.41/containers/a/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
const UPGRADED: &str = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

#[tokio::test]
async fn an_upgraded_stream_closes_one_way_at_a_time() {
    let world = World::new();
    let (mut client, mut engine) = world.pair(UPGRADE).await;
    engine.write_all(UPGRADED.as_bytes()).await.unwrap();
    expect(&mut client, UPGRADED).await;
    client.write_all(b"P").await.unwrap();
    expect(&mut engine, "P").await;
    client
        .write_all(b"OST what looks like a head")
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut engine).await, "OST what looks like a head");
    engine.write_all(b"and an answer").await.unwrap();
    drop(engine);
    assert_eq!(rest(&mut client).await, "and an answer");

    let (mut client, mut engine) = world.pair(UPGRADE).await;
    engine.write_all(b"said").await.unwrap();
    engine.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, "said");
    client.write_all(b"still listening").await.unwrap();
    expect(&mut engine, "still listening").await;
    drop(client);
    assert_eq!(rest(&mut engine).await, "");
}

#[tokio::test]
async fn one_connection_carries_many_requests_also_at_once() {
    let world = World::new();
    let get = "GET /v1.41/info HTTP/1.1\r\nHost: x\r\nX-Odd:  Kept\r\n\r\n";
    let (mut client, mut engine) = world.pair(get).await;
    let chunked = "PUT /v1.41/containers/a/archive?path=/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n";
    let sized = "POST /v1.41/build HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
    let all = [chunked, sized, get, chunked].concat();
    client.write_all(all.as_bytes()).await.unwrap();
    expect(&mut engine, &all).await;
    let create = "POST /v1.41/containers/create?name=a HTTP/1.1\r\nContent-Length: 13\r\n\r\n{\"Image\":\"a\"}";
    client
        .write_all([create, get].concat().as_bytes())
        .await
        .unwrap();
    let body = r#"{"Image":"a","HostConfig":{"Dns":["172.17.0.1"]}}"#;
    let length = body.len();
    let head = format!(
        "POST /v1.41/containers/create?name=a HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"
    );
    expect(&mut engine, &[&head, body, get].concat()).await;
}

#[tokio::test]
async fn a_creation_in_chunks_or_with_an_expectation_gets_dns_too() {
    let world = World::new();
    let body = r#"{"Image":"a","HostConfig":{"Dns":["172.17.0.1"]}}"#;
    let changed = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let chunked = "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut client, mut engine) = world.pair(chunked).await;
    client
        .write_all(b"3\r\n{\"I\r\na\r\nmage\":\"a\"}\r\n0\r\n\r\n")
        .await
        .unwrap();
    expect(&mut engine, &changed).await;

    let mut client = TcpStream::connect(world.address()).await.unwrap();
    let expecting =
        "POST /containers/create HTTP/1.1\r\nContent-Length: 13\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(expecting.as_bytes()).await.unwrap();
    let (mut engine, _) = world.engine.as_ref().unwrap().accept().await.unwrap();
    let head = "POST /containers/create HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    expect(&mut engine, head).await;
    engine
        .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        .await
        .unwrap();
    expect(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write_all(b"{\"Image\":\"a\"}").await.unwrap();
    expect(&mut engine, &changed).await;
}

#[tokio::test]
async fn whose_network_a_container_is_for_is_asked_of_the_engine() {
    let world = World::new();
    let engine = world.engine.as_ref().unwrap();
    for (network, server) in [
        (r#"{"Name":"shop","Driver":"arpanet"}"#, "169.254.1.1"),
        (r#"{"Name":"shop","Driver":"bridge"}"#, "172.17.0.1"),
        (r#"{"message":"network shop not found"}"#, "172.17.0.1"),
    ] {
        let body = r#"{"HostConfig":{"NetworkMode":"shop"}}"#;
        let length = body.len();
        let head = format!("POST /containers/create HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        let mut client = TcpStream::connect(world.address()).await.unwrap();
        client
            .write_all([&head, body].concat().as_bytes())
            .await
            .unwrap();
        let (mut creation, _) = timeout(BOUND, engine.accept()).await.unwrap().unwrap();
        let (mut question, _) = timeout(BOUND, engine.accept()).await.unwrap().unwrap();
        let asked = "GET /networks/shop HTTP/1.0\r\nHost: docker\r\n\r\n";
        expect(&mut question, asked).await;
        let answer = format!("HTTP/1.0 200 OK\r\n\r\n{network}");
        question.write_all(answer.as_bytes()).await.unwrap();
        drop(question);
        let body = format!(r#"{{"HostConfig":{{"NetworkMode":"shop","Dns":["{server}"]}}}}"#);
        let length = body.len();
        let head = format!("POST /containers/create HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        expect(&mut creation, &(head + &body)).await;
    }
}

#[tokio::test]
async fn a_creation_that_is_none_goes_by_unchanged() {
    let world = World::new();
    for request in [
        "POST /containers/create HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"Image",
        "POST /containers/create HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"I\r\n0\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno chunks at all",
        "POST /containers/create HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{\"Image\"",
        "POST /exec/a/start HTTP/1.1\r\nContent-Length: 16\r\n\r\n{\"Detach\":false}raw",
        "POST /exec/a/start HTTP/1.1\r\nContent-Length: 15\r\n\r\n{\"Detach\":true}GET / HTTP/1.1\r\n\r\n",
        "no http\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let (_client, _engine) = world.pair(request).await;
    }
    let cut = "POST /containers/create HTTP/1.1\r\nContent-Length: 99\r\n\r\n{\"Image";
    let mut client = TcpStream::connect(world.address()).await.unwrap();
    client.write_all(cut.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let (mut engine, _) = world.engine.as_ref().unwrap().accept().await.unwrap();
    assert_eq!(rest(&mut engine).await, cut);
}

#[tokio::test]
async fn an_engine_that_dies_ends_the_stream_and_one_that_refuses_early_is_heard() {
    let world = World::new();
    let (mut client, mut engine) = world.pair("GET /events HTTP/1.1\r\n\r\n").await;
    engine
        .write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        .await
        .unwrap();
    drop(engine);
    assert_eq!(rest(&mut client).await, "HTTP/1.1 200 OK\r\n\r\nhalf");

    let head = "POST /build HTTP/1.1\r\nContent-Length: 50000000\r\n\r\n";
    let (client, mut engine) = world.pair(head).await;
    let (mut reader, mut writer) = client.into_split();
    // More than every buffer on the way: some of it is never read.
    let sending = tokio::spawn(async move { writer.write_all(&vec![b'x'; 50_000_000]).await });
    let refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
    engine.write_all(refusal.as_bytes()).await.unwrap();
    drop(engine);
    expect(&mut reader, refusal).await;
    drop(reader);
    let _ = timeout(BOUND, sending)
        .await
        .expect("the client is still read from");
}

#[tokio::test]
async fn a_client_that_dies_leaves_nothing_at_the_engine() {
    let world = World::new();
    // In the middle of a body, of an answer, and of an idle stream.
    let (client, mut engine) = world
        .pair("PUT /x HTTP/1.1\r\nContent-Length: 99\r\n\r\nhalf")
        .await;
    drop(client);
    assert_eq!(rest(&mut engine).await, "");

    let (client, mut engine) = world.pair("GET /logs HTTP/1.1\r\n\r\n").await;
    drop(client);
    let endless = async { while engine.write_all(&[b'x'; 65_536]).await.is_ok() {} };
    timeout(BOUND, endless)
        .await
        .expect("the stream has no reader");

    let (client, mut engine) = world.pair(UPGRADE).await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(rest(&mut engine).await, "");
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_writer_and_its_death_is_noticed() {
    let world = World::new();
    let (client, engine) = world.pair(UPGRADE).await;
    let (_reader, mut writer) = engine.into_split();
    let mut sent = 0;
    // Nobody reads: what is on the way is what fits into buffers, not what there is.
    while let Ok(written) = timeout(Duration::from_millis(300), writer.write(&[0; 65_536])).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "it reads without end");
    }
    client.set_zero_linger().unwrap();
    drop(client);
    let refused = async { while writer.write(&[0; 65_536]).await.is_ok() {} };
    timeout(BOUND, refused)
        .await
        .expect("the client's end is not noticed");
}

#[tokio::test]
async fn says_that_the_engine_is_away_and_serves_when_it_is_back() {
    let mut world = World::new();
    drop(world.engine.take());
    let get = "GET /info HTTP/1.1\r\n\r\n";
    let mut client = TcpStream::connect(world.address()).await.unwrap();
    client.write_all(get.as_bytes()).await.unwrap();
    let answer = rest(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains("docker engine") && message.contains("docker.sock"),
        "{message}"
    );

    let socket = world.folder.path().join("docker.sock");
    std::fs::remove_file(&socket).unwrap();
    world.engine = Some(UnixListener::bind(&socket).unwrap());
    world.pair(get).await;
}

#[tokio::test]
async fn refuses_all_but_system_planes() {
    let world = World::with(|config| config);
    let mut client = TcpStream::connect(world.address()).await.unwrap();
    client
        .write_all(b"GET /info HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    assert!(
        answer.ends_with(r#"{"message":"127.0.0.1 may not use the docker API of this node"}"#),
        "{answer}"
    );
}

#[tokio::test]
async fn stops_with_all_its_connections() {
    let world = World::new();
    let (mut client, mut engine) = world.pair(UPGRADE).await;
    world.api.stop().await;
    world.api.stop().await;
    assert_eq!(rest(&mut engine).await, "");
    let _ = timeout(BOUND, client.read(&mut [0; 1]))
        .await
        .expect("it is still served");
    TcpStream::connect(world.address()).await.unwrap_err();
}
