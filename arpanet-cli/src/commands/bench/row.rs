//! The rows: what is measured.

use std::str::FromStr;

use arpanet_core::{Error, ErrorKind};
use serde::{Serialize, Serializer};

/// One thing that is measured of every peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    Boot,
    Join,
    Register,
    Container,
    Cut,
    Heal,
    Answers,
    Stream,
    Streams,
    Singles,
    RoundTrip,
    Packets,
    Processor,
    Memory,
}

impl Row {
    pub(super) const ALL: [Self; 14] = [
        Self::Boot,
        Self::Join,
        Self::Register,
        Self::Container,
        Self::Cut,
        Self::Heal,
        Self::Answers,
        Self::Stream,
        Self::Streams,
        Self::Singles,
        Self::RoundTrip,
        Self::Packets,
        Self::Processor,
        Self::Memory,
    ];

    /// As it is called on the command line and in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Join => "join",
            Self::Register => "register",
            Self::Container => "container",
            Self::Cut => "cut",
            Self::Heal => "heal",
            Self::Answers => "answers",
            Self::Stream => "stream",
            Self::Streams => "four-streams",
            Self::Singles => "single-datagrams",
            Self::RoundTrip => "round-trip",
            Self::Packets => "packets",
            Self::Processor => "cpu",
            Self::Memory => "memory",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Join => "join",
            Self::Register => "register to DNS elsewhere",
            Self::Container => "container start to DNS elsewhere",
            Self::Cut => "cut off to gone from DNS",
            Self::Heal => "healed to back in DNS",
            Self::Answers => "DNS answers",
            Self::Stream => "one TCP stream",
            Self::Streams => "four TCP streams",
            Self::Singles => "one TCP stream, single datagrams",
            Self::RoundTrip => "round trip",
            Self::Packets => "small packets",
            Self::Processor => "processor time a Gbit",
            Self::Memory => "resident memory",
        }
    }

    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Boot | Self::Join | Self::Register | Self::Container | Self::Cut | Self::Heal => {
                "ms"
            }
            Self::Answers | Self::Packets => "1/s",
            Self::Stream | Self::Streams | Self::Singles => "Gbit/s",
            Self::RoundTrip => "µs",
            Self::Processor => "CPU s/Gbit",
            Self::Memory => "MiB",
        }
    }

    /// Whether the greater figure is the better one.
    pub(super) const fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::Answers | Self::Stream | Self::Streams | Self::Singles | Self::Packets
        )
    }

    /// What exactly is counted, in a sentence.
    pub(super) const fn counted(self) -> &'static str {
        match self {
            Self::Boot => {
                "The first host, from nothing: until the command that founds a cluster returns; consul alone has none, and is \
                 up when it has a leader and its own node in the catalogue."
            }
            Self::Join => {
                "The last host, as a client or worker: until the command returns; consul alone as above. arpanet2's returns \
                 when the seed answers over the overlay and DNS resolves."
            }
            Self::Register => {
                "From the start of `arpanet2 register` or `consul services register` on one host to the first answer of DNS \
                 on another, which is asked every half millisecond."
            }
            Self::Container => {
                "From the start of `docker run` on one host to the first answer of DNS on another, which is asked every half \
                 millisecond."
            }
            Self::Cut => {
                "From when a host's cable is pulled to when DNS on another stops naming what it has. All peers see the same \
                 cut."
            }
            Self::Heal => "From when the cable is back to when DNS names it again.",
            Self::Answers => {
                "One name, asked over UDP by two clients with 32 questions out each, on the machine that also answers."
            }
            Self::Stream => {
                "Between two hosts, with segments of 1380 bytes for all. arpanet2, Swarm and weave: from container to \
                 container; the tunnel alone, wireguard-go, VXLAN and veth: from host to host."
            }
            Self::Streams => "As one stream; all of them together.",
            Self::Singles => {
                "As one stream, where the hosts' links take UDP datagrams one by one, as most network cards do \
                 (`tx-udp-segmentation off`): the kernel cuts runs of them before."
            }
            Self::RoundTrip => {
                "A datagram of 56 bytes there and back, one at a time: the median of many."
            }
            Self::Packets => {
                "Datagrams of 64 bytes, sent one way by one thread as fast as it can, counted where they arrive."
            }
            Self::Processor => {
                "What keeps the machine's cores busy while one stream flows, both of its ends included, by /proc/stat: in \
                 all columns alike."
            }
            Self::Memory => {
                "Of the agent on the first host, idle. Of Swarm it is the whole engine, of which it is a part and which \
                 arpanet2 does not count."
            }
        }
    }
}

impl FromStr for Row {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.iter().find(|row| row.name() == name);
        known.copied().ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(ErrorKind::InvalidInput, format!("there is no row {name:?}"))
                .with_hint(format!("rows are {names}"))
        })
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
