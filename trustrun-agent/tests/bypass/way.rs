//! What a way around is, as data.

use std::net::{Ipv4Addr, Ipv6Addr};

use trustrun_lab::LabBuilder;

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Ordinary,
    Root,
}

impl User {
    /// The ordinary user is the one that the engine becomes where there is no user `trustrun`: the worst case.
    pub(crate) fn uid(self) -> u32 {
        match self {
            Self::Ordinary => 65_534,
            Self::Root => 0,
        }
    }

    /// For the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "user",
            Self::Root => "root",
        }
    }
}

/// What of the wire tells that the way was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// Any packet to the way's own address, or with its token.
    Packet,
    /// Its token in a packet, in a name that was asked, or in what a server of the lab read inside TLS.
    Token,
    /// A lookup with its token that reached a resolver. (A refused one is answered by TrustRun, on the same wire.)
    Asked,
    /// The same, or a packet of any kind to a resolver that holds its token.
    Quoted,
    /// The program made a file when a door was open. It is believed where it accuses; that it would find an open door is
    /// known from the run without TrustRun.
    Door,
}

/// What must become of a way where it works without TrustRun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// Nothing arrives.
    Refused,
    /// If something arrives, a gap names it.
    Told,
    /// It is open, and whether it was used cannot be known: every report names it as a limit.
    Named,
}

/// One way around.
#[derive(Debug)]
pub(crate) struct Way {
    /// Short and stable.
    pub(crate) id: &'static str,
    /// One sentence, for the table.
    pub(crate) title: &'static str,
    /// What runs inside, a line of sh. `{to}`, `{to6}`: its own addresses outside the policy; `{token}`: what is to get
    /// out; `{bin}`: the programs; `{dir}`: a folder that everybody may write to; `{uid}`: the user; `{many}`: how many are a flood;
    /// `{key}`: a number that no other test on this machine has.
    pub(crate) line: &'static str,
    pub(crate) judge: Judge,
    /// As an ordinary user, as root.
    pub(crate) must: (Must, Must),
    /// Kinds of gaps that name this way, if it was open; `violation` for a violation that names its token.
    pub(crate) told: &'static [&'static str],
    /// Kinds of limits that name this way, where it is known to be open.
    pub(crate) limits: &'static [&'static str],
    /// Kinds of gaps that name this way where the kernel is too old for the lock or the hook that stands against it: every
    /// report there has them.
    pub(crate) old: &'static [&'static str],
    /// Whether a refusal must be in the report too: a violation at the way's own address, or a gap.
    pub(crate) in_report: bool,
    /// In a session of its own, because it changes the session or its report.
    pub(crate) alone: bool,
    /// Run outside first, by the shell that starts TrustRun, or the program where there is no TrustRun.
    pub(crate) before: &'static str,
    /// A program that runs outside all the while, as root, and says "ready"; empty if none is needed.
    pub(crate) outside: &'static str,
    /// Whether it is tried without TrustRun too, to know that it works at all. Not where that would harm this machine.
    pub(crate) bare: bool,
}

/// What most ways are: refused to everyone, and judged by their own address.
pub(crate) const WAY: Way = Way {
    id: "",
    title: "",
    line: "",
    judge: Judge::Packet,
    must: (Must::Refused, Must::Refused),
    told: &[],
    limits: &[],
    old: &[],
    in_report: false,
    alone: false,
    before: "",
    outside: "",
    bare: true,
};

/// Where a way's packets would go: an address that no other way has.
pub(crate) fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 200, u8::try_from(number + 1).expect("few ways"))
}

/// The same over IPv6.
pub(crate) fn address6(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xb1, u16::try_from(number + 1).expect("few ways"))
}

/// What is to get out: found nowhere else.
pub(crate) fn token(number: usize) -> String {
    format!("zqx{number:03}leak")
}

/// Makes one way's IPv6 address local; those of IPv4 are of a range that is.
pub(crate) fn addresses(builder: LabBuilder, number: u8) -> LabBuilder {
    builder.address(address6(number.into()).into())
}
