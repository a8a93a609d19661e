//! What the kernel does not judge: connections that others began, by the policy's `listen` rules, and rules that ended
//! while the session went on.

use trustrun_model::{Action, Decided, Direction, Flow, Instants, Protocol, Reason, Untrusted};
use trustrun_policy::{About, Matcher, RuleIndex};

use super::{Engine, Open};

impl Engine {
    /// Judges a connection that the kernel let through; what is decided then. It is let through all the same.
    pub(super) fn judge_further(&mut self, open: &mut Open, decided: Decided, at: Instants) -> Decided {
        let Some(m) = self.judge.policy.clone() else { return decided };
        if open.flow.direction == Direction::In {
            let internal = decided.reason == Reason::Internal || self.within(&open.flow);
            // A datagram that comes in takes nothing out; what is answered is known when its connection ends.
            if open.flow.protocol == Protocol::Tcp && !internal {
                self.unjudged(&open.flow);
            }
            let Some(listen) = m.listen().filter(|_| !internal) else { return decided };
            let flow = &open.flow;
            let d = listen.decide(None, Some(flow.peer.ip()), flow.local.port(), flow.protocol);
            open.index = d.rule;
            open.rule =
                d.rule.map_or_else(|| std::rc::Rc::clone(&self.internal.default), |r| listen.rule_name(r).into());
            open.action = d.action;
            let told = matches!(decided.reason, Reason::Default | Reason::Rule);
            if told && d.action != decided.action {
                let detail =
                    format!("the kernel said {} about {}, the policy says {}", decided.action, flow.peer, d.action);
                self.ledger.gap("decision-mismatch", 1, || detail);
            }
            return Decided { action: d.action, ..decided };
        }
        if !decided.action.violates() && self.ended(open, at).is_some() {
            open.action = Action::Alert;
            return Decided { action: Action::Alert, ..decided };
        }
        decided
    }

    /// Somebody of another machine came, and no rule says who may. What the policy lets nobody out to can leave that way.
    pub(super) fn unjudged(&mut self, flow: &Flow) {
        let silent = |policy: &Matcher| policy.listen().is_none() && policy.default_action().violates();
        if flow.peer.ip().to_canonical().is_loopback() || !self.judge.policy.as_deref().is_some_and(silent) {
            return;
        }
        self.ledger.gap("accepted-unjudged", 1, || {
            format!(
                "{} connected to port {} of the session, and the policy has no `listen` rules that say who may",
                flow.peer.ip().to_canonical(),
                flow.local.port()
            )
        });
    }

    /// Whether it is the session's own connection to itself.
    fn within(&self, flow: &Flow) -> bool {
        let own = |other: &Open| {
            other.flow.direction == Direction::Out
                && other.flow.protocol == flow.protocol
                && other.flow.peer.port() == flow.local.port()
                && (other.flow.local == flow.peer || other.flow.local.ip().is_unspecified())
        };
        flow.peer.ip().to_canonical().is_loopback() && self.flows.values().any(own)
    }

    /// The last day of the rule that granted a connection, where that is past.
    fn ended(&self, open: &Open, at: Instants) -> Option<String> {
        self.about(open)?.ended(at.wall_ns)
    }

    /// The rules that speak about a connection.
    fn rules(&self, direction: Direction) -> Option<&Matcher> {
        let policy = self.judge.policy.as_deref()?;
        if direction == Direction::In { policy.listen() } else { Some(policy) }
    }

    /// What is said beside the rule of a connection.
    pub(super) fn about(&self, open: &Open) -> Option<About> {
        self.rules(open.flow.direction)?.about(open.index?).cloned()
    }

    /// What is said beside a rule.
    pub(super) fn about_rule(&self, rule: Option<RuleIndex>) -> Option<About> {
        self.rules(Direction::Out)?.about(rule?).cloned()
    }

    /// What to do about a violation that the kernel did not see.
    pub(super) fn suggest_further(&self, open: &Open, at: Instants) -> Option<String> {
        let peer = open.flow.peer.ip().to_canonical();
        if open.flow.direction == Direction::In {
            let port = open.flow.local.port();
            let peer = if peer.is_ipv6() { format!("[{peer}]") } else { peer.to_string() };
            return Some(format!(
                "if they may connect, add `allow: [\"{peer}:{port}\"]` to a rule under the policy's `listen`"
            ));
        }
        let last = self.ended(open, at)?;
        let rule = Untrusted::new(&*open.rule).to_string();
        Some(format!("the policy's \"{rule}\" counted until {last}: renew it, or end the program"))
    }
}
