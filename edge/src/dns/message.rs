//! Questions and answers as they travel. Knows the format; what is answered is in `zones`.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::Terms;
use super::zones::{Answer, Data, Kind, Known};

/// An answer, and what may be sent of it.
pub(crate) struct Written {
    message: Message,
    /// Bytes that the asker takes over UDP.
    takes: usize,
}

/// The answer to a question; `None` where there is nothing to say, because it is none.
pub(crate) fn answered(question: &[u8], terms: &Terms, serial: u32, known: &Known<'_>) -> Option<Written> {
    // What is shorter has no head to answer to.
    let id = u16::from_be_bytes([*question.first()?, *question.get(1)?]);
    let asked = match Message::from_vec(question) {
        Ok(asked) => asked,
        // Who sends answers here is not answered.
        Err(_) if question.len() < HEAD || question[2] & 0x80 != 0 => return None,
        Err(_) => {
            let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            return Some(Written { message, takes: SMALLEST });
        }
    };
    if asked.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut message = Message::response(id, asked.metadata.op_code);
    message.metadata.recursion_desired = asked.metadata.recursion_desired;
    message.add_queries(asked.queries.iter().cloned());
    let mut takes = SMALLEST;
    if let Some(edns) = &asked.edns {
        takes = usize::from(edns.max_payload()).clamp(SMALLEST, LARGEST);
        let mut own = Edns::new();
        own.set_max_payload(LARGEST as u16);
        message.set_edns(own);
    }
    message.metadata.response_code = match asked.queries.as_slice() {
        _ if asked.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [one] if one.query_class() == DNSClass::IN => {
            let name = one.name().to_lowercase();
            let text = name.to_ascii();
            let answer = terms.answer(text.trim_end_matches('.'), kind(one.query_type()), known);
            fill(&mut message, &name, answer, terms, serial)
        }
        [_] => ResponseCode::Refused,
        _ => ResponseCode::FormErr,
    };
    Some(Written { message, takes })
}

impl Written {
    /// Over TCP, where all of it has room.
    pub(crate) fn whole(&self) -> Option<Vec<u8>> {
        self.message.to_vec().ok()
    }

    /// Over UDP: what is longer than the asker takes is asked for again over TCP.
    pub(crate) fn short(&self) -> Option<Vec<u8>> {
        let whole = self.whole()?;
        if whole.len() <= self.takes { Some(whole) } else { self.cut() }
    }

    /// Nothing but the word that there is an answer over TCP.
    pub(crate) fn cut(&self) -> Option<Vec<u8>> {
        self.message.truncate().to_vec().ok()
    }
}

fn kind(asked: RecordType) -> Kind {
    let known = [
        (RecordType::A, Kind::V4),
        (RecordType::AAAA, Kind::V6),
        (RecordType::SRV, Kind::Srv),
        (RecordType::TXT, Kind::Txt),
        (RecordType::NS, Kind::Ns),
        (RecordType::SOA, Kind::Soa),
        (RecordType::ANY, Kind::Any),
    ];
    known.into_iter().find(|(known, _)| *known == asked).map_or(Kind::Other, |(_, kind)| kind)
}

fn fill(message: &mut Message, name: &Name, answer: Answer<'_>, terms: &Terms, serial: u32) -> ResponseCode {
    let (zone, code) = match answer {
        Answer::NotOurs => return ResponseCode::Refused,
        Answer::NoName(zone) => (zone, ResponseCode::NXDomain),
        Answer::Records { zone, records, ttl } => {
            for data in records {
                if let Some(data) = written(data, zone, terms, serial) {
                    message.add_answer(Record::from_rdata(name.clone(), ttl, data));
                }
            }
            (zone, ResponseCode::NoError)
        }
    };
    message.metadata.authoritative = true;
    // Says for how long there is nothing.
    if message.answers.is_empty()
        && let (Some(owner), Some(data)) = (named(zone), written(Data::Soa, zone, terms, serial))
    {
        message.add_authority(Record::from_rdata(owner, NOTHING_TTL, data));
    }
    code
}

fn written(data: Data, zone: &str, terms: &Terms, serial: u32) -> Option<RData> {
    Some(match data {
        Data::Address(IpAddr::V4(address)) => RData::A(A(address)),
        Data::Address(IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
        Data::Srv { port, target } => RData::SRV(SRV::new(1, 1, port, named(&target)?)),
        Data::Txt(text) => RData::TXT(TXT::new(vec![text])),
        Data::Ns(server) => RData::NS(NS(named(&server)?)),
        Data::Minimal => RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new())),
        Data::Soa => {
            let first = terms.name_servers.first().map_or(zone, String::as_str);
            let (server, post) = (named(first)?, named(&format!("hostmaster.{zone}"))?);
            RData::SOA(SOA::new(server, post, serial, REFRESH, REFRESH, EXPIRE, NOTHING_TTL))
        }
    })
}

fn named(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Bytes of a head.
const HEAD: usize = 12;
/// Bytes that everybody takes over UDP, and that no network breaks into pieces.
const SMALLEST: usize = 512;
const LARGEST: usize = 1232;
/// Seconds for which it is believed that there is nothing.
const NOTHING_TTL: u32 = 30;
/// Nobody copies these zones; the fields have to say something.
const REFRESH: i32 = 3600;
const EXPIRE: i32 = 604_800;
