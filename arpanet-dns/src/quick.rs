//! The questions that nearly all are, answered from the bytes of the question into those of the answer: the
//! addresses of a service (and, as every libc asks too, its IPv6 addresses). All others take the long way, and both
//! say the same.

use std::net::Ipv4Addr;

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::serialize::binary::BinEncodable;

use crate::answer::{DATAGRAM, HEADER, PLAIN_DATAGRAM, Zone};
use crate::index::Index;
use crate::question::{Asked, sought};
use crate::upstream::By;

const RESPONSE: u8 = 0x80;
const AUTHORITATIVE: u8 = 0x04;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const AUTHENTIC: u8 = 0x20;
const CHECKING_DISABLED: u8 = 0x10;

const A: [u8; 2] = [0, 1];
const AAAA: [u8; 2] = [0, 28];
const IN: [u8; 2] = [0, 1];
/// The question's name, its type, class, a TTL of 0, and four bytes that are the address.
const ADDRESS: [u8; 12] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4];
/// An OPT record without options: 1,232 bytes, version 0.
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
/// More labels than a name of ours has take the long way.
const LABELS: usize = 12;
/// The longest name there is.
const NAME: usize = 255;

/// What is kept from one question to the next, so that none needs memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The answer.
    pub(crate) answer: Vec<u8>,
    told: Vec<Ipv4Addr>,
}

/// A question as it came in.
struct Question<'a> {
    message: &'a [u8],
    /// Where its question section ends.
    end: usize,
    wants_a: bool,
    /// What the asker can take, when it says so.
    edns: Option<u16>,
}

/// The record in which a denial says for how long, as it stands on the wire.
#[derive(Debug)]
pub(crate) struct Denial(Vec<u8>);

impl Denial {
    /// The SOA of a domain. Its names are written out, so that it stands anywhere in a message.
    pub(crate) fn new(domain: &Name, soa: &SOA) -> Option<Self> {
        let mut data = soa.mname.to_bytes().ok()?;
        data.extend(soa.rname.to_bytes().ok()?);
        let times = [soa.refresh, soa.retry, soa.expire];
        data.extend_from_slice(&soa.serial.to_be_bytes());
        data.extend(times.into_iter().flat_map(i32::to_be_bytes));
        data.extend_from_slice(&soa.minimum.to_be_bytes());
        let mut record = domain.to_bytes().ok()?;
        // Type, class, a TTL of 0.
        record.extend_from_slice(&[0, 6, 0, 1, 0, 0, 0, 0]);
        record.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        record.extend(data);
        Some(Self(record))
    }
}

/// Answers into the scratch, or not at all.
pub(crate) fn answer(
    zone: &Zone,
    index: &Index,
    message: &[u8],
    source: Option<Ipv4Addr>,
    by: By,
    scratch: &mut Scratch,
) -> Option<()> {
    let mut lower = [0; NAME];
    let mut labels = [""; LABELS];
    let (question, count) = Question::read(message, &mut lower, &mut labels)?;
    let limit = question.limit(by);
    let room = limit.saturating_sub(question.end + question.opt().len()) / (ADDRESS.len() + 4);
    let told = &mut scratch.told;
    told.clear();
    let mut is_cut = false;
    let targets = match zone.domain().asked(&labels[..count]) {
        Asked::Service { name, tag } => index.service(name, tag, source),
        Asked::Bare(name) => index.service(name, None, source),
        _ => return None,
    };
    if targets.is_empty() {
        return None;
    }
    if question.wants_a {
        for target in targets.in_turn() {
            if targets.repeats() && told.contains(&target.ip) {
                continue;
            }
            is_cut = told.len() == room;
            if is_cut {
                break;
            }
            told.push(target.ip);
        }
    }
    let denial = if question.wants_a {
        &[]
    } else {
        zone.denial()?.0.as_slice()
    };
    if question.end + denial.len() + OPT.len() > limit {
        return None;
    }
    question.write(zone, told, is_cut, denial, &mut scratch.answer);
    Some(())
}

impl<'a> Question<'a> {
    /// Takes apart a message that is one plain question; also its labels in lower case, and how many there are.
    fn read<'b>(
        message: &'a [u8],
        lower: &'b mut [u8; NAME],
        labels: &mut [&'b str; LABELS],
    ) -> Option<(Self, usize)> {
        let head = message.get(..HEADER)?;
        let is_plain = head[2] & !RECURSION_DESIRED == 0
            && head[3] & !(AUTHENTIC | CHECKING_DISABLED) == 0
            && head[4..10] == [0, 1, 0, 0, 0, 0]
            && head[10] == 0;
        if !is_plain {
            return None;
        }
        let mut at = HEADER;
        let mut ends = [0; LABELS];
        let mut count = 0;
        let mut filled = 0;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = message.get(at..at + length)?;
            at += length;
            // Longer ones are pointers.
            if length > 63 || count == LABELS || at - HEADER >= NAME || !label.is_ascii() {
                return None;
            }
            let into = &mut lower[filled..filled + length];
            into.copy_from_slice(label);
            sought(into);
            filled += length;
            ends[count] = filled;
            count += 1;
        }
        let text = std::str::from_utf8(&lower[..filled]).ok()?;
        let mut start = 0;
        for (label, end) in labels.iter_mut().zip(&ends[..count]) {
            *label = &text[start..*end];
            start = *end;
        }
        let kind = message.get(at..at + 2)?;
        let end = at + 4;
        if (kind != A && kind != AAAA) || message.get(at + 2..end)? != IN {
            return None;
        }
        let edns = match (head[11], &message[end..]) {
            (0, []) => None,
            // No options, version 0; whatever flags.
            (1, [0, 0, 41, high, low, _, 0, _, _, 0, 0]) => Some(u16::from_be_bytes([*high, *low])),
            _ => return None,
        };
        let wants_a = kind == A;
        Some((
            Self {
                message,
                end,
                wants_a,
                edns,
            },
            count,
        ))
    }

    fn limit(&self, by: By) -> usize {
        usize::from(match (by, self.edns) {
            (By::Stream, _) => u16::MAX,
            (By::Datagram, None) => PLAIN_DATAGRAM,
            (By::Datagram, Some(most)) => most.clamp(PLAIN_DATAGRAM, DATAGRAM),
        })
    }

    const fn opt(&self) -> &'static [u8] {
        if self.edns.is_some() { &OPT } else { &[] }
    }

    fn write(
        &self,
        zone: &Zone,
        told: &[Ipv4Addr],
        is_cut: bool,
        denial: &[u8],
        into: &mut Vec<u8>,
    ) {
        let head = &self.message[..HEADER];
        let cut = if is_cut { TRUNCATED } else { 0 };
        let available = if zone.forwards() {
            RECURSION_AVAILABLE
        } else {
            0
        };
        let flags = [
            RESPONSE | AUTHORITATIVE | cut | head[2],
            available | (head[3] & CHECKING_DISABLED),
        ];
        // As many as fit into 65,535 bytes.
        let [high, low] = u16::try_from(told.len()).unwrap_or(u16::MAX).to_be_bytes();
        let counts = [
            0,
            1,
            high,
            low,
            0,
            u8::from(!denial.is_empty()),
            0,
            head[11],
        ];
        into.clear();
        into.extend_from_slice(&head[..2]);
        into.extend_from_slice(&flags);
        into.extend_from_slice(&counts);
        into.extend_from_slice(&self.message[HEADER..self.end]);
        for ip in told {
            into.extend_from_slice(&ADDRESS);
            into.extend_from_slice(&ip.octets());
        }
        into.extend_from_slice(denial);
        into.extend_from_slice(self.opt());
    }
}
