//! YAML text to a tree of values that know where they stand: its limits, and its errors in our words.
//!
//! A tree and not a deserializer, because that would stop at the first value that is not as it wants it.

use std::{borrow::Cow, collections::HashMap};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use crate::{
    Fault,
    pattern::shown,
    text::{Faults, Spot, Text},
};

/// Aliases copy what they stand for; a policy needs few of those.
const MAX_COPIED: usize = 100_000;
/// Most values of a text: a million rules with names have six million.
const MAX_NODES: usize = 8_000_000;
/// How deep lists and mappings may lie in each other; the language needs seven.
const MAX_DEPTH: usize = 16;

/// A value.
#[derive(Clone, Debug)]
pub(crate) struct Node<'t> {
    pub(crate) at: Spot,
    pub(crate) kind: Kind<'t>,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind<'t> {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(Cow<'t, str>),
    List(Vec<Node<'t>>),
    Map(Vec<(Node<'t>, Node<'t>)>),
    /// What is wrong, and told already.
    Wrong,
}

/// Where reading stopped.
struct Stop(Spot, Fault);

/// Takes the entries of a document's long lists, by the list's key and the entry's place in it.
pub(crate) type Sink<'s> = dyn FnMut(&str, usize, &Node<'_>) + 's;

/// Reads one document. Entries of the lists under `long` keys go to `sink` one by one, so that a long list is never there
/// as a whole: the lists are then empty.
pub(crate) fn read<'t>(text: &'t Text, faults: &Faults, long: &[&str], sink: &mut Sink<'_>) -> Option<Node<'t>> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut reader = Reader {
        source: &text.source,
        events: Parser::new_from_str_with_options(&text.source, options),
        anchors: HashMap::new(),
        copied: 0,
        nodes: 0,
        faults,
        text,
        long,
        sink,
    };
    match reader.document() {
        Ok(node) => Some(node),
        Err(Stop(at, fault)) => {
            faults.add(text, at, fault);
            None
        }
    }
}

struct Reader<'t, 'f, 's> {
    source: &'t str,
    events: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Node<'t>>,
    copied: usize,
    nodes: usize,
    faults: &'f Faults,
    text: &'t Text,
    long: &'f [&'f str],
    sink: &'f mut Sink<'s>,
}

impl<'t> Reader<'t, '_, '_> {
    fn document(&mut self) -> Result<Node<'t>, Stop> {
        let mut document = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if document.is_some() => return Err(Stop(at, Fault::SecondDocument)),
                Event::DocumentStart(..) => {}
                Event::StreamEnd => return document.ok_or(Stop(Spot::TOP, Fault::Empty)),
                Event::MappingStart(_, 0, None) => document = Some(self.top(at)?),
                event => document = Some(self.node(event, at)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Spot), Stop> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, spot(&span))),
            Some(Err(error)) => Err(stop(self.source, &error)),
            // The parser ends with `StreamEnd`, after which nobody asks.
            None => Err(Stop(Spot::TOP, Fault::Empty)),
        }
    }

    /// The mapping that a document is.
    fn top(&mut self, at: Spot) -> Result<Node<'t>, Stop> {
        let mut map = Vec::new();
        loop {
            let (event, key_at) = match self.next()? {
                (Event::MappingEnd, end) => {
                    return Ok(Node { at: Spot { end: end.end.max(at.end), ..at }, kind: Kind::Map(map) });
                }
                key => key,
            };
            let key = self.node(event, key_at)?;
            let long = matches!(&key.kind, Kind::Scalar(name) if self.long.contains(&&**name));
            let value = match self.next()? {
                (Event::SequenceStart(_, 0, None), at) if long => {
                    self.entries(&key)?;
                    Node { at, kind: Kind::List(Vec::new()) }
                }
                (event, at) => self.node(event, at)?,
            };
            map.push((key, value));
        }
    }

    fn entries(&mut self, key: &Node<'_>) -> Result<(), Stop> {
        let Kind::Scalar(name) = &key.kind else { return Ok(()) };
        for index in 0.. {
            match self.next()? {
                (Event::SequenceEnd, _) => break,
                (event, at) => {
                    let node = self.node(event, at)?;
                    (self.sink)(name, index, &node);
                }
            }
        }
        Ok(())
    }

    /// As deep as the parser lets lists and mappings lie in each other.
    fn node(&mut self, event: Event<'t>, at: Spot) -> Result<Node<'t>, Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Stop(at, Fault::TooMuch { limit: MAX_NODES, what: "values" }));
        }
        let (kind, anchor, tag, end) = match event {
            Event::Scalar(value, style, anchor, tag) => {
                let null = style == ScalarStyle::Plain && matches!(&*value, "" | "~" | "null" | "Null" | "NULL");
                (if null { Kind::Null } else { Kind::Scalar(value) }, anchor, tag, at)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let mut list = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => break end,
                        (event, at) => list.push(self.node(event, at)?),
                    }
                };
                (Kind::List(list), anchor, tag, end)
            }
            Event::MappingStart(_, anchor, tag) => {
                let mut map = Vec::new();
                let end = loop {
                    let (event, at) = match self.next()? {
                        (Event::MappingEnd, end) => break end,
                        key => key,
                    };
                    let key = self.node(event, at)?;
                    let (event, at) = self.next()?;
                    map.push((key, self.node(event, at)?));
                };
                (Kind::Map(map), anchor, tag, end)
            }
            Event::Alias(id) => return self.alias(id, at),
            Event::UnresolvedAlias(name) => {
                let fault = Fault::Yaml {
                    message: format!("`*{}` stands for nothing that came before", shown(&name)),
                    help: "; a pattern that begins with `*` needs quotes, such as `\"*.example.org\"`",
                };
                self.faults.add(self.text, at, fault);
                (Kind::Wrong, 0, None, at)
            }
            _ => return Err(Stop(at, Fault::Yaml { message: "found no value here".into(), help: "" })),
        };
        if let Some(tag) = tag {
            let message = format!("`{}` is a tag", shown(&tag.original()));
            self.faults.add(
                self.text,
                self.tag_before(at, &tag.original()),
                Fault::Yaml { message, help: ", which no policy needs; leave it out" },
            );
        }
        let node = Node { at: Spot { end: end.end.max(at.end), ..at }, kind };
        if anchor != 0 {
            self.copy(&node, at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// Where the tag of a value stands.
    fn tag_before(&self, at: Spot, tag: &str) -> Spot {
        let before = self.source.get(..at.start as usize).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |i| i + 1);
        let Some(found) = before[line..].rfind(tag) else { return at };
        let column = small(before[line..][..found].chars().count() + 1);
        Spot { line: at.line, column, start: small(line + found), end: small(line + found + tag.len()) }
    }

    fn alias(&mut self, id: usize, at: Spot) -> Result<Node<'t>, Stop> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            let message = "an alias stands for what it is a part of".into();
            return Err(Stop(at, Fault::Yaml { message, help: "; write it out" }));
        };
        self.copy(&node, at)?;
        Ok(Node { at, ..node })
    }

    /// Counts what is about to be copied.
    fn copy(&mut self, node: &Node<'_>, at: Spot) -> Result<(), Stop> {
        self.copied += node.size(MAX_COPIED);
        if self.copied > MAX_COPIED {
            let message = format!("its aliases stand for more than {MAX_COPIED} values");
            return Err(Stop(at, Fault::Yaml { message, help: "; write out what they stand for" }));
        }
        Ok(())
    }
}

impl Node<'_> {
    /// How many values it is, itself included; not counted on beyond `most`.
    fn size(&self, most: usize) -> usize {
        let mut size = 1;
        let mut add = |node: &Self| {
            if size <= most {
                size += node.size(most);
            }
        };
        match &self.kind {
            Kind::Null | Kind::Scalar(_) | Kind::Wrong => {}
            Kind::List(list) => list.iter().for_each(add),
            Kind::Map(map) => map.iter().for_each(|(key, value)| {
                add(key);
                add(value);
            }),
        }
        size
    }

    /// What it is, for a message.
    pub(crate) fn shown(&self) -> String {
        match &self.kind {
            Kind::Null | Kind::Wrong => "nothing".into(),
            Kind::Scalar(text) => format!("`{}`", shown(text)),
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "a mapping".into(),
        }
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn spot(span: &Span) -> Spot {
    let start = span.start;
    let octet = |marker: granit_parser::Marker| small(marker.byte_offset().unwrap_or_default());
    Spot { line: small(start.line().max(1)), column: small(start.col() + 1), start: octet(start), end: octet(span.end) }
}

fn stop(source: &str, error: &ScanError) -> Stop {
    let at = spot(&Span::empty(*error.marker()));
    let tab = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => tab_of_line(source, at, false),
        // What is wrong is often a tab that the reader took for the end of something.
        _ => tab_of_line(source, at, true),
    };
    let help = match error.kind() {
        _ if tab.is_some() => "; YAML is indented with spaces: replace the tab",
        ErrorKind::RecursionLimitExceeded => "; lists and mappings lie too deep in each other",
        ErrorKind::DirectiveDisallowed => "; leave out the line that begins with `%`",
        ErrorKind::UnclosedQuotedScalar => "; close it, or see where one closes too early",
        ErrorKind::UnclosedFlowCollection { .. } => "; close it",
        _ => "",
    };
    Stop(tab.unwrap_or(at), Fault::Yaml { message: shown(&error.info()), help })
}

/// The first tab of a place's line, before anything else on it or anywhere.
fn tab_of_line(source: &str, at: Spot, first: bool) -> Option<Spot> {
    let before = source.get(..at.start as usize)?;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let line = source[start..].lines().next()?;
    let tab = line.find('\t').filter(|tab| !first || line[..*tab].trim().is_empty())?;
    let column = line[..tab].chars().count() + 1;
    Some(Spot { line: at.line, column: small(column), start: small(start + tab), end: small(start + tab + 1) })
}
