//! Files of the host that are read when a session starts: mountinfo, resolv.conf, hosts. In a container others may have
//! written them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustrun_guard::Hierarchy;
use trustrun_session::Resolvers;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let _ = Hierarchy::parse(&text);
    let resolvers = Resolvers::parse(&text, "node.ward.example", &text);
    assert!((1..=16).contains(&resolvers.addresses.len()) && resolvers.hosts.len() <= 4096);
    assert!(resolvers.hosts.iter().all(|(_, name)| !name.is_empty()));
});
