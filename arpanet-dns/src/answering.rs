//! What all sockets share, and what becomes of a message that comes in on one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{PoisonError, RwLock};

use arpanet_core::{Error, ErrorKind, Result};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, RecordType};

use crate::answer::{Reply, Zone, datagram_limit, encode, malformed};
use crate::index::Index;
use crate::question::Domain;
use crate::quick::Scratch;
use crate::upstream::{By, Upstreams};
use crate::{DnsConfig, authority, quick};

/// What all sockets share.
#[derive(Debug)]
pub(crate) struct Shared {
    domain: String,
    zone: Zone,
    index: RwLock<Index>,
    upstreams: Upstreams,
    /// Who answers for the domain, if not this server.
    authority: Upstreams,
}

/// What became of a message.
pub(crate) enum Answered {
    /// The answer is in the scratch.
    Now,
    /// Somebody else is to be asked, and the answer cut to the limit.
    Later {
        query: Box<Message>,
        limit: u16,
        whom: Whom,
    },
    Never,
}

/// Who is to be asked.
#[derive(Debug)]
pub(crate) enum Whom {
    /// The resolvers outside.
    Upstreams,
    /// The authority, by this name.
    Authority(Name),
}

impl Shared {
    pub(crate) fn new(config: DnsConfig) -> Result<Self> {
        let domain = Domain::new(&config.domain)?;
        let authority: Vec<SocketAddr> = config.authority.into_iter().collect();
        Ok(Self {
            zone: Zone::new(domain, !config.upstreams.is_empty()).asking(!authority.is_empty()),
            domain: config.domain,
            index: RwLock::default(),
            upstreams: Upstreams::new(config.upstreams, config.timeout),
            authority: Upstreams::new(authority, config.timeout),
        })
    }

    pub(crate) const fn domain(&self) -> &String {
        &self.domain
    }

    pub(crate) const fn index(&self) -> &RwLock<Index> {
        &self.index
    }

    /// Refuses sockets of this server's own that it would ask.
    pub(crate) fn require_others(&self, own: &[SocketAddr]) -> Result<()> {
        let refused = |what: &str, at: SocketAddr, hint: &str| {
            let message = format!("the {what} {at} is this DNS server itself");
            Err(Error::new(ErrorKind::InvalidInput, message).with_hint(hint))
        };
        if let Some(at) = self.upstreams.among(own) {
            let hint = "name the resolvers that the host itself asks";
            return refused("upstream resolver", at, hint);
        }
        match self.authority.among(own) {
            Some(at) => refused("domain's authority", at, "name another server, or none"),
            None => Ok(()),
        }
    }

    /// The answer to a message as it came in, or what is needed to find it elsewhere.
    pub(crate) fn answer(
        &self,
        message: &[u8],
        source: Option<Ipv4Addr>,
        by: By,
        scratch: &mut Scratch,
    ) -> Answered {
        if self.quickly(message, source, by, scratch) {
            return Answered::Now;
        }
        self.slowly(message, source, by, scratch)
    }

    /// Whether the question was so plain that it could be answered right away.
    pub(crate) fn quickly(
        &self,
        message: &[u8],
        source: Option<Ipv4Addr>,
        by: By,
        scratch: &mut Scratch,
    ) -> bool {
        if self.zone.asks() {
            return false;
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        quick::answer(&self.zone, &index, message, source, by, scratch).is_some()
    }

    /// The answer to any message.
    pub(crate) fn slowly(
        &self,
        message: &[u8],
        source: Option<Ipv4Addr>,
        by: By,
        scratch: &mut Scratch,
    ) -> Answered {
        let mut now = |bytes: Option<Vec<u8>>| {
            bytes.map_or(Answered::Never, |bytes| {
                scratch.answer = bytes;
                Answered::Now
            })
        };
        let Ok(query) = Message::from_vec(message) else {
            return now(malformed(message));
        };
        let limit = match by {
            By::Datagram => datagram_limit(&query),
            By::Stream => u16::MAX,
        };
        let whom = match self.reply(&query, source) {
            Reply::Say(mut response) => return now(encode(&mut response, limit)),
            Reply::Drop => return Answered::Never,
            Reply::Forward => Whom::Upstreams,
            Reply::Ask(name) => Whom::Authority(name),
        };
        Answered::Later {
            query: Box::new(query),
            limit,
            whom,
        }
    }

    fn reply(&self, query: &Message, source: Option<Ipv4Addr>) -> Reply {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        self.zone.reply(&index, query, source)
    }

    /// What becomes of a question that the authority has no name for, where it is not its alone.
    fn otherwise(&self, query: &Message) -> Option<Reply> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        self.zone.otherwise(&index, query)
    }

    /// What others say, or that they say nothing.
    pub(crate) async fn elsewhere(
        &self,
        question: &[u8],
        query: &Message,
        by: By,
        whom: Whom,
    ) -> Vec<u8> {
        let found = match whom {
            Whom::Upstreams => self.upstreams.ask(question, by).await,
            Whom::Authority(name) => self.by_authority(question, query, &name, by).await,
        };
        found.unwrap_or_else(|| {
            let mut failed = self.zone.respond(query, ResponseCode::ServFail);
            encode(&mut failed, u16::MAX).unwrap_or_default()
        })
    }

    /// What the authority says, or, of a name that it does not have, whoever else may.
    async fn by_authority(
        &self,
        question: &[u8],
        query: &Message,
        name: &Name,
        by: By,
    ) -> Option<Vec<u8>> {
        let answer = self.ask_authority(question, query, name, by).await?;
        if !authority::has_no_such_name(&answer) {
            return Some(answer);
        }
        match self.otherwise(query) {
            Some(Reply::Say(mut response)) => encode(&mut response, u16::MAX),
            Some(Reply::Forward) => self.upstreams.ask(question, by).await,
            _ => Some(answer),
        }
    }

    async fn ask_authority(
        &self,
        question: &[u8],
        query: &Message,
        name: &Name,
        by: By,
    ) -> Option<Vec<u8>> {
        match authority::question(query, name) {
            None => self.authority.ask(question, by).await,
            Some(mut other) => {
                let other = encode(&mut other, u16::MAX)?;
                let answer = self.authority.ask(&other, by).await?;
                encode(&mut authority::answer(&answer, query)?, u16::MAX)
            }
        }
    }

    /// The addresses of a name of ours, also without the end of it.
    pub(crate) async fn resolve(&self, text: &str) -> Vec<Ipv4Addr> {
        let whole = format!("{}.service.{}", text.trim_end_matches('.'), self.domain);
        for name in [text, &whole] {
            let Ok(mut name) = Name::from_ascii(name) else {
                continue;
            };
            name.set_fqdn(true);
            let mut query = Message::query();
            query.add_query(Query::query(name, RecordType::A));
            let ips = addresses(self.found(&query).await.as_ref());
            if !ips.is_empty() {
                return ips;
            }
        }
        Vec::new()
    }

    /// The answer to a question, if it is in the domain and there is one.
    async fn found(&self, query: &Message) -> Option<Message> {
        let name = match self.reply(query, None) {
            Reply::Say(response) => return Some(response),
            Reply::Drop | Reply::Forward => return None,
            Reply::Ask(name) => name,
        };
        let question = query.to_vec().ok()?;
        // By stream, since a name may have more addresses than fit a datagram.
        let answer = self
            .ask_authority(&question, query, &name, By::Stream)
            .await?;
        if !authority::has_no_such_name(&answer) {
            return Message::from_vec(&answer).ok();
        }
        match self.otherwise(query)? {
            Reply::Say(response) => Some(response),
            _ => None,
        }
    }
}

fn addresses(answer: Option<&Message>) -> Vec<Ipv4Addr> {
    let answers = answer.into_iter().flat_map(|answer| &answer.answers);
    answers
        .filter_map(|record| match record.data {
            RData::A(A(ip)) => Some(ip),
            _ => None,
        })
        .collect()
}
