//! Two looks at the socket table to what happened between them.
//!
//! A look says what is; an observation says what happened. A connection that is there for the first time was opened since
//! the last look, and one that is gone was closed; the moments are those of the looks. Who began a TCP connection follows from
//! who listens: a connection whose own end is a port on which a process of the target listened was accepted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use trustrun_model::{
    Action, Decided, Direction, Fact, Flow, FlowId, Instants, Observation, ProcessId, Protocol, Reason, SensorKind,
};

use super::{Look, Process, Socket, State};

/// A connection that was there at the last look.
#[derive(Clone, Copy, Debug)]
struct Open {
    flow: Flow,
    process: ProcessId,
    bytes: (u64, u64),
}

/// What is remembered of the last look.
#[derive(Debug, Default)]
pub struct Changes {
    processes: BTreeMap<u32, Process>,
    /// By socket and peer: one UDP socket may have several, one after the other.
    open: HashMap<(u64, SocketAddr), Open>,
    listening: HashSet<(Protocol, SocketAddr)>,
    /// How many connections each key has had, so that a number that is used again is another connection.
    sequences: HashMap<u64, u32>,
    /// UDP sockets without a peer: where they send to is not in the table. Told once each.
    unconnected: HashSet<u64>,
    /// How many UDP sockets without a peer were seen, for the report.
    pub unconnected_seen: u64,
    /// How many TCP connections the target was seen to open.
    pub opened_tcp: u64,
}

impl Changes {
    /// The ends of all that is still open, when nobody looks any more.
    pub fn close(&mut self, at: Instants) -> Vec<Observation> {
        self.since(Look { processes: self.processes.clone(), ..Look::default() }, at)
    }

    /// What happened since the last look. The first look tells what was there at the start.
    pub fn since(&mut self, look: Look, at: Instants) -> Vec<Observation> {
        let mut told = Vec::new();
        // Ends first: an id that is used again is another process from then on.
        self.ended(&look, at, &mut told);
        self.processes(&look, at, &mut told);
        let listening = listening(&look.sockets);
        for (protocol, local) in &listening {
            if !self.listening.contains(&(*protocol, *local)) {
                let holder = look.sockets.iter().find(|s| s.local == *local && s.protocol == *protocol);
                let process = id(holder.map_or(0, |s| s.tgid), &look.processes);
                told.push(observed(at, process, Fact::Listening { local: *local, protocol: *protocol }));
            }
        }
        self.connections(&look, &listening, at, &mut told);
        self.listening = listening;
        self.processes = look.processes;
        told
    }

    fn processes(&self, look: &Look, at: Instants, told: &mut Vec<Observation>) {
        for (&tgid, process) in &look.processes {
            let before = self.processes.get(&tgid).filter(|before| before.started == process.started);
            let same = before.is_some_and(|before| before.exe == process.exe && before.argv == process.argv);
            if same {
                continue;
            }
            if before.is_none() && look.processes.contains_key(&process.parent) {
                told.push(observed(at, id(process.parent, &look.processes), Fact::Fork { child: tgid }));
            }
            let exe = process.exe.clone().unwrap_or_default();
            let fact = Fact::Exec { exe, argv: process.argv.clone(), truncated: false };
            told.push(observed(at, id(tgid, &look.processes), fact));
        }
    }

    fn connections(
        &mut self,
        look: &Look,
        listening: &HashSet<(Protocol, SocketAddr)>,
        at: Instants,
        told: &mut Vec<Observation>,
    ) {
        let mut here = HashMap::new();
        for socket in &look.sockets {
            let Some(peer) = socket.peer else {
                if socket.state == State::Unconnected && self.unconnected.insert(socket.key) {
                    self.unconnected_seen += 1;
                }
                continue;
            };
            let process = id(socket.tgid, &look.processes);
            // A number that is used again from another port is another connection; the old one is told as gone below.
            let same = self.open.get(&(socket.key, peer)).is_some_and(|open| open.flow.local == socket.local);
            let known = if same { self.open.remove(&(socket.key, peer)) } else { None };
            let mut open = known.unwrap_or_else(|| {
                let flow = self.opened(socket, peer, listening);
                let decided = Decided { action: Action::Allow, reason: Reason::Default, enforced: false };
                told.push(observed(at, process, Fact::Opened { flow, decided }));
                if socket.state != State::Opening {
                    told.push(observed(at, process, Fact::Established { flow }));
                }
                Open { flow, process, bytes: (0, 0) }
            });
            if let Some((sent, received)) = socket.bytes {
                // The acknowledgement of the first packet counts as an octet to who began (`diag`).
                let first = u64::from(open.flow.direction == Direction::Out);
                open.bytes = (sent.saturating_sub(first), received);
            }
            here.insert((socket.key, peer), open);
        }
        // What is left was there before and is no more.
        let mut gone: Vec<_> = std::mem::replace(&mut self.open, here).into_values().collect();
        gone.sort_by_key(|open| open.flow.id);
        for Open { flow, process, bytes: (sent, received) } in gone {
            told.push(observed(at, process, Fact::Closed { flow, sent, received }));
        }
        let live: HashSet<u64> = look.sockets.iter().map(|socket| socket.key).collect();
        self.unconnected.retain(|key| live.contains(key));
    }

    fn opened(&mut self, socket: &Socket, peer: SocketAddr, listening: &HashSet<(Protocol, SocketAddr)>) -> Flow {
        let sequence = self.sequences.entry(socket.key).or_default();
        *sequence += 1;
        let id = FlowId { cookie: socket.key, sequence: *sequence };
        let direction = if accepted(socket, listening) { Direction::In } else { Direction::Out };
        self.opened_tcp += u64::from(socket.protocol == Protocol::Tcp && direction == Direction::Out);
        Flow { id, protocol: socket.protocol, direction, local: socket.local, peer }
    }

    fn ended(&self, look: &Look, at: Instants, told: &mut Vec<Observation>) {
        for (&tgid, process) in &self.processes {
            if look.processes.get(&tgid).is_none_or(|now| now.started != process.started) {
                // How it ended is not in the table.
                told.push(observed(at, id(tgid, &self.processes), Fact::Exit { status: 0 }));
            }
        }
    }
}

fn observed(at: Instants, process: ProcessId, fact: Fact) -> Observation {
    Observation { at, sensor: SensorKind::Sockets, process, fact }
}

fn id(tgid: u32, processes: &BTreeMap<u32, Process>) -> ProcessId {
    ProcessId { tgid, tid: tgid, uid: processes.get(&tgid).map_or(0, |process| process.uid), class: 0 }
}

fn listening(sockets: &[Socket]) -> HashSet<(Protocol, SocketAddr)> {
    sockets.iter().filter(|s| s.state == State::Listening).map(|s| (s.protocol, s.local)).collect()
}

/// Whether somebody of the target listens where this connection's own end is: on its address, or on all.
fn accepted(socket: &Socket, listening: &HashSet<(Protocol, SocketAddr)>) -> bool {
    let port = socket.local.port();
    let everywhere = [IpAddr::from([0; 16]), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    std::iter::once(socket.local.ip())
        .chain(everywhere)
        .any(|ip| listening.contains(&(socket.protocol, SocketAddr::new(ip, port))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instants = Instants { boot_ns: 1, wall_ns: 1 };

    fn process(parent: u32, started: u64) -> Process {
        Process { parent, started, uid: 1000, exe: Some("/bin/x".into()), argv: vec!["x".into()] }
    }

    fn socket(key: u64, state: State, local: &str, peer: Option<&str>) -> Socket {
        let peer = peer.map(|p| p.parse().unwrap());
        Socket { key, tgid: 7, protocol: Protocol::Tcp, state, local: local.parse().unwrap(), peer, bytes: None }
    }

    fn look(sockets: Vec<Socket>) -> Look {
        Look { processes: BTreeMap::from([(7, process(1, 5))]), sockets, blind: BTreeMap::new() }
    }

    fn kinds(told: &[Observation]) -> Vec<&'static str> {
        told.iter()
            .map(|o| match o.fact {
                Fact::Fork { .. } => "fork",
                Fact::Exec { .. } => "exec",
                Fact::Exit { .. } => "exit",
                Fact::Opened { .. } => "opened",
                Fact::Established { .. } => "established",
                Fact::Closed { .. } => "closed",
                Fact::Listening { .. } => "listening",
                _ => "other",
            })
            .collect()
    }

    #[test]
    fn a_connection_is_told_once_and_its_end_once() {
        let mut changes = Changes::default();
        let open = || look(vec![socket(1, State::Open, "10.0.0.1:5000", Some("192.0.2.1:443"))]);
        assert_eq!(kinds(&changes.since(open(), NOW)), ["exec", "opened", "established"]);
        assert!(changes.since(open(), NOW).is_empty());
        assert_eq!(kinds(&changes.since(look(vec![]), NOW)), ["closed"]);
        assert!(changes.since(look(vec![]), NOW).is_empty());
    }

    #[test]
    fn a_number_that_is_used_again_is_another_connection() {
        let mut changes = Changes::default();
        let first = look(vec![socket(1, State::Open, "10.0.0.1:5000", Some("192.0.2.1:443"))]);
        let second = look(vec![socket(1, State::Open, "10.0.0.1:5001", Some("192.0.2.1:443"))]);
        drop(changes.since(first, NOW));
        let told = changes.since(second, NOW);
        assert_eq!(kinds(&told), ["opened", "established", "closed"]);
        let Fact::Opened { flow, .. } = &told[0].fact else { unreachable!("told as opened") };
        assert_eq!((flow.id.sequence, flow.local.port()), (2, 5001));
    }

    #[test]
    fn who_listens_accepts() {
        let mut changes = Changes::default();
        let sockets = vec![
            socket(1, State::Listening, "0.0.0.0:8888", None),
            socket(2, State::Open, "10.0.0.1:8888", Some("10.0.0.9:50000")),
            socket(3, State::Open, "10.0.0.1:5000", Some("192.0.2.1:8888")),
        ];
        let told = changes.since(look(sockets), NOW);
        let directions: Vec<_> = told
            .iter()
            .filter_map(|o| match &o.fact {
                Fact::Opened { flow, .. } => Some((flow.id.cookie, flow.direction)),
                _ => None,
            })
            .collect();
        assert_eq!(directions, [(2, Direction::In), (3, Direction::Out)]);
    }

    #[test]
    fn an_id_that_is_used_again_is_another_process() {
        let mut changes = Changes::default();
        drop(changes.since(look(vec![]), NOW));
        let again = Look { processes: BTreeMap::from([(7, process(1, 6))]), ..Look::default() };
        let told = changes.since(again, NOW);
        assert_eq!(kinds(&told), ["exit", "exec"]);
    }

    #[test]
    fn a_connection_ends_with_the_octets_that_were_seen_last() {
        let mut changes = Changes::default();
        for bytes in [Some((10, 20)), Some((30, 40)), None] {
            let socket = Socket { bytes, ..socket(1, State::Open, "10.0.0.1:5000", Some("192.0.2.1:443")) };
            drop(changes.since(look(vec![socket]), NOW));
        }
        let told = changes.close(NOW);
        assert!(
            matches!(told[..], [Observation { fact: Fact::Closed { sent: 29, received: 40, .. }, .. }]),
            "{told:?}"
        );
    }

    #[test]
    fn an_exec_and_a_child_are_told() {
        let mut changes = Changes::default();
        drop(changes.since(look(vec![]), NOW));
        let execd = Process { exe: Some("/bin/y".into()), ..process(1, 5) };
        let more = Look { processes: BTreeMap::from([(7, execd), (8, process(7, 9))]), ..Look::default() };
        assert_eq!(kinds(&changes.since(more, NOW)), ["exec", "fork", "exec"]);
    }

    #[test]
    fn a_socket_without_a_peer_is_counted_once() {
        let mut changes = Changes::default();
        let udp = Socket { protocol: Protocol::Udp, ..socket(4, State::Unconnected, "0.0.0.0:5353", None) };
        for _ in 0..3 {
            drop(changes.since(look(vec![udp.clone()]), NOW));
        }
        assert_eq!(changes.unconnected_seen, 1);
    }
}
