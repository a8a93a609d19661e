//! Destinations, gathered for reading: by name and action, with their addresses, bytes and programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use trustrun_model::{Action, Destination, Direction, Evidence, Report};

use super::layout::{clean, count};

/// What a report's destinations come to.
pub(super) struct Tally<'r> {
    /// The most severe action first, then by name.
    pub(super) groups: Vec<Group<'r>>,
    /// What is no destination to a person: resolvers, loopback inside the session.
    pub(super) housekeeping: Vec<String>,
    /// Of the groups that the target began.
    pub(super) connections: u64,
    /// Names, and addresses without one, that the target turned to.
    pub(super) destinations: u64,
}

/// Everything of one name (or address, where there is none) with one action.
pub(super) struct Group<'r> {
    pub(super) name: String,
    pub(super) action: Action,
    pub(super) connections: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    members: Vec<&'r Destination>,
}

impl<'r> Tally<'r> {
    pub(super) fn of(report: &'r Report) -> Self {
        let mut groups: BTreeMap<(std::cmp::Reverse<Action>, Direction, String), Group<'r>> = BTreeMap::new();
        let mut kept: BTreeMap<&str, (u64, BTreeSet<String>)> = BTreeMap::new();
        for destination in &report.destinations {
            if destination.action == Action::Allow && matches!(destination.rule.as_str(), "internal" | "resolver") {
                let (connections, ends) = kept.entry(&destination.rule).or_default();
                *connections += destination.connections;
                ends.insert(end(destination.address, destination.port, &destination.protocol.to_string()));
                continue;
            }
            let name = name(destination);
            let key = (std::cmp::Reverse(destination.action), destination.direction, name.clone());
            let group = groups.entry(key).or_insert_with(|| Group::new(name, destination.action));
            group.connections += destination.connections;
            group.sent = group.sent.saturating_add(destination.bytes_sent);
            group.received = group.received.saturating_add(destination.bytes_received);
            group.members.push(destination);
        }
        let began = || groups.iter().filter(|((_, direction, _), _)| *direction == Direction::Out);
        let connections = began().map(|(_, group)| group.connections).sum();
        let destinations = began().map(|((_, _, name), _)| name).collect::<BTreeSet<_>>().len() as u64;
        let housekeeping = kept.into_iter().map(|(rule, (connections, ends))| housekeeping(rule, connections, &ends));
        Self { housekeeping: housekeeping.collect(), connections, destinations, groups: groups.into_values().collect() }
    }
}

fn housekeeping(rule: &str, connections: u64, ends: &BTreeSet<String>) -> String {
    let connections = count(connections, "connection");
    match rule {
        "internal" => format!("and {connections} inside the session itself"),
        _ => {
            let first: Vec<&str> = ends.iter().take(3).map(String::as_str).collect();
            let more = if ends.len() > 3 { format!(" and {} more", ends.len() - 3) } else { String::new() };
            format!("and {connections} to the resolver {}{more}", first.join(", "))
        }
    }
}

impl<'r> Group<'r> {
    fn new(name: String, action: Action) -> Self {
        Self { name, action, connections: 0, sent: 0, received: 0, members: Vec::new() }
    }

    /// Each once, in the order of the report.
    pub(super) fn addresses(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let ends = self.members.iter().map(|d| end(d.address, d.port, &d.protocol.to_string()));
        ends.filter(|end| seen.insert(end.clone())).collect()
    }

    /// The programs, each once, with the number of its process where it is one.
    pub(super) fn who(&self) -> String {
        let mut programs: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for process in self.members.iter().flat_map(|d| &d.processes) {
            let base = process.exe.rsplit('/').next().unwrap_or_default();
            let base = if base.is_empty() { "a process that is not known".into() } else { clean(base) };
            programs.entry(base).or_default().insert(process.pid);
        }
        let mut names: Vec<String> = programs
            .iter()
            .take(2)
            .map(|(name, pids)| match (pids.first(), pids.len()) {
                (Some(0) | None, _) => name.clone(),
                (Some(pid), 1) => format!("{name} ({pid})"),
                (_, many) => format!("{name} ({many} processes)"),
            })
            .collect();
        if programs.len() > 2 {
            names.push(format!("{} more programs", programs.len() - 2));
        }
        if names.is_empty() { "a process that is not known".into() } else { names.join(", ") }
    }
}

/// What a person would call it. A name that only the client claims is said to be one.
fn name(destination: &Destination) -> String {
    let name = match (&destination.host, destination.evidence) {
        (Some(host), Evidence::Claim) => format!("{} (claimed)", clean(host)),
        (Some(host), _) => clean(host),
        (None, _) => destination.address.to_string(),
    };
    match destination.direction {
        Direction::Out => name,
        Direction::In => format!("from {name}"),
    }
}

/// `203.0.113.5:443/tcp`
pub(super) fn end(address: IpAddr, port: u16, protocol: &str) -> String {
    match protocol {
        "tcp" | "udp" => format!("{}/{protocol}", SocketAddr::new(address, port)),
        other => format!("{address}/{}", clean(other)),
    }
}
