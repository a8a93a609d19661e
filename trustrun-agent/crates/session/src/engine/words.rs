//! What the rules of our own are called in reports.

use std::rc::Rc;

use trustrun_model::Reason;

use super::Engine;

/// Rules of our own, shared.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) default: Rc<str>,
    pub(super) none: Rc<str>,
    pub(super) internal: Rc<str>,
    pub(super) resolver: Rc<str>,
    pub(super) accepted: Rc<str>,
    pub(super) mismatch: Rc<str>,
    pub(super) unreadable: Rc<str>,
    pub(super) quic: Rc<str>,
    pub(super) kind: Rc<str>,
    pub(super) unknown: Rc<str>,
    pub(super) full: Rc<str>,
    pub(super) fake: Rc<str>,
    pub(super) encrypted_dns: Rc<str>,
}

impl Words {
    pub(super) fn new() -> Self {
        Self {
            default: "default".into(),
            none: "no policy".into(),
            internal: "internal".into(),
            resolver: "resolver".into(),
            accepted: "accepted".into(),
            mismatch: "name mismatch".into(),
            unreadable: "name unreadable".into(),
            quic: "quic".into(),
            kind: "socket kind".into(),
            unknown: "name unknown".into(),
            full: "table full".into(),
            fake: "source port 53".into(),
            encrypted_dns: trustrun_policy::ENCRYPTED_DNS.into(),
        }
    }
}

impl Engine {
    /// The rule that a reason stands for.
    pub(super) fn word(&self, reason: Reason) -> Rc<str> {
        Rc::clone(match reason {
            Reason::Default | Reason::Rule => &self.internal.default,
            Reason::Internal => &self.internal.internal,
            Reason::Resolver => &self.internal.resolver,
            Reason::Accepted => &self.internal.accepted,
            Reason::Mismatch => &self.internal.mismatch,
            Reason::Claim | Reason::Unreadable => &self.internal.unreadable,
            Reason::Quic => &self.internal.quic,
            Reason::Kind => &self.internal.kind,
            Reason::Full => &self.internal.full,
            Reason::FakeResolver => &self.internal.fake,
            Reason::EncryptedDns => &self.internal.encrypted_dns,
        })
    }
}
