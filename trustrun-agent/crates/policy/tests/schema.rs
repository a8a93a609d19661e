//! The JSON Schema takes what the parser takes and refuses what it refuses, as far as shapes and words go.
//!
//! What is understood here of JSON Schema is what this schema uses; a keyword that is not known fails the test.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{fs, path::Path};

use granit_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Value};
use trustrun_policy::{Policy, SCHEMA, presets};

/// YAML as its core schema reads it.
fn yaml(text: &str) -> Value {
    let mut events = Parser::new_from_str(text);
    loop {
        match events.next_event().unwrap().unwrap().0 {
            Event::StreamStart | Event::DocumentStart(..) => {}
            Event::StreamEnd => return Value::Null,
            event => return node(event, &mut events),
        }
    }
}

fn node<'a>(event: Event<'a>, events: &mut Parser<'a, StrInput<'a>>) -> Value {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) => match &*text {
            "" | "~" | "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number if number.parse::<i64>().is_ok() => Value::from(number.parse::<i64>().unwrap()),
            text => Value::from(text),
        },
        Event::Scalar(text, ..) => Value::from(&*text),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match events.next_event().unwrap().unwrap().0 {
                    Event::SequenceEnd => return Value::Array(list),
                    event => list.push(node(event, events)),
                }
            }
        }
        Event::MappingStart(..) => Value::Object(mapping(events)),
        other => panic!("{other:?}"),
    }
}

fn mapping<'a>(events: &mut Parser<'a, StrInput<'a>>) -> Map<String, Value> {
    let mut map = Map::new();
    loop {
        let event = events.next_event().unwrap().unwrap().0;
        let Event::Scalar(key, ..) = event else { return map };
        let key = key.to_string();
        let event = events.next_event().unwrap().unwrap().0;
        map.insert(key, node(event, events));
    }
}

/// Whether a value fits a schema.
fn fits(schema: &Value, value: &Value, root: &Value) -> bool {
    match schema {
        Value::Bool(fits) => *fits,
        Value::Object(schema) => schema.iter().all(|(key, want)| keyword(schema, key, want, value, root)),
        other => panic!("{other} is no schema"),
    }
}

fn keyword(schema: &Map<String, Value>, key: &str, want: &Value, value: &Value, root: &Value) -> bool {
    let all = || want.as_array().unwrap().iter();
    let length = |text: &str| text.chars().count() as u64;
    match (key, value) {
        ("$schema" | "$id" | "$defs" | "title" | "description" | "examples" | "then", _) => true,
        ("$ref", _) => {
            let name = want.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
            fits(root["$defs"].get(name).unwrap_or_else(|| panic!("no {name}")), value, root)
        }
        ("if", _) => !fits(want, value, root) || fits(&schema["then"], value, root),
        ("oneOf", _) => all().filter(|one| fits(one, value, root)).count() == 1,
        ("anyOf", _) => all().any(|one| fits(one, value, root)),
        ("enum", _) => all().any(|one| one == value),
        ("type", _) => match want {
            Value::Array(any) => any.iter().any(|one| is(one, value)),
            one => is(one, value),
        },
        ("properties", Value::Object(map)) => {
            map.iter().all(|(name, value)| want.get(name).is_none_or(|s| fits(s, value, root)))
        }
        ("additionalProperties", Value::Object(map)) => {
            let known = |name: &str| schema.get("properties").is_some_and(|p| p.get(name).is_some());
            map.iter().all(|(name, value)| known(name) || fits(want, value, root))
        }
        ("propertyNames", Value::Object(map)) => map.keys().all(|name| fits(want, &Value::from(name.as_str()), root)),
        ("required", Value::Object(map)) => all().all(|name| map.contains_key(name.as_str().unwrap())),
        ("minProperties", Value::Object(map)) => map.len() as u64 >= want.as_u64().unwrap(),
        ("items", Value::Array(list)) => list.iter().all(|item| fits(want, item, root)),
        ("minItems", Value::Array(list)) => list.len() as u64 >= want.as_u64().unwrap(),
        ("minLength", Value::String(text)) => length(text) >= want.as_u64().unwrap(),
        ("maxLength", Value::String(text)) => length(text) <= want.as_u64().unwrap(),
        ("pattern", Value::String(text)) => pattern(want.as_str().unwrap(), text),
        (
            "properties"
            | "additionalProperties"
            | "propertyNames"
            | "required"
            | "minProperties"
            | "items"
            | "minItems"
            | "minLength"
            | "maxLength"
            | "pattern",
            _,
        ) => true,
        _ => panic!("the keyword {key} is not understood here"),
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    }
}

/// The few patterns of the schema.
fn pattern(pattern: &str, text: &str) -> bool {
    let name = |more: &str| {
        let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
        text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(rest)
    };
    match pattern {
        "^/" => text.starts_with('/'),
        "^[/*]" => text.starts_with(['/', '*']),
        "^[^/]+$" => !text.is_empty() && !text.contains('/'),
        "^[a-z][a-z0-9_-]*$" => name("_-"),
        date if date.starts_with("^[0-9]{4}-") => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        other => panic!("the pattern {other} is not understood here"),
    }
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn takes(text: &str) -> bool {
    let schema = schema();
    fits(&schema, &yaml(text), &schema)
}

#[test]
fn every_policy_that_comes_with_trustrun_fits() {
    for preset in presets() {
        assert!(takes(preset.text), "{}", preset.name);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../policies/examples");
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        assert!(takes(&fs::read_to_string(&path).unwrap()), "{}", path.display());
    }
}

#[test]
fn the_whole_language_fits() {
    let decision = include_str!("../../../../docs/decisions/0011-the-policy-language.md");
    for block in decision.split("```yaml").skip(1) {
        let text = block.split("```").next().unwrap();
        assert!(takes(text), "{text}");
    }
}

#[test]
fn what_the_parser_refuses_for_its_shape_does_not_fit() {
    for text in [
        "default: block\n",
        "version: 2\ndefault: block\n",
        "version: 1\ndefualt: block\n",
        "version: 1\ndefault: deny\n",
        "version: 1\ndefault: block\nrules: {}\n",
        "version: 1\ndefault: block\nrules: [{name: x}]\n",
        "version: 1\ndefault: block\nrules: [{allow: a.test}]\n",
        "version: 1\ndefault: block\nrules: [{alow: [a.test]}]\n",
        "version: 1\ndefault: block\nrules: [{allow: [a.test], private: maybe}]\n",
        "version: 1\ndefault: block\nrules: [{allow: [a.test], severity: bad}]\n",
        "version: 1\ndefault: block\nrules: [{allow: [a.test], expires: tomorrow}]\n",
        "version: 1\ndefault: block\nrules: [{allow: [a.test], except: [{destination: b.test}]}]\n",
        "version: 1\ndefault: block\nrules: [{allow: [a.test], when: {}}]\n",
        "version: 1\ndefault: block\nrules: [{allow: [a.test], when: {exe: python}}]\n",
        "version: 1\ndefault: block\nrules: [{allow: [a.test], when: {cmd: x}}]\n",
        "version: 1\ndefault: block\nextends: [{preset: baa/azure-ai, file: x.yaml}]\n",
        "version: 1\ndefault: block\nextends: [{parameters: {}}]\n",
        "version: 1\ndefault: block\nparameters: {Resource: x}\n",
        "version: 1\ndefault: block\nunix_sockets: [run/x]\n",
        "version: 1\ndefault: block\ncapture: all\n",
        "version: 1\ndefault: block\nlisten: [{allow: [\"*:80\"], private: allow}]\n",
        "version: 1\ndefault: block\npreset: {kind: deny}\n",
        "version: 1\npreset: {kind: good}\n",
    ] {
        assert!(!takes(text), "the schema takes {text}");
        assert!(Policy::parse("p", text.as_bytes()).is_err(), "the parser takes {text}");
    }
}

#[test]
fn everything_in_it_is_described() {
    fn look(value: &Value, path: &str) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                let said = property.get("description").is_some() || property.get("$ref").is_some();
                let plain = ["rules", "listen", "kind", "source", "checked_on", "disclaimer", "extends"]
                    .contains(&name.as_str());
                assert!(said || plain || *property == Value::Bool(false), "{path}/{name} has no description");
                look(property, &format!("{path}/{name}"));
            }
        }
    }
    let schema = schema();
    look(&schema, "");
    schema["$defs"].as_object().unwrap().iter().for_each(|(name, part)| look(part, name));
}
