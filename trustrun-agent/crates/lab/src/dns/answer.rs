//! From a query's bytes to what is sent back.

use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record as WireRecord, RecordType};

use super::forgery::{self, Via};
use super::zone::{Behaviour, Line, Record, Truth, Wanted, Zone};

/// What a client without EDNS takes over UDP (RFC 1035 section 4.2.1).
const CLASSIC_LIMIT: u16 = 512;

/// A query, and everything that is sent because of it.
pub(super) struct Plan {
    /// The name as asked, without the final dot.
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) delay: Option<Duration>,
    pub(super) forged: Vec<(Via, Vec<u8>)>,
    pub(super) honest: Option<Vec<u8>>,
}

/// Decides about one query. `None`: it is no query that can be read, and servers are silent then.
pub(super) fn plan(zone: &Zone, bytes: &[u8], datagram: bool) -> Option<Plan> {
    let query = Message::from_vec(bytes).ok()?;
    let question = query.queries.first()?.clone();
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut name = question.name.to_ascii();
    if name.len() > 1 && name.ends_with('.') {
        name.pop();
    }
    let truth = zone.ask(&name, wanted(question.query_type));
    let mut plan = Plan { kind: question.query_type.to_string(), name, delay: None, forged: Vec::new(), honest: None };
    let code = match &truth.behaviour {
        Behaviour::Silent => return Some(plan),
        Behaviour::Refused => ResponseCode::Refused,
        Behaviour::ServFail => ResponseCode::ServFail,
        Behaviour::NxDomain => ResponseCode::NXDomain,
        _ if !truth.exists => ResponseCode::NXDomain,
        _ => ResponseCode::NoError,
    };
    let mut message = reply(&query, code);
    if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        message.add_answers(truth.lines.iter().filter_map(|line| wire(line, &question.name)));
    }
    plan.honest = encode(&message, &query, &truth, datagram);
    match &truth.behaviour {
        Behaviour::Late(delay) => plan.delay = Some(*delay),
        Behaviour::Forged(kind) if datagram && question.query_type == RecordType::A => {
            plan.forged = forgery::forge(*kind, bytes, plan.honest.as_deref());
        }
        Behaviour::Raw(forger) if datagram => {
            plan.forged = forger.run(bytes).into_iter().map(|packet| (Via::Resolver, packet)).collect();
        }
        _ => {}
    }
    Some(plan)
}

fn wanted(kind: RecordType) -> Wanted {
    match kind {
        RecordType::A => Wanted::A,
        RecordType::AAAA => Wanted::Aaaa,
        RecordType::CNAME => Wanted::Cname,
        RecordType::TXT => Wanted::Txt,
        _ => Wanted::Other,
    }
}

fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    // The question is given back letter by letter: clients that mix case (0x20) check it.
    message.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        message.set_edns(edns);
    }
    message
}

fn encode(message: &Message, query: &Message, truth: &Truth, datagram: bool) -> Option<Vec<u8>> {
    let whole = message.to_vec().ok()?;
    if !datagram || matches!(truth.behaviour, Behaviour::Oversized) {
        return Some(whole);
    }
    let limit = query.edns.as_ref().map_or(CLASSIC_LIMIT, |edns| edns.max_payload().max(CLASSIC_LIMIT));
    if whole.len() <= usize::from(limit) && !matches!(truth.behaviour, Behaviour::Truncated) {
        return Some(whole);
    }
    let mut short = message.clone();
    short.answers.clear();
    short.metadata.truncation = true;
    short.to_vec().ok()
}

fn wire(line: &Line, asked: &Name) -> Option<WireRecord> {
    let owner = match &line.owner {
        None => asked.clone(),
        Some(name) => absolute(name)?,
    };
    let data = match &line.record {
        Record::A(address) => RData::A(A(*address)),
        Record::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Record::Cname(target) => RData::CNAME(CNAME(absolute(target)?)),
        Record::Txt(text) => RData::TXT(TXT::new(vec![text.clone()])),
        Record::Fresh => return None,
    };
    Some(WireRecord::from_rdata(owner, line.ttl, data))
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}
