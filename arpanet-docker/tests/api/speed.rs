//! What the API costs: a gigabyte through an upgraded stream, and the same on the engine's own socket.
//!
//! Run it alone: `cargo test --release -p arpanet-docker --test api -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use arpanet_docker::{DockerApi, DockerApiConfig, DockerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

const GIGABYTE: usize = 1 << 30;
const HEAD: &[u8] =
    b"POST /containers/a/attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

async fn sends(mut client: impl AsyncWrite + AsyncRead + Unpin) -> Duration {
    let piece = vec![0; 128 << 10];
    let begun = Instant::now();
    client.write_all(HEAD).await.unwrap();
    for _ in 0..GIGABYTE / piece.len() {
        client.write_all(&piece).await.unwrap();
    }
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "all");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_gigabyte_by_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let engine = UnixListener::bind(&socket).unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut client, _) = engine.accept().await.unwrap();
            let (mut buffer, mut total) = (vec![0; 128 << 10], 0);
            while let Ok(count @ 1..) = client.read(&mut buffer).await {
                total += count;
            }
            assert_eq!(total, GIGABYTE + HEAD.len());
            client.write_all(b"all").await.unwrap();
        }
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = DockerApiConfig::new(&DockerConfig::default().socket(&socket));
    let config = config.allowed(["127.0.0.0/8".parse().unwrap()]);
    let api = DockerApi::serve(listener, config).unwrap();
    for _ in 0..3 {
        let direct = sends(UnixStream::connect(&socket).await.unwrap()).await;
        let through = sends(TcpStream::connect(api.address()).await.unwrap()).await;
        let ratio = direct.as_secs_f64() / through.as_secs_f64();
        eprintln!("1 GiB: {direct:?} on the socket, {through:?} by the API, ratio {ratio:.2}");
    }
    api.stop().await;
    serving.abort();
}
