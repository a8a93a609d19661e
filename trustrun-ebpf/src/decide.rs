//! The decision: what the policy says about an address, protocol and port, given the names bound to it.
//!
//! The user-space matcher (`policy::Matcher`) answers the same question; a differential test holds the two together.

use aya_ebpf::{helpers::bpf_ktime_get_boot_ns, maps::lpm_trie::Key};
use trustrun_common::{
    ACTION_BLOCK, Address, BOUND_SETS, Config, ListenKey, SET_DEPENDS, SOCKET_BY_NAME, SOCKET_NEEDS_NAME, port_key,
    reason,
};

use crate::maps::{BINDINGS, LISTEN_NETS, LISTENERS, NETS, PORTS, RESOLVERS, config, enforcing, may_listen};

/// What was decided.
#[derive(Clone, Copy)]
pub struct Decision {
    /// `ACTION_*`, never none.
    pub action: u8,
    /// `reason::*`.
    pub reason: u8,
    /// `SOCKET_BY_NAME`, `SOCKET_NEEDS_NAME`.
    pub flags: u8,
    /// Rule index; `u32::MAX` where no rule matched.
    pub rule: u32,
}

/// No rule.
pub const NO_RULE: u32 = u32::MAX;

impl Decision {
    /// One of our own reasons.
    #[inline(always)]
    pub fn new(action: u8, reason: u8) -> Self {
        Self { action, reason, flags: 0, rule: NO_RULE }
    }

    /// As one number.
    #[inline(always)]
    fn pack(self) -> u64 {
        (self.rule as u64) << 32 | (self.flags as u64) << 16 | (self.reason as u64) << 8 | self.action as u64
    }

    /// What `pack` made.
    #[inline(always)]
    fn unpack(n: u64) -> Self {
        Self { action: n as u8, reason: (n >> 8) as u8, flags: (n >> 16) as u8, rule: (n >> 32) as u32 }
    }

    /// What becomes of it where nothing could be kept: enforcing refuses what it could not follow.
    #[inline(always)]
    pub fn or_full(self, kept: bool, config: &Config) -> Self {
        if kept || !enforcing(config) || self.refused(config) { self } else { Self::new(ACTION_BLOCK, reason::FULL) }
    }

    /// Whether the kernel carries a refusal out.
    #[inline(always)]
    pub fn refused(&self, config: &Config) -> bool {
        self.action >= ACTION_BLOCK && enforcing(config)
    }
}

/// What one side (names or address) says.
#[derive(Clone, Copy)]
struct Said {
    action: u8,
    /// Not 0 if the default counts too: nothing is said, or only by rules with a condition of which it is not known whether
    /// it holds.
    weak: u8,
    rule: u32,
}

impl Said {
    /// What `decide_ports` returned.
    #[inline(always)]
    fn unpack(n: u64) -> Self {
        Self { action: (n >> 32) as u8, weak: (n >> 40) as u8, rule: n as u32 }
    }
}

/// Nothing said. The zero comes from memory: a constant would make every path through a loop a state of its own to the
/// verifier, and eight turns of the loop 2^8 of them.
#[inline(always)]
fn silence(config: &Config) -> Said {
    // SAFETY: a live map value.
    let zero = unsafe { core::ptr::read_volatile(&raw const config.pad) };
    Said { action: zero as u8, weak: !zero as u8, rule: !zero }
}

/// What a set of rules says about a protocol and port.
#[inline(always)]
fn find_ports(set: u32, protocol: u8, port: u16, config: &Config) -> Said {
    match PORTS.get(&Key::new(56, port_key(set, protocol, port))) {
        Some(v) => Said { action: v.action, weak: v.weak, rule: v.rule },
        None => silence(config),
    }
}

/// The same, by [`decide_ports`]. `case` is what a set that depends on it is moved by: the `skip` of the other of name and
/// address, plus the class of the process.
#[inline(always)]
fn ports(set: u32, case: u32, protocol: u8, port: u16) -> Said {
    Said::unpack(decide_ports(set as u64, (case as u64) << 32 | (protocol as u64) << 16 | port as u64))
}

/// The more severe of two; the lower rule where they are equal.
#[inline(always)]
fn severer(a: Said, b: Said) -> Said {
    let weak = a.weak & b.weak;
    let said = if b.action > a.action || (b.action == a.action && b.rule < a.rule) { b } else { a };
    Said { weak, ..said }
}

/// What the address rules say where no name is known.
#[inline(always)]
fn by_address(address: &Address, class: u8, protocol: u8, port: u16, config: &Config) -> Said {
    match NETS.get(&Key::new(128, *address)) {
        Some(net) => ports(net.set, class as u32, protocol, port),
        None => silence(config),
    }
}

/// What an address adds to a name's set that depends on it.
#[inline(always)]
pub fn skip(address: &Address) -> u32 {
    NETS.get(&Key::new(128, *address)).map_or(0, |net| net.skip)
}

/// The default, or a refusal of what hides names and so goes only where a rule says so.
#[inline(always)]
fn default(protocol: u8, port: u16, config: &Config) -> Said {
    let mut said = silence(config);
    said.action = config.default_action as u8;
    if hides_names(protocol, port) && enforcing(config) && said.action < ACTION_BLOCK {
        said.action = ACTION_BLOCK;
    }
    said
}

/// QUIC, whose ClientHello is encrypted against the kernel, and DNS over TLS or QUIC (RFC 7858, RFC 9250).
#[inline(always)]
fn hides_names(protocol: u8, port: u16) -> bool {
    port == 853 || (port == 443 && protocol == 17)
}

/// Turns what was said into a decision.
#[inline(always)]
fn settle(said: Said, protocol: u8, port: u16, config: &Config) -> Decision {
    let mut reason = reason::RULE;
    if said.rule == NO_RULE {
        reason = if !hides_names(protocol, port) || said.action == config.default_action as u8 {
            reason::DEFAULT
        } else if port == 853 {
            reason::ENCRYPTED_DNS
        } else {
            reason::QUIC
        };
    }
    Decision { action: said.action, reason, flags: 0, rule: said.rule }
}

/// What was said, or the default if nothing was, or if that is more severe than what may not hold.
#[inline(always)]
fn or(said: Said, default: Said) -> Said {
    if said.weak != 0 { severer(said, default) } else { said }
}

/// Decides about a destination. Where several names are bound to the address, the mildest counts now, and
/// `SOCKET_NEEDS_NAME` says that the first payload has to tell which it is.
#[inline(always)]
pub fn destination(address: &Address, class: u8, protocol: u8, port: u16) -> Decision {
    let w = words(address);
    let high = (w[0] as u64) << 32 | w[1] as u64;
    let low = (w[2] as u64) << 32 | w[3] as u64;
    let rest = (class as u64) << 32 | (protocol as u64) << 16 | port as u64;
    Decision::unpack(decide_destination(high, low, rest))
}

/// [`destination`] as a function that the verifier looks at once by itself (see `docs/kernel.md`): numbers in, a number
/// out, since before 5.12 such a function takes no pointers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn decide_destination(high: u64, low: u64, rest: u64) -> u64 {
    let Some(config) = config() else { return Decision::new(ACTION_BLOCK, reason::DEFAULT).pack() };
    let to = address([(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32]);
    judge(to, (rest >> 32) as u8, (rest >> 16) as u8, rest as u16, config).pack()
}

#[inline(always)]
fn judge(address: Address, class: u8, protocol: u8, port: u16, config: &Config) -> Decision {
    let default = default(protocol, port, config);
    // The address is kept in one place only: the stack of a program and what it calls is 512 octets, and before 6.8 each
    // function's share is rounded up to 32.
    let key = Key::new(128, address);
    let address = &key.data;
    let net = NETS.get(&key);
    let (set, skip) = net.map_or((0, 0), |net| (net.set, net.skip));
    let case = class as u32;
    let address_said = if set != 0 { ports(set, case, protocol, port) } else { silence(config) };
    let plain = or(address_said, default);
    // SAFETY: the value may change under us; each slot is read once and any mix of old and new is a binding that was
    // believed.
    let Some(binding) = (unsafe { BINDINGS.get(address) }) else { return settle(plain, protocol, port, config) };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // Worse than any action, and none: whichever name comes first replaces them.
    let mut best = Said { action: !silence(config).action, weak: 0, rule: 0 };
    let mut worst = silence(config).action;
    for i in 0..BOUND_SETS {
        if binding.expires[i] <= now {
            continue;
        }
        let mut address_said = address_said;
        if set & SET_DEPENDS != 0 {
            address_said = ports(set, case + binding.skips[i] as u32, protocol, port);
        }
        let name_said = ports(binding.sets[i], case + skip, protocol, port);
        let said = or(severer(name_said, address_said), default);
        if said.action < best.action || (said.action == best.action && said.rule < best.rule) {
            best = said;
        }
        if said.action > worst {
            worst = said.action;
        }
    }
    if worst == silence(config).action {
        return settle(plain, protocol, port, config);
    }
    let mut d = settle(best, protocol, port, config);
    if plain.action >= ACTION_BLOCK && best.action < ACTION_BLOCK {
        d.flags |= SOCKET_BY_NAME;
    }
    if worst >= ACTION_BLOCK && best.action < ACTION_BLOCK {
        d.flags |= SOCKET_NEEDS_NAME;
    }
    d
}

/// What a set of rules says about a protocol and port, looked at once by itself as [`decide_destination`] is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn decide_ports(set: u64, rest: u64) -> u64 {
    let Some(config) = config() else { return (ACTION_BLOCK as u64) << 32 | NO_RULE as u64 };
    let said = find_ports(place(set as u32, (rest >> 32) as u32), (rest >> 16) as u8, rest as u16, config);
    (said.weak as u64) << 40 | (said.action as u64) << 32 | said.rule as u64
}

/// The set that is looked up.
#[inline(always)]
pub fn place(set: u32, case: u32) -> u32 {
    if set & SET_DEPENDS != 0 { (set & !SET_DEPENDS).wrapping_add(case) } else { set }
}

/// Decides about a name that the client itself gave: the name's rules alone. For `case` see `ports`.
#[inline(always)]
pub fn name(set: u32, case: u32, protocol: u8, port: u16, config: &Config) -> Decision {
    settle(or(ports(set, case, protocol, port), default(protocol, port, config)), protocol, port, config)
}

/// Decides about an address that the client itself gave.
#[inline(always)]
pub fn claimed_address(address: &Address, class: u8, port: u16, config: &Config) -> Decision {
    settle(or(by_address(address, class, 6, port, config), default(6, port, config)), 6, port, config)
}

/// Decides about somebody who connects to a port of the target, or sends to it first, by the `listen` rules.
#[inline(always)]
pub fn peer(address: &Address, protocol: u8, port: u16, config: &Config) -> Decision {
    let said = match LISTEN_NETS.get(&Key::new(128, *address)) {
        Some(net) => ports(net.set, 0, protocol, port),
        None => silence(config),
    };
    let mut default = silence(config);
    default.action = config.default_action as u8;
    settle(or(said, default), protocol, port, config)
}

/// Whether an address and port is a resolver of the target.
#[inline(always)]
pub fn resolver(address: &Address, port: u16) -> bool {
    // SAFETY: the map is written before the session starts only.
    port == 53 && unsafe { RESOLVERS.get(address) }.is_some()
}

/// Whether it is loopback.
#[inline(always)]
pub fn loopback(a: &Address) -> bool {
    let w = words(a);
    w[0] == 0 && w[1] == 0 && ((w[2] == 0 && w[3] == 1u32.to_be()) || (w[2] == 0xffffu32.to_be() && a[12] == 127))
}

/// Whether it is loopback to a socket of the session that listens.
#[inline(always)]
pub fn internal(address: &Address, protocol: u8, port: u16) -> bool {
    if !loopback(address) || !may_listen(port) {
        return false;
    }
    let mut key = ListenKey { address: *address, port, protocol: protocol as u16, pad: 0 };
    // SAFETY: only presence counts.
    if unsafe { LISTENERS.get(&key) }.is_some() {
        return true;
    }
    key.address = [0; 16];
    // SAFETY: as above.
    unsafe { LISTENERS.get(&key) }.is_some()
}

/// An address as four words in memory order.
#[inline(always)]
pub fn words(a: &Address) -> [u32; 4] {
    // SAFETY: same size, any bits are a value, and the read is unaligned.
    unsafe { core::ptr::read_unaligned(core::ptr::from_ref(a).cast()) }
}

/// An address from the four words of a context, which hold it in network order.
#[inline(always)]
pub fn address(words: [u32; 4]) -> Address {
    // SAFETY: same size, any bits are a value.
    unsafe { core::mem::transmute(words) }
}

/// An IPv4 address in network order, as v4-mapped.
#[inline(always)]
pub fn mapped(v4: u32) -> Address {
    address([0, 0, 0xffffu32.to_be(), v4])
}
