//! From the documents that were named to all that they extend.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::PathBuf,
    sync::Arc,
};

use jiff::civil::Date;
use trustrun_model::Action;

use super::{
    parameters::{Values, fill},
    sources::Sources,
};
use crate::{
    Agreement, Baa, Except, Expired, Fault, Rule,
    document::{self, Capture, Document, Entry, Hole, Kind, Overlay, RawExcept, RawRule, Value},
    pattern::shown,
    suggest::nearest,
    text::{Faults, Spot, Text},
};

/// How deep documents may extend each other.
const MAX_DEPTH: usize = 16;
/// How often documents may be extended, each for its own parameters.
const MAX_EXTENDED: usize = 10_000;
/// Most patterns of a policy.
const MAX_PATTERNS: usize = 1 << 22;

/// What was found on the way.
#[derive(Debug, Default)]
pub(super) struct Composed {
    /// Names of the documents that were named.
    pub(super) names: BTreeSet<Arc<str>>,
    pub(super) description: Option<String>,
    pub(super) default: Option<Action>,
    pub(super) capture: Capture,
    pub(super) unix_sockets: BTreeSet<PathBuf>,
    pub(super) rules: Vec<Pending>,
    pub(super) listen: Vec<Pending>,
    pub(super) expired: Vec<Expired>,
    pub(super) left_out: usize,
    patterns: usize,
}

impl Composed {
    /// Takes from another what can only refuse or report more. Where nothing else matches, the default speaks: what is
    /// milder than that would loosen, and is left out.
    pub(super) fn tighten(&mut self, other: Self, default: Option<Action>) {
        let Some(floor) = default else { return };
        let mut left_out = 0;
        let mut keep = |mut pending: Pending, floor: Action| {
            let (before, left) = pending.keep(floor);
            left_out += before - left;
            (left > 0).then_some(pending)
        };
        // Peers are judged only where something says how.
        let listen = if self.listen.is_empty() { Action::Allow } else { floor };
        self.rules.extend(other.rules.into_iter().filter_map(|pending| keep(pending, floor)));
        self.listen.extend(other.listen.into_iter().filter_map(|pending| keep(pending, listen)));
        self.left_out += left_out;
        self.default = self.default.max(other.default);
        self.names.extend(other.names);
        self.expired.extend(other.expired);
    }
}

/// A rule of the policy.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// With the name that it was given, or `rule N`.
    pub(crate) rule: Rule,
    pub(crate) named: bool,
    /// What its name begins with where several documents make one policy.
    pub(crate) prefix: Option<Arc<str>>,
    /// The name of its document.
    pub(crate) from: Arc<str>,
}

/// A rule as it is written, with what its document and the entries above it give it. A policy may have a million of them, so
/// they are not copied before it is known that they have to be.
#[derive(Debug)]
pub(super) struct Pending {
    raw: Arc<RawRule>,
    patterns: Vec<(Action, crate::Pattern)>,
    except: Vec<Except>,
    common: Arc<Common>,
}

/// What the rules of a document have in common.
#[derive(Debug)]
struct Common {
    prefix: Option<Arc<str>>,
    from: Arc<str>,
    baa: Option<Arc<Baa>>,
}

impl Pending {
    pub(super) fn made(self) -> Made {
        let raw = Arc::try_unwrap(self.raw).unwrap_or_else(|raw| (*raw).clone());
        let mut rule = raw.rule;
        rule.patterns.extend(self.patterns);
        rule.except = self.except;
        rule.baa.clone_from(&self.common.baa);
        let Common { prefix, from, .. } = &*self.common;
        Made { rule, named: raw.named, prefix: prefix.clone(), from: from.clone() }
    }

    /// Keeps the patterns that are as severe as this; how many there were, and how many are left.
    fn keep(&mut self, floor: Action) -> (usize, usize) {
        let raw = Arc::make_mut(&mut self.raw);
        let before = raw.rule.patterns.len() + self.patterns.len();
        raw.rule.patterns.retain(|(action, _)| *action >= floor);
        self.patterns.retain(|(action, _)| *action >= floor);
        (before, raw.rule.patterns.len() + self.patterns.len())
    }
}

/// What entries on the way say about the rules below them.
#[derive(Clone, Default)]
struct Above {
    except: Vec<Except>,
    agreement: Option<Arc<Agreement>>,
    prefix: bool,
    /// Documents on the way, the first first.
    way: Vec<usize>,
}

pub(super) struct Walk<'a, 'o> {
    sources: &'a mut Sources<'o>,
    faults: &'a Faults,
    today: Option<Date>,
    placeholders: bool,
    seen: HashSet<String>,
    composed: Composed,
    stopped: bool,
}

impl<'a, 'o> Walk<'a, 'o> {
    pub(super) fn new(
        sources: &'a mut Sources<'o>,
        faults: &'a Faults,
        today: Option<Date>,
        placeholders: bool,
    ) -> Self {
        let (seen, composed) = (HashSet::new(), Composed::default());
        Self { sources, faults, today, placeholders, seen, composed, stopped: false }
    }

    pub(super) fn done(self) -> Composed {
        self.composed
    }

    /// Goes through the documents that were named.
    pub(super) fn roots(&mut self, roots: &[usize], environment: Option<&str>, given: &BTreeMap<String, String>) {
        let documents: Vec<(usize, Arc<Document>)> =
            roots.iter().filter_map(|&root| Some((root, self.sources.get(root).document.clone()?))).collect();
        self.check_environment(&documents, environment);
        self.check_given(&documents, given);
        for (root, document) in &documents {
            self.composed.names.insert(document.name.clone());
            if let [_] = roots {
                self.composed.description.clone_from(&document.description);
            }
            let overlay = environment.and_then(|name| document.overlays.get(name));
            let mut values: BTreeMap<Arc<str>, Arc<str>> =
                overlay.map(|overlay| texts(&overlay.parameters)).unwrap_or_default();
            if let Some(overlay) = overlay {
                self.check_known(document, &overlay.parameters, &document.text, document);
            }
            values.extend(given.iter().map(|(name, value)| (Arc::from(&**name), Arc::from(&**value))));
            let values = self.values(document, &values, &Values::new(), None);
            let above = Above { prefix: roots.len() > 1, way: vec![*root], ..Above::default() };
            self.document(*root, document, &values, &above, overlay);
        }
    }

    fn check_environment(&self, documents: &[(usize, Arc<Document>)], environment: Option<&str>) {
        let Some(name) = environment else { return };
        let names: BTreeSet<&str> = documents.iter().flat_map(|(_, d)| d.overlays.keys().map(|name| &**name)).collect();
        if names.contains(name) || !self.faults.is_empty() {
            return;
        }
        let names: Vec<&str> = names.into_iter().collect();
        let known = match names.is_empty() {
            true => "the policy has no `overlays`".to_owned(),
            false => format!("wanted one of {}", names.join(", ")),
        };
        let meant = nearest(name, &names).map(str::to_owned);
        self.faults.add_outside("--environment", Fault::Environment { found: shown(name), known, meant });
    }

    fn check_given(&self, documents: &[(usize, Arc<Document>)], given: &BTreeMap<String, String>) {
        let names: BTreeSet<&str> =
            documents.iter().flat_map(|(_, d)| d.parameters.keys().map(|name| &**name)).collect();
        for name in given.keys().filter(|name| !names.contains(&***name)) {
            let document = documents.iter().map(|(_, d)| &*d.name).collect::<Vec<_>>().join(" and ");
            let names: Vec<&str> = names.iter().copied().collect();
            self.faults.add_outside("--parameter", not_a_parameter(name, &document, &names));
        }
    }

    /// What a document's parameters are: what its entry gives, else what who extends it calls by the same name, else
    /// its own.
    fn values(
        &self,
        document: &Document,
        given: &BTreeMap<Arc<str>, Arc<str>>,
        outer: &Values,
        entry: Option<(&Text, Spot)>,
    ) -> Values {
        let mut values = Values::new();
        for (name, parameter) in &document.parameters {
            let outer = || outer.get(name).cloned().flatten();
            let own = || parameter.default.as_ref().map(|value| value.text.clone());
            let value = given.get(name).cloned().or_else(outer).or_else(own);
            if value.is_none() && !self.placeholders {
                let what = parameter.description.as_ref().map(|text| format!(" ({})", shown(text)));
                let (text, at, place) = match entry {
                    Some((text, at)) => (text, at, "in this entry"),
                    None => (&*document.text, parameter.at, "in what extends it, or `--parameter` on the command line"),
                };
                let fault = Fault::MissingParameter {
                    name: name.to_string(),
                    document: shown(&document.name),
                    what: what.unwrap_or_default(),
                    place,
                };
                self.faults.add(text, at, fault);
            }
            values.insert(name.clone(), value);
        }
        values
    }

    /// Values for parameters that a document does not have.
    fn check_known(&self, of: &Document, given: &BTreeMap<Arc<str>, Value>, text: &Text, document: &Document) {
        let names: Vec<&str> = of.parameters.keys().map(|name| &**name).collect();
        for (name, value) in given.iter().filter(|(name, _)| !of.parameters.contains_key(&**name)) {
            self.faults.add(text, value.at, not_a_parameter(name, &document.name, &names));
        }
    }

    fn document(
        &mut self,
        index: usize,
        document: &Document,
        values: &Values,
        above: &Above,
        overlay: Option<&Overlay>,
    ) {
        if self.stopped || !self.seen.insert(key(index, values, above)) {
            return;
        }
        let composed = &mut self.composed;
        let own = overlay.and_then(|overlay| overlay.default).or(document.default);
        composed.default = composed.default.max(own);
        composed.capture = composed.capture.max(document.capture.unwrap_or_default());
        composed.unix_sockets.extend(document.unix_sockets.iter().cloned());
        let baa = document.head.as_ref().filter(|head| head.kind == Kind::Baa).map(|head| {
            let (preset, agreement) = (document.name.to_string(), above.agreement.as_deref().cloned());
            Arc::new(Baa { preset, tenant: head.tenant, agreement })
        });
        let prefix = above.prefix.then(|| document.name.clone());
        let common = Arc::new(Common { prefix, from: document.name.clone(), baa });
        let maker = Maker { document, values, above, common };
        let added = overlay.into_iter().flat_map(|overlay| &overlay.rules);
        for raw in document.rules.iter().chain(added) {
            let made = self.rule(&maker, raw);
            self.composed.rules.extend(made);
        }
        let added = overlay.into_iter().flat_map(|overlay| &overlay.listen);
        for raw in document.listen.iter().chain(added) {
            let made = self.rule(&maker, raw);
            self.composed.listen.extend(made);
        }
        let added = overlay.into_iter().flat_map(|overlay| &overlay.extends);
        for entry in document.extends.iter().chain(added) {
            self.entry(index, &maker, entry);
        }
    }

    fn entry(&mut self, index: usize, maker: &Maker<'_>, entry: &Entry) {
        let Maker { document, values, above, .. } = *maker;
        let chain = self.chain(&above.way, entry.what.as_str());
        let fault = |fault| self.faults.add(&document.text, entry.at, fault);
        if above.way.len() > MAX_DEPTH {
            let found = shown(entry.what.as_str());
            return fault(Fault::TooDeep { found, limit: MAX_DEPTH, chain });
        }
        let target = match self.sources.extended(index, &entry.what, &chain, self.faults) {
            Ok(target) => target,
            Err(why) => return fault(why),
        };
        if above.way.contains(&target) {
            return fault(Fault::Cycle { found: shown(&self.sources.get(target).name), chain });
        }
        let Some(extended) = self.sources.get(target).document.clone() else { return };
        if self.seen.len() > MAX_EXTENDED {
            self.stopped = true;
            return fault(Fault::TooMuch { limit: MAX_EXTENDED, what: "documents" });
        }
        let wrong_kind = extended.head.as_ref().is_some_and(|head| head.kind != Kind::Baa);
        if entry.baa.is_some() && wrong_kind {
            let help = "the preset is none of the kind `baa`, so no agreement covers what it names";
            fault(Fault::Misplaced { key: "baa", help });
        }
        self.check_known(&extended, &entry.parameters, &document.text, &extended);
        let place = Some((&*document.text, entry.at));
        let given = self.values(&extended, &texts(&entry.parameters), values, place);
        let mut except = above.except.clone();
        for raw in &entry.except {
            except.extend(self.except(maker, raw, None));
        }
        except.sort_by(|a, b| (&a.pattern, &a.reason, a.expires).cmp(&(&b.pattern, &b.reason, b.expires)));
        except.dedup_by(|a, b| a.pattern == b.pattern && a.reason == b.reason && a.expires == b.expires);
        let mut way = above.way.clone();
        way.push(target);
        let agreement = entry.baa.clone().or_else(|| above.agreement.clone());
        self.agreement(&extended, agreement.as_deref(), document, entry);
        self.document(target, &extended, &given, &Above { except, agreement, prefix: true, way }, None);
    }

    /// Notes an agreement that has run out.
    fn agreement(&mut self, extended: &Document, agreement: Option<&Agreement>, document: &Document, entry: &Entry) {
        let baa = extended.head.as_ref().is_some_and(|head| head.kind == Kind::Baa);
        let Some(on) = agreement.filter(|_| baa).and_then(|agreement| self.over(agreement.expires)) else { return };
        let origin = document.text.origin(entry.at);
        self.composed.expired.push(Expired::Agreement { preset: extended.name.to_string(), on, origin });
    }

    /// A date that is past.
    fn over(&self, expires: Option<Date>) -> Option<Date> {
        expires.filter(|date| self.today.is_some_and(|today| *date < today))
    }

    fn rule(&mut self, maker: &Maker<'_>, raw: &Arc<RawRule>) -> Option<Pending> {
        let text = &*maker.document.text;
        if let Some(on) = self.over(raw.rule.expires) {
            let prefix = maker.common.prefix.as_ref().map_or_else(String::new, |prefix| format!("{prefix}/"));
            let (name, origin) = (format!("{prefix}{}", raw.rule.name), raw.rule.origin.clone());
            self.composed.expired.push(Expired::Rule { name, on, origin });
            return None;
        }
        let mut patterns = Vec::new();
        for (action, template) in &raw.open {
            match self.filled(maker, &template.text, Some(raw)) {
                Ok(Some(pattern)) => patterns.push((*action, pattern)),
                Ok(None) => {}
                Err(fault) => self.faults.add(text, template.at, fault),
            }
        }
        self.composed.patterns += raw.rule.patterns.len() + patterns.len();
        if self.composed.patterns > MAX_PATTERNS && !self.stopped {
            self.stopped = true;
            self.faults.add(text, raw.at, Fault::TooMuch { limit: MAX_PATTERNS, what: "patterns" });
        }
        let mut except: Vec<Except> =
            raw.except.iter().filter_map(|except| self.except(maker, except, Some(raw))).collect();
        except.extend(maker.above.except.iter().cloned());
        Some(Pending { raw: raw.clone(), patterns, except, common: maker.common.clone() })
    }

    fn filled(
        &self,
        maker: &Maker<'_>,
        template: &str,
        rule: Option<&RawRule>,
    ) -> Result<Option<crate::Pattern>, Fault> {
        let Some(text) = fill(template, maker.values, self.placeholders)? else { return Ok(None) };
        document::pattern(&text, rule).map(Some)
    }

    fn except(&mut self, maker: &Maker<'_>, raw: &RawExcept, rule: Option<&RawRule>) -> Option<Except> {
        let text = &*maker.document.text;
        let pattern = match &raw.target {
            Hole::Pattern(pattern) => pattern.clone(),
            Hole::Template(template) => match self.filled(maker, &template.text, rule) {
                Ok(pattern) => pattern?,
                Err(fault) => {
                    self.faults.add(text, template.at, fault);
                    return None;
                }
            },
        };
        let origin = text.origin(raw.at);
        if let Some(on) = self.over(raw.expires) {
            self.composed.expired.push(Expired::Except { destination: pattern.to_string(), on, origin });
            return None;
        }
        Some(Except { pattern, reason: raw.reason.clone(), expires: raw.expires, origin })
    }

    /// `a.yaml → ./b.yaml → baa/azure-openai`
    fn chain(&self, way: &[usize], last: &str) -> String {
        let names = way.iter().map(|index| shown(&self.sources.get(*index).name));
        names.chain([shown(last)]).collect::<Vec<_>>().join(" → ")
    }
}

/// What the rules of one document have in common.
struct Maker<'m> {
    document: &'m Document,
    values: &'m Values,
    above: &'m Above,
    common: Arc<Common>,
}

fn texts(values: &BTreeMap<Arc<str>, Value>) -> BTreeMap<Arc<str>, Arc<str>> {
    values.iter().map(|(name, value)| (name.clone(), value.text.clone())).collect()
}

fn not_a_parameter(name: &str, document: &str, names: &[&str]) -> Fault {
    let known = match names.is_empty() {
        true => "it has none".to_owned(),
        false => format!("wanted one of {}", names.join(", ")),
    };
    let meant = nearest(name, names).map(str::to_owned);
    Fault::NotAParameter { found: shown(name), document: shown(document), known, meant }
}

/// What makes two ways to the same document the same.
fn key(index: usize, values: &Values, above: &Above) -> String {
    let except: Vec<_> = above.except.iter().map(|e| (e.pattern.to_string(), &e.reason, e.expires)).collect();
    format!("{index} {values:?} {except:?} {:?} {}", above.agreement, above.prefix)
}
