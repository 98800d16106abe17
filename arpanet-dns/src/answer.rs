//! The answer to a message: pure, from the index and the question.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use arpanet_core::{NodeAddr, Plane};
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::index::{Index, Told};
use crate::question::{Asked, Domain, lowered};
use crate::quick::Denial;

/// What we say about a name is true now and perhaps not in a second.
const TTL: u32 = 0;
/// The most bytes of a datagram that arrives everywhere (DNS flag day 2020).
pub(crate) const DATAGRAM: u16 = 1232;
/// The most bytes of a datagram for those who do not say what they can take (RFC 1035).
pub(crate) const PLAIN_DATAGRAM: u16 = 512;
pub(crate) const HEADER: usize = 12;
/// A pointer to a name, type, class, TTL, length, and an address.
const SMALLEST_RECORD: usize = 16;

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Reply {
    /// This is the answer.
    Say(Message),
    /// Somebody else knows.
    Forward,
    /// The authority knows, by this name.
    Ask(Name),
    /// It is no question.
    Drop,
}

/// What the answers depend on besides the index.
#[derive(Debug)]
pub(crate) struct Zone {
    domain: Domain,
    soa: Record,
    /// The SOA as it stands on the wire.
    denial: Option<Denial>,
    forwards: bool,
    /// Whether another server answers for the domain.
    asks: bool,
}

impl Zone {
    /// The zone of a domain; `forwards` when there is somebody to ask about others.
    pub(crate) fn new(domain: Domain, forwards: bool) -> Self {
        let within = |label| {
            domain
                .below(&[label])
                .unwrap_or_else(|| domain.name().clone())
        };
        let data = SOA::new(within("ns"), within("hostmaster"), 1, 3600, 600, 86400, 0);
        let denial = Denial::new(domain.name(), &data);
        let soa = Record::from_rdata(domain.name().clone(), TTL, RData::SOA(data));
        Self {
            denial,
            domain,
            soa,
            forwards,
            asks: false,
        }
    }

    /// Has another server answer for all of the domain but its nodes, if so.
    pub(crate) const fn asking(mut self, asks: bool) -> Self {
        self.asks = asks;
        self
    }

    pub(crate) const fn domain(&self) -> &Domain {
        &self.domain
    }

    pub(crate) const fn denial(&self) -> Option<&Denial> {
        self.denial.as_ref()
    }

    pub(crate) const fn forwards(&self) -> bool {
        self.forwards
    }

    pub(crate) const fn asks(&self) -> bool {
        self.asks
    }

    /// What becomes of a message that parsed.
    pub(crate) fn reply(&self, index: &Index, query: &Message, source: Option<Ipv4Addr>) -> Reply {
        if query.metadata.message_type != MessageType::Query {
            return Reply::Drop;
        }
        let fail = |code| Reply::Say(self.respond(query, code));
        if query.metadata.op_code != OpCode::Query {
            return fail(ResponseCode::NotImp);
        }
        let [question] = query.queries.as_slice() else {
            return fail(ResponseCode::FormErr);
        };
        if query.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return fail(ResponseCode::BADVERS);
        }
        if !matches!(question.query_class(), DNSClass::IN | DNSClass::ANY) {
            return fail(ResponseCode::NotImp);
        }
        self.say(query, self.find(index, question, source))
    }

    /// What becomes of a question that the authority has no name for.
    pub(crate) fn otherwise(&self, index: &Index, query: &Message) -> Option<Reply> {
        let [question] = query.queries.as_slice() else {
            return None;
        };
        let labels = lowered(question.name());
        let [label] = labels.as_slice() else {
            return None;
        };
        let found = self.bare_node(index, question, label);
        Some(self.say(query, found))
    }

    fn say(&self, query: &Message, found: Found) -> Reply {
        let fail = |code| Reply::Say(self.respond(query, code));
        match found {
            Found::At(name) => Reply::Ask(name),
            Found::Elsewhere if self.forwards => Reply::Forward,
            Found::Elsewhere => fail(ResponseCode::ServFail),
            Found::Nothing => Reply::Say(self.deny(query, ResponseCode::NXDomain)),
            Found::Records(records, _) if records.is_empty() => {
                Reply::Say(self.deny(query, ResponseCode::NoError))
            }
            Found::Records(answers, additionals) => {
                let mut response = self.respond(query, ResponseCode::NoError);
                response.metadata.authoritative = true;
                response.answers = answers;
                response.additionals = additionals;
                Reply::Say(response)
            }
        }
    }

    /// An answer that only says how it went.
    pub(crate) fn respond(&self, query: &Message, code: ResponseCode) -> Message {
        let mut response = Message::response(query.metadata.id, query.metadata.op_code);
        response.metadata = Metadata::response_from_request(&query.metadata);
        response.metadata.response_code = code;
        response.metadata.recursion_available = self.forwards;
        response.queries.clone_from(&query.queries);
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM);
            response.edns = Some(edns);
        }
        response
    }

    /// No such name, or nothing of this type: for how long is told by the SOA (RFC 2308).
    fn deny(&self, query: &Message, code: ResponseCode) -> Message {
        let mut response = self.respond(query, code);
        response.metadata.authoritative = true;
        response.authorities.push(self.soa.clone());
        response
    }

    fn find(&self, index: &Index, question: &Query, source: Option<Ipv4Addr>) -> Found {
        let name = question.name();
        let kind = question.query_type();
        let labels = lowered(name);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let asked = self.domain.asked(&labels);
        if self.asks
            && let Some(name) = self.at_authority(index, name, asked)
        {
            return Found::At(name);
        }
        match asked {
            Asked::Foreign => Found::Elsewhere,
            Asked::Nothing => Found::Nothing,
            Asked::Branch => Found::nothing_of_this_type(),
            Asked::Apex if matches!(kind, RecordType::SOA | RecordType::ANY) => {
                Found::Records(vec![self.soa.clone()], Vec::new())
            }
            Asked::Apex => Found::nothing_of_this_type(),
            Asked::Addr(ip) => addresses(name, kind, [ip]),
            Asked::Node(node) => match index.node(node) {
                Some(node) => addresses(name, kind, [node.overlay()]),
                None => Found::Nothing,
            },
            Asked::Service { name: service, tag } => {
                self.service(name, kind, index.service(service, tag, source))
            }
            Asked::Bare(label) => {
                let told = index.service(label, None, source);
                if !told.is_empty() {
                    return self.service(name, kind, told);
                }
                self.bare_node(index, question, label)
            }
            Asked::Reverse(ip) => self.reverse(index, name, kind, ip),
        }
    }

    /// The name by which the authority has what is asked for; `None` where that is not for it to say. Of nodes it may know other
    /// addresses than theirs here.
    fn at_authority(&self, index: &Index, name: &Name, asked: Asked<'_>) -> Option<Name> {
        match asked {
            Asked::Foreign => None,
            Asked::Service {
                name: service,
                tag: None,
            }
            | Asked::Bare(service) => self.domain.below(&[service, "service"]),
            Asked::Node(node) if index.node(node).is_some() => None,
            Asked::Reverse(ip) if Plane::of(ip).is_some() => None,
            _ => Some(name.clone()),
        }
    }

    /// The node of a name of one label that is no service's.
    fn bare_node(&self, index: &Index, question: &Query, label: &str) -> Found {
        match index.node(label) {
            Some(node) => addresses(question.name(), question.query_type(), [node.overlay()]),
            None if self.forwards => Found::Elsewhere,
            None => Found::Nothing,
        }
    }

    fn service(&self, name: &Name, kind: RecordType, told: Told<'_>) -> Found {
        if told.is_empty() {
            return Found::Nothing;
        }
        match kind {
            RecordType::SRV => {}
            RecordType::A | RecordType::ANY => {
                return addresses(name, kind, told.in_turn().map(|target| target.ip));
            }
            // Every libc asks for AAAA beside A: that is nobody's turn.
            _ => return Found::nothing_of_this_type(),
        }
        let mut answers = Vec::new();
        let mut additionals = Vec::new();
        let mut beside = HashSet::new();
        for target in told.in_turn().filter(|target| target.port != 0) {
            let hex = format!("{:08x}", u32::from(target.ip));
            let Some(host) = self.domain.below(&[&hex, "addr"]) else {
                continue;
            };
            if beside.insert(target.ip) {
                additionals.push(address(&host, target.ip));
            }
            let data = RData::SRV(SRV::new(1, 1, target.port, host));
            answers.push(Record::from_rdata(name.clone(), TTL, data));
        }
        Found::Records(answers, additionals)
    }

    fn reverse(&self, index: &Index, name: &Name, kind: RecordType, ip: Ipv4Addr) -> Found {
        let node = NodeAddr::owner_of(ip)
            .and_then(|(node, _)| index.node_name(node))
            .and_then(|node| self.domain.below(&[node, "node"]));
        let services = index
            .services_at(ip)
            .filter_map(|service| self.domain.below(&[service, "service"]));
        let names: Vec<Name> = node.into_iter().chain(services).collect();
        if names.is_empty() {
            // A host's own network may lie in 10.0.0.0/8; the planes are ours alone.
            return if self.forwards && Plane::of(ip).is_none() {
                Found::Elsewhere
            } else {
                Found::Nothing
            };
        }
        if !matches!(kind, RecordType::PTR | RecordType::ANY) {
            return Found::nothing_of_this_type();
        }
        let record = |target| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)));
        Found::Records(names.into_iter().map(record).collect(), Vec::new())
    }
}

enum Found {
    /// Answers and additionals; no answer means that the name has nothing of this type.
    Records(Vec<Record>, Vec<Record>),
    /// There is no such name.
    Nothing,
    /// It is not for us to say.
    Elsewhere,
    /// The authority has it, under this name.
    At(Name),
}

impl Found {
    const fn nothing_of_this_type() -> Self {
        Self::Records(Vec::new(), Vec::new())
    }
}

fn address(name: &Name, ip: Ipv4Addr) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::A(A(ip)))
}

fn addresses(name: &Name, kind: RecordType, ips: impl IntoIterator<Item = Ipv4Addr>) -> Found {
    if !matches!(kind, RecordType::A | RecordType::ANY) {
        return Found::nothing_of_this_type();
    }
    let mut told = HashSet::new();
    let records = ips
        .into_iter()
        .filter(|ip| told.insert(*ip))
        .map(|ip| address(name, ip))
        .collect();
    Found::Records(records, Vec::new())
}

/// How many bytes a datagram to whoever asked this may have.
pub(crate) fn datagram_limit(query: &Message) -> u16 {
    query.edns.as_ref().map_or(PLAIN_DATAGRAM, |edns| {
        edns.max_payload().clamp(PLAIN_DATAGRAM, DATAGRAM)
    })
}

/// The message in at most `limit` bytes: as many answers as fit, and then the truncation flag.
pub(crate) fn encode(message: &mut Message, limit: u16) -> Option<Vec<u8>> {
    let limit = usize::from(limit);
    // What can't fit by far is not even tried.
    let most = limit / SMALLEST_RECORD;
    let is_cut = message.answers.len() > most;
    if !is_cut {
        let bytes = emit(message)?;
        if bytes.len() <= limit {
            return Some(bytes);
        }
    }
    message.metadata.truncation = true;
    message.additionals.clear();
    let answers = std::mem::take(&mut message.answers);
    let mut fits = (0, emit(message)?);
    let mut too_many = answers.len().min(most) + 1;
    while fits.0 + 1 < too_many {
        let count = usize::midpoint(fits.0, too_many);
        message.answers = answers[..count].to_vec();
        let bytes = emit(message)?;
        if bytes.len() <= limit {
            fits = (count, bytes);
        } else {
            too_many = count;
        }
    }
    Some(fits.1)
}

fn emit(message: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::from(PLAIN_DATAGRAM));
    message.emit(&mut BinEncoder::new(&mut bytes)).ok()?;
    Some(bytes)
}

/// The answer to bytes that are no message: `FORMERR` to what at least has the head of a question.
pub(crate) fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = bytes.get(..HEADER)?;
    let is_response = head[2] & 0x80 != 0;
    (!is_response).then(|| {
        let opcode_and_rd = head[2] & 0x79;
        let mut answer = vec![head[0], head[1], 0x80 | opcode_and_rd, 1];
        answer.resize(HEADER, 0);
        answer
    })
}
