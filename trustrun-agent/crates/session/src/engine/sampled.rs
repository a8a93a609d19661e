//! Judging for sensors that only see: the kernel decided nothing, so the decision is made here, once a connection is seen.

use std::rc::Rc;

use trustrun_model::{Action, Decided, Direction, Evidence, Flow, Instants, Protocol, Reason};

use trustrun_policy::{Class, RuleIndex};

use super::Engine;
use crate::News;

impl Engine {
    /// What is decided about a connection that nobody decided about, and the rule's name.
    pub(super) fn judge_alone(
        &mut self,
        flow: &Flow,
        evidence: Evidence,
        at: Instants,
    ) -> (Decided, Rc<str>, Option<RuleIndex>) {
        let decided = self.decide_alone(flow, at);
        if self.nameless(flow, &decided, evidence) {
            return (Decided { action: Action::Allow, ..decided }, Rc::clone(&self.internal.unknown), None);
        }
        let (rule, index) = self.explain(flow, Class::default(), &decided, at);
        (decided, rule, index)
    }

    /// An open connection as it is told on a terminal.
    pub(crate) fn news(&self, flow: &Flow) -> Option<News> {
        let open = self.flows.get(&(flow.id, flow.peer))?;
        let name = |exe: &str| exe.rsplit('/').next().unwrap_or_default().to_owned();
        Some(News {
            action: self.judge.policy.as_ref().map(|_| open.action),
            host: open.host.as_deref().map(ToOwned::to_owned),
            peer: flow.peer,
            protocol: flow.protocol,
            direction: flow.direction,
            rule: open.rule.to_string(),
            process: open.process.as_ref().map(|process| (name(&process.exe), process.pid)),
        })
    }

    /// What the policy says about a connection that is there already. A name that nobody saw being looked up grants
    /// nothing; where one could have made the difference, that is a gap and not a violation.
    fn decide_alone(&self, flow: &Flow, at: Instants) -> Decided {
        let decided = |action, reason| Decided { action, reason, enforced: false };
        if flow.direction == Direction::In {
            return decided(Action::Allow, Reason::Accepted);
        }
        if flow.peer.ip().is_loopback() && self.listeners.contains_key(&(flow.protocol, flow.peer.port())) {
            return decided(Action::Allow, Reason::Internal);
        }
        let asks = flow.peer.port() == 53 && self.judge.resolvers.contains(&flow.peer.ip());
        if asks && matches!(flow.protocol, Protocol::Udp | Protocol::Tcp) {
            return decided(Action::Allow, Reason::Resolver);
        }
        let Some(policy) = &self.judge.policy else { return decided(Action::Allow, Reason::Default) };
        let (ip, port, protocol) = (flow.peer.ip(), flow.peer.port(), flow.protocol);
        let names = self.names.of(ip, at.boot_ns).map(|name| policy.decide(Some(name), Some(ip), port, protocol));
        let best = names.min_by_key(|d| d.action);
        let decision = best.unwrap_or_else(|| policy.decide(None, Some(ip), port, protocol));
        let reason = if decision.rule.is_some() { Reason::Rule } else { Reason::Default };
        decided(decision.action, reason)
    }

    /// Whether a violation rests on nothing but that the name is not known: then nobody can say that it is one.
    fn nameless(&mut self, flow: &Flow, decided: &Decided, evidence: Evidence) -> bool {
        let unknown = decided.action.violates()
            && decided.reason == Reason::Default
            && evidence == Evidence::None
            && self.judge.policy.as_ref().is_some_and(|policy| policy.has_names());
        if unknown {
            self.ledger.gap("name-unknown", 1, || {
                format!(
                    "the policy has rules about names, and this sensor does not see which name {} was looked up as; it \
                     may be one that is allowed",
                    flow.peer
                )
            });
        }
        unknown
    }
}
