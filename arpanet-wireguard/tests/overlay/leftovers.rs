//! What is left behind: nothing, wherever a call fails or is cut short.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, UdpSocket};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use arpanet_core::overlay::{AttachAddr, NetNamespace};
use arpanet_core::{Error, ErrorKind, Overlay, Result};
use arpanet_netlink::{HostSnapshot, Route};
use arpanet_wireguard::{Launched, TunnelFactory, TunnelSpec};
use async_trait::async_trait;
use futures_util::future::join_all;

use crate::site::{Container, Fate, Host, PORT, Site, becomes, ip, probe};

/// Polls a call this many times, then drops it; its answer if it had one by then.
async fn interrupted<F: Future>(call: F, polls: usize) -> Option<F::Output> {
    let call = pin!(call);
    Interrupted { call, polls }.await
}

struct Interrupted<'a, F> {
    call: Pin<&'a mut F>,
    polls: usize,
}

impl<F: Future> Future for Interrupted<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        match self.call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => Poll::Pending,
        }
    }
}

async fn one_host() -> Option<Host> {
    Some(Site::new(1).await?.hosts.remove(0))
}

async fn router_of(host: &Host) -> HostSnapshot {
    let router = host.overlay.router_namespace().await.unwrap();
    router.handle().unwrap().snapshot().await.unwrap()
}

fn assert_same(before: &HostSnapshot, after: &HostSnapshot, what: &str) {
    let left = before.difference(after);
    assert!(left.is_empty(), "{what}: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_containers_come_and_go() {
    let Some(mut host) = one_host().await else {
        return;
    };
    host.launch().await;
    let router = router_of(&host).await;
    let before = host.net.snapshot().await.unwrap();
    let mut containers = Vec::new();
    for number in 0..20 {
        let container = Container::new(&format!("c{number}")).await;
        let empty = container.net.snapshot().await.unwrap();
        containers.push((
            container,
            format!("10.{}.0.{}/16", number % 3 + 1, number + 1),
            empty,
        ));
    }
    for is_killed in [false, true] {
        let attachments: Vec<_> = containers
            .iter()
            .map(|(container, addr, _)| container.with(addr))
            .collect();
        for answer in join_all(attachments.iter().map(|one| host.overlay.attach(one))).await {
            answer.unwrap();
        }
        for (container, addr, _) in &containers {
            assert_eq!(
                probe(container.namespace(), ip("169.254.1.1")),
                Fate::Reached,
                "{addr}"
            );
        }
        assert_eq!(
            probe(containers[0].0.namespace(), ip("10.1.0.4")),
            Fate::Reached
        );
        if is_killed {
            host.kill().await;
            host.launch().await;
        }
        assert_eq!(
            host.overlay.attached().await.unwrap().len(),
            containers.len()
        );
        let detached = attachments
            .iter()
            .map(|one| host.overlay.detach(&one.container, one.addr));
        for answer in join_all(detached).await {
            answer.unwrap();
        }
        assert_same(&router, &router_of(&host).await, "the router");
        assert_same(&before, &host.net.snapshot().await.unwrap(), "the host");
        for (container, addr, empty) in &containers {
            assert_same(empty, &container.net.snapshot().await.unwrap(), addr);
        }
    }
    host.leave_nothing_behind().await;
}

/// What stands in the way of a launch.
#[derive(Debug, Clone, Copy)]
enum Obstacle {
    Port,
    Pin,
    Link,
    Route,
    Tunnel,
}

/// A tunnel that does not start, as when another process has its device open.
#[derive(Debug)]
struct Refusing;

#[async_trait]
impl TunnelFactory for Refusing {
    async fn launch(&self, _: TunnelSpec) -> Result<Launched> {
        Err(Error::new(ErrorKind::Conflict, "on purpose"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_fails_leaves_nothing() {
    for obstacle in [
        Obstacle::Port,
        Obstacle::Pin,
        Obstacle::Link,
        Obstacle::Route,
        Obstacle::Tunnel,
    ] {
        let Some(mut host) = one_host().await else {
            return;
        };
        let mut port = None;
        match obstacle {
            Obstacle::Port => {
                let bound = host
                    .namespace()
                    .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)));
                port = Some(bound.unwrap().unwrap());
            }
            Obstacle::Pin => fs::write(host.pin(), "somebody's").unwrap(),
            Obstacle::Link => host.net.add_bridge("arpanet0").await.unwrap(),
            Obstacle::Route => {
                let taken = Route::new("10.0.0.0/8".parse().unwrap())
                    .link("eth0")
                    .table(1010);
                host.net.set_route(&taken).await.unwrap();
            }
            Obstacle::Tunnel => host.run_over(Arc::new(Refusing)),
        }
        let before = host.traces().await;
        let error = host.overlay.launch(&host.membership()).await.unwrap_err();
        let kinds = [ErrorKind::Conflict, ErrorKind::AlreadyExists];
        assert!(kinds.contains(&error.kind()), "{obstacle:?}: {error:?}");
        assert_eq!(host.traces().await, before, "{obstacle:?}");
        let down = host.overlay.attached().await.unwrap_err();
        assert_eq!(down.kind(), ErrorKind::Unavailable);
        // Once it is out of the way, the launch succeeds.
        match obstacle {
            Obstacle::Port => drop(port),
            Obstacle::Pin => fs::remove_file(host.pin()).unwrap(),
            Obstacle::Link => host.net.delete_link("arpanet0").await.unwrap(),
            Obstacle::Route => {
                let taken = Route::new("10.0.0.0/8".parse().unwrap())
                    .link("eth0")
                    .table(1010);
                host.net.delete_route(&taken).await.unwrap();
            }
            Obstacle::Tunnel => host.run_over(Arc::new(arpanet_wireguard::UserTunnels::default())),
        }
        host.launch().await;
        assert_eq!(probe(host.namespace(), ip("10.255.0.1")), Fate::Reached);
        host.leave_nothing_behind().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_fails_over_an_earlier_one_leaves_that() {
    let Some(mut host) = one_host().await else {
        return;
    };
    host.launch().await;
    let a = Container::new("a").await;
    host.attach(&a, "10.1.0.5/16").await;
    host.run_over(Arc::new(Refusing));
    host.kill().await;
    host.overlay.launch(&host.membership()).await.unwrap_err();
    assert_eq!(probe(a.namespace(), ip("169.254.1.1")), Fate::Reached);
    assert_eq!(probe(host.namespace(), ip("10.255.0.1")), Fate::Reached);
    host.run_over(Arc::new(arpanet_wireguard::UserTunnels::default()));
    host.launch().await;
    assert_eq!(host.overlay.attached().await.unwrap().len(), 1);
    host.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_is_killed_anywhere_leaves_nothing_that_reset_does_not_find() {
    let Some(mut host) = one_host().await else {
        return;
    };
    let mut polls = 0;
    loop {
        let membership = host.membership();
        let ended = interrupted(host.overlay.launch(&membership), polls).await;
        host.kill().await;
        if polls % 2 == 1 {
            host.launch().await;
            assert_eq!(
                probe(host.namespace(), ip("10.255.0.1")),
                Fate::Reached,
                "{polls}"
            );
        }
        host.overlay.reset().await.unwrap();
        assert_eq!(
            host.traces().await,
            Vec::<String>::new(),
            "after {polls} polls"
        );
        if let Some(answer) = ended {
            answer.unwrap();
            break;
        }
        polls += 1;
    }
    assert!(polls > 20, "{polls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attach_that_is_dropped_anywhere_is_finished_or_taken_back() {
    let Some(mut host) = one_host().await else {
        return;
    };
    host.launch().await;
    let before = router_of(&host).await;
    let mut polls = 0;
    loop {
        let container = Container::new("c").await;
        let empty = container.net.snapshot().await.unwrap();
        let attachment = container.with("10.1.0.5/16");
        let ended = interrupted(host.overlay.attach(&attachment), polls).await;
        // A call that is sent is carried out: the kernel answers this one after it.
        match polls % 3 {
            0 => {
                host.overlay.attach(&attachment).await.unwrap();
                assert_eq!(
                    probe(container.namespace(), ip("169.254.1.1")),
                    Fate::Reached
                );
            }
            1 => {}
            _ => {
                host.kill().await;
                host.launch().await;
            }
        }
        host.overlay
            .detach(&attachment.container, attachment.addr)
            .await
            .unwrap();
        assert_same(
            &empty,
            &container.net.snapshot().await.unwrap(),
            &format!("after {polls} polls"),
        );
        assert_same(
            &before,
            &router_of(&host).await,
            &format!("after {polls} polls"),
        );
        if let Some(answer) = ended {
            answer.unwrap();
            break;
        }
        polls += 1;
    }
    assert!(polls > 10, "{polls}");
    host.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_goes_takes_its_address_along() {
    let Some(mut host) = one_host().await else {
        return;
    };
    host.launch().await;
    let before = router_of(&host).await;
    let gone = Container::new("gone").await;
    let attachment = gone.with("10.1.0.5/16");
    host.overlay.attach(&attachment).await.unwrap();
    drop(gone);
    // The kernel takes the links of a namespace away at some time after its last holder.
    let start = std::time::Instant::now();
    while !host.overlay.attached().await.unwrap().is_empty() {
        assert!(start.elapsed() < crate::site::LIMIT);
        tokio::task::yield_now().await;
    }
    assert_same(&before, &router_of(&host).await, "the router");
    let error = host.overlay.attach(&attachment).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    host.overlay
        .detach(&attachment.container, attachment.addr)
        .await
        .unwrap();
    let next = Container::new("next").await;
    host.attach(&next, "10.1.0.5/16").await;
    becomes(next.namespace(), ip("169.254.1.1"), Fate::Reached);
    host.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_namespace_of_its_own_is_attached() {
    let Some(mut host) = one_host().await else {
        return;
    };
    host.launch().await;
    let (a, b) = (Container::new("a").await, Container::new("b").await);
    host.attach(&a, "10.1.0.5/16").await;
    let router = NetNamespace::Path(host.pin());
    for (namespace, what) in [
        (host.path(), "the host's"),
        (router, "the router's"),
        (a.path(), "another's"),
    ] {
        let mut attachment = b.with("10.1.0.6/16");
        attachment.namespace = namespace;
        let error = host.overlay.attach(&attachment).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error}");
    }
    let attached = host.overlay.attached().await.unwrap();
    let wanted = AttachAddr::Application("10.1.0.5/16".parse().unwrap());
    assert_eq!(attached, [("a".parse().unwrap(), wanted)]);
    host.leave_nothing_behind().await;
}
