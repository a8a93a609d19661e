//! What is said beside a rule's destinations, for reports: how bad, why, until when, under which agreement.

use std::sync::Arc;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use trustrun_model::{BaaClass, BaaStatus, Severity};

use crate::{Private, Rule};

/// What is said beside a rule's destinations.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// How bad a violation of it is; none is what its action says.
    pub severity: Option<Severity>,
    /// Why it is there.
    pub reason: Option<Arc<str>>,
    /// What turns off the wish to connect there.
    pub remedy: Option<Arc<str>>,
    /// Document and line.
    pub source: String,
    expires: Option<Date>,
    baa: Option<Arc<crate::Baa>>,
    private: bool,
}

impl About {
    pub(crate) fn new(rule: &Rule) -> Self {
        let source = match rule.origin.line {
            0 => String::new(),
            line => format!("{}:{line}", rule.origin.document),
        };
        Self {
            severity: rule.severity,
            reason: rule.reason.clone(),
            remedy: rule.remedy.clone(),
            source,
            expires: rule.expires,
            baa: rule.baa.clone(),
            private: rule.private == Private::Require,
        }
    }

    /// The last day (UTC) on which the rule counts, where that is past at a time (nanoseconds since the epoch).
    #[must_use]
    pub fn ended(&self, wall_ns: i64) -> Option<String> {
        self.expires.filter(|last| *last < day(wall_ns)).map(|last| last.to_string())
    }

    /// The agreement that a destination is under at a time; none where the rule is of no BAA preset.
    #[must_use]
    pub fn baa(&self, wall_ns: i64) -> Option<BaaStatus> {
        let baa = self.baa.as_ref()?;
        let agreement = baa.agreement.as_ref();
        let ended = agreement.and_then(|a| a.expires).is_some_and(|last| last < day(wall_ns));
        let verified = baa.tenant || self.private;
        let (status, note) = match agreement {
            Some(_) if ended => (BaaClass::Expired, "the agreement has expired"),
            None => (BaaClass::Capable, "the policy names no agreement for it"),
            Some(_) if !verified => (BaaClass::Capable, "another tenant of the provider could be behind the name"),
            Some(_) if !baa.tenant => (BaaClass::Covered, "its private address proves the tenant"),
            Some(_) => (BaaClass::Covered, ""),
        };
        Some(BaaStatus {
            status,
            preset: baa.preset.clone(),
            tenant_verified: verified,
            counterparty: agreement.map(|a| a.counterparty.clone()),
            reference: agreement.map(|a| a.reference.clone()),
            expires: agreement.and_then(|a| a.expires).map(|last| last.to_string()),
            note: note.into(),
        })
    }
}

/// The day (UTC) of a time.
fn day(wall_ns: i64) -> Date {
    let time = Timestamp::from_nanosecond(wall_ns.into()).unwrap_or_default();
    time.to_zoned(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::{Agreement, Baa};

    const DAY: i64 = 86_400_000_000_000;

    fn status(tenant: bool, private: Private, agreed: bool, at: i64) -> BaaStatus {
        let agreement =
            Agreement { counterparty: "Contoso".into(), reference: "4711".into(), expires: Some(date(1970, 1, 10)) };
        let baa = Baa { preset: "baa/x".into(), tenant, agreement: agreed.then_some(agreement) };
        About::new(&Rule { baa: Some(Arc::new(baa)), private, ..Rule::default() }).baa(at).unwrap()
    }

    #[test]
    fn a_rule_ends_with_its_last_day() {
        let about = About::new(&Rule { expires: Some(date(1970, 1, 10)), ..Rule::default() });
        assert_eq!(about.ended(10 * DAY - 1), None);
        assert_eq!(about.ended(10 * DAY).as_deref(), Some("1970-01-10"));
        assert_eq!(About::default().ended(i64::MAX), None);
    }

    #[test]
    fn covered_is_a_tenant_of_ones_own_under_an_agreement() {
        use Private::{Refuse, Require};
        assert_eq!(status(true, Refuse, true, DAY).status, BaaClass::Covered);
        assert_eq!(status(true, Refuse, true, 10 * DAY).status, BaaClass::Expired);
        assert_eq!(status(true, Refuse, false, DAY).status, BaaClass::Capable);
        let any = status(false, Refuse, true, DAY);
        assert_eq!((any.status, any.tenant_verified), (BaaClass::Capable, false));
        let linked = status(false, Require, true, DAY);
        assert_eq!((linked.status, linked.tenant_verified), (BaaClass::Covered, true));
        assert!(linked.note.contains("private address proves the tenant"), "{linked:?}");
    }
}
