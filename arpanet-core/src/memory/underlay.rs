//! What a test does to the underlay: cutting, mending, slowing down and losing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::network::HostIndex;
use super::place::Place;
use super::world::World;

impl World {
    /// The host gets another underlay address, as by DHCP; tells which.
    pub fn readdress(&self, place: impl Place) -> SocketAddr {
        let index = place.host(self);
        self.act(|state, now| {
            let taken: Vec<SocketAddr> = state.hosts.iter().map(|host| host.endpoint).collect();
            let mut endpoint = state.hosts[index].endpoint;
            while let SocketAddr::V4(old) = endpoint
                && taken.contains(&endpoint)
            {
                // 198.19.0.0/16: beyond all addresses that hosts begin with.
                let ip = Ipv4Addr::from_bits(old.ip().to_bits() | 0x0001_0000);
                let ip = if ip == *old.ip() {
                    Ipv4Addr::from_bits(ip.to_bits() + 256)
                } else {
                    ip
                };
                endpoint = (ip, old.port()).into();
            }
            state.hosts[index].endpoint = endpoint;
            let word = state.hosts[index].discovery.as_mut().and_then(|process| {
                process.say(now, |own| own.endpoint.replace(endpoint) != Some(endpoint))
            });
            if let Some(word) = word {
                state.broadcast(index, &word, now);
            }
            state.activity += 1;
            endpoint
        })
    }

    /// Takes a host off the underlay.
    pub fn cut(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| {
            state.network.cut(index);
            state.reassess(now);
        });
    }

    /// Cuts two hosts from each other only.
    pub fn cut_between(&self, a: impl Place, b: impl Place) {
        let (a, b) = (a.host(self), b.host(self));
        self.act(|state, now| {
            state.network.cut_between(a, b);
            state.reassess(now);
        });
    }

    /// Cuts the hosts of one group from all others; inside of both sides all goes on.
    pub fn partition<P: Place>(&self, group: impl IntoIterator<Item = P>) {
        let group: Vec<HostIndex> = group.into_iter().map(|place| place.host(self)).collect();
        self.act(|state, now| {
            for inside in &group {
                for outside in (0..state.hosts.len()).filter(|host| !group.contains(host)) {
                    state.network.cut_between(*inside, outside);
                }
            }
            state.reassess(now);
        });
    }

    /// Mends every cut of a host.
    pub fn heal(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| {
            state.network.heal(index, now);
            state.reassess(now);
        });
    }

    /// Mends the cut between two hosts; one that is cut off as a whole stays so.
    pub fn heal_between(&self, a: impl Place, b: impl Place) {
        let (a, b) = (a.host(self), b.host(self));
        self.act(|state, now| {
            state.network.heal_between(a, b, now);
            state.reassess(now);
        });
    }

    /// Mends everything.
    pub fn heal_all(&self) {
        self.act(|state, now| {
            for host in 0..state.hosts.len() {
                state.network.heal(host, now);
            }
            state.reassess(now);
        });
    }

    /// How long every datagram travels, one way. 1 ms at first.
    pub fn delay(&self, delay: Duration) {
        self.act(|state, _| state.network.set_delay(delay));
    }

    /// How long a datagram travels between two hosts, one way.
    pub fn delay_between(&self, a: impl Place, b: impl Place, delay: Duration) {
        let (a, b) = (a.host(self), b.host(self));
        self.act(|state, _| state.network.set_delay_between(a, b, delay));
    }

    /// Which part of all datagrams is lost, 0 to 1; what is lost is sent again after 200 ms.
    pub fn loss(&self, loss: f64) {
        self.act(|state, _| state.network.set_loss(loss));
    }

    /// Which part of the datagrams between two hosts is lost.
    pub fn loss_between(&self, a: impl Place, b: impl Place, loss: f64) {
        let (a, b) = (a.host(self), b.host(self));
        self.act(|state, _| state.network.set_loss_between(a, b, loss));
    }
}
