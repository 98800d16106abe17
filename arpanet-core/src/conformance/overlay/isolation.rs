//! Isolation: what a container must not reach, and what a wide one does.

use super::{
    Ping, PingFrom, Rig, answers, app, attached, comes_to_answer, connected, ip, needs_isolation,
    node, told,
};
use crate::conformance::check::{Check, Verdict, check};
use crate::{NodeAddr, Plane};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            a_network_reaches_itself_on_every_node,
            "Containers of one network can't reach another network, a plane or a host.",
            needs_isolation
        ),
        check!(
            a_network_reaches_nothing_else,
            "Containers of one network can't reach another network, a plane or a host.",
            needs_isolation
        ),
        check!(
            a_wide_container_reaches_the_planes_where_it_is_let_through,
            "The /8 container addresses of the whole cluster, which every node must let through. Replaces those told before.",
            needs_isolation
        ),
    ]
}

async fn a_network_reaches_itself_on_every_node(rig: &Rig) -> Verdict {
    let announcements = connected(rig).await?;
    let mut containers = Vec::new();
    let mut holds = Vec::new();
    for (place, (name, addr)) in [
        ("a", "10.1.0.5/16"),
        ("b", "10.1.0.6/16"),
        ("c", "10.1.7.7/16"),
    ]
    .into_iter()
    .enumerate()
    {
        containers.push(attached(rig, place, name, addr).await?);
        holds.push((place, app(addr)?));
    }
    told(rig, &announcements, &holds).await?;
    for (place, container) in containers.iter().enumerate() {
        let from = PingFrom::Container(place, container);
        for (_, to) in &holds {
            comes_to_answer(rig, from, to.ip(), &[Ping::Answered]).await?;
        }
    }
    Ok(())
}

async fn a_network_reaches_nothing_else(rig: &Rig) -> Verdict {
    let announcements = connected(rig).await?;
    let inside = attached(rig, 0, "inside", "10.1.0.5/16").await?;
    let neighbour = attached(rig, 1, "neighbour", "10.1.0.6/16").await?;
    attached(rig, 0, "near", "10.2.0.5/16").await?;
    attached(rig, 1, "far", "10.2.0.6/16").await?;
    let holds = [
        (0, app("10.1.0.5/16")?),
        (1, app("10.1.0.6/16")?),
        (0, app("10.2.0.5/16")?),
        (1, app("10.2.0.6/16")?),
    ];
    told(rig, &announcements, &holds).await?;
    let from = PingFrom::Container(0, &inside);
    comes_to_answer(rig, from, ip("10.1.0.6"), &[Ping::Answered]).await?;
    let mut forbidden = vec![ip("10.2.0.5"), ip("10.2.0.6"), ip("10.3.0.1")];
    for place in 0..rig.memberships().len() {
        let owner: NodeAddr = node(rig, place);
        for plane in [Plane::Docker, Plane::Discovery] {
            rig.overlay(place).expose(plane).await?;
            forbidden.push(owner.in_plane(plane));
        }
        forbidden.push(owner.overlay());
    }
    for to in forbidden {
        for (place, container) in [(0, &inside), (1, &neighbour)] {
            let from = PingFrom::Container(place, container);
            answers(rig, from, to, &[Ping::Refused]).await?;
        }
    }
    Ok(())
}

async fn a_wide_container_reaches_the_planes_where_it_is_let_through(rig: &Rig) -> Verdict {
    let announcements = connected(rig).await?;
    let wide = app("10.9.0.9/8")?;
    let proxy = attached(rig, 0, "proxy", "10.9.0.9/8").await?;
    told(rig, &announcements, &[(0, wide)]).await?;
    rig.overlay(1).expose(Plane::Docker).await?;
    let from = PingFrom::Container(0, &proxy);
    let away = [Ping::Refused, Ping::Silent];
    let there = [node(rig, 1).overlay(), node(rig, 1).docker()];
    for to in there {
        answers(rig, from, to, &away).await?;
    }
    for place in 0..rig.memberships().len() {
        for _ in 0..2 {
            rig.overlay(place).allow_wide(&[wide]).await?;
        }
    }
    for to in there {
        comes_to_answer(rig, from, to, &[Ping::Answered]).await?;
    }
    for place in 0..rig.memberships().len() {
        rig.overlay(place).allow_wide(&[]).await?;
    }
    for to in there {
        comes_to_answer(rig, from, to, &away).await?;
    }
    Ok(())
}
