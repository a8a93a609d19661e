//! Values in the place of `{name}`: of a label, of an address, of a port, and of nothing else.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use trustrun_model::Protocol;

use crate::{Fault, document::is_identifier, pattern::shown, suggest::nearest};

/// Values by the names of a document's parameters. None where there is none, which is told where it was to be given.
pub(super) type Values = BTreeMap<Arc<str>, Option<Arc<str>>>;

/// What stands for values that are not known, where a preset is looked at by itself.
const SOME_LABEL: &str = "parameter";
const SOME_ADDRESS: &str = "10.0.0.0";
const SOME_PORT: &str = "443";

/// Where in a pattern a parameter stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// For a port.
    Port,
    /// For all that is before the port: a label or an address.
    Alone,
    /// Before a prefix length.
    Network,
    /// In a label.
    Label,
    /// Where a value would change the kind of the pattern.
    Nowhere,
}

/// The text with its parameters replaced. None where a value is missing, unless something may stand for it.
pub(super) fn fill(template: &str, values: &Values, placeholders: bool) -> Result<Option<String>, Fault> {
    let braces = || Fault::Braces { found: shown(template) };
    let mut filled = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let (plain, tail) = rest.split_at(open);
        filled.push_str(plain);
        let (name, after) = tail.strip_prefix('{').and_then(|tail| tail.split_once('}')).ok_or_else(braces)?;
        if !is_identifier(name) {
            return Err(braces());
        }
        let Some(value) = values.get(name) else {
            return Err(unknown(name, values));
        };
        let stands = stands(&filled, after);
        let value = match value.as_deref() {
            Some(value) => value,
            None if placeholders => placeholder(stands),
            None => return Ok(None),
        };
        if let Err(why) = check(value, stands) {
            return Err(Fault::ParameterValue { name: name.into(), value: shown(value), why });
        }
        let bare = stands == Stands::Alone && value.contains(':') && !filled.ends_with('[');
        filled.push_str(&if bare { format!("[{value}]") } else { value.to_owned() });
        rest = after;
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

fn unknown(name: &str, values: &Values) -> Fault {
    let names: Vec<&str> = values.keys().map(|name| &**name).collect();
    let meant = nearest(name, &names).map(|name| format!("{{{name}}}"));
    let known = match names.is_empty() {
        true => format!("it has none; write `parameters: {{{name}: VALUE}}`"),
        false => format!("wanted one of {}", names.join(", ")),
    };
    Fault::UnknownParameter { found: name.into(), known, meant }
}

fn stands(before: &str, after: &str) -> Stands {
    let outside = before.rsplit(']').next().unwrap_or(before);
    if !outside.contains('[') && outside.contains(':') {
        return Stands::Port;
    }
    if after.starts_with('/') {
        return if before.is_empty() || is_protocol(before) || before.ends_with('[') {
            Stands::Network
        } else {
            Stands::Nowhere
        };
    }
    if after.contains('/') {
        return Stands::Nowhere;
    }
    // What follows a slash is a destination only where a protocol is before it.
    if before.contains('/') && !is_protocol(&before[..=before.rfind('/').unwrap_or(0)]) {
        return Stands::Nowhere;
    }
    let begins = before.is_empty() || before.ends_with(['/', '[']);
    let ends = after.is_empty() || after.starts_with([':', ']']);
    if begins && ends { Stands::Alone } else { Stands::Label }
}

/// `udp/` and the like.
fn is_protocol(text: &str) -> bool {
    text.strip_suffix('/').is_some_and(|head| head == "any" || head.parse::<Protocol>().is_ok())
}

fn placeholder(stands: Stands) -> &'static str {
    match stands {
        Stands::Port => SOME_PORT,
        Stands::Network => SOME_ADDRESS,
        Stands::Alone | Stands::Label | Stands::Nowhere => SOME_LABEL,
    }
}

fn check(value: &str, stands: Stands) -> Result<(), &'static str> {
    let port = value.bytes().all(|b| b.is_ascii_digit()) && value.parse::<u16>().is_ok_and(|port| port > 0);
    let address = value.parse::<IpAddr>().is_ok();
    match stands {
        Stands::Port if !port => Err("it stands for a port here; wanted a number from 1 to 65535"),
        Stands::Network if !address => Err("it stands before a prefix length here; wanted an address"),
        Stands::Label if address => {
            Err("it stands for a part of a name here; wanted one label, without dots and colons")
        }
        Stands::Nowhere => Err("it stands for a protocol or a prefix length here; write those out"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, value: &str) -> Result<Option<String>, String> {
        let values = Values::from([("x".into(), Some(value.into()))]);
        fill(template, &values, false).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_value_stands_for_a_label_an_address_or_a_port() {
        for (template, value, expected) in [
            ("{x}.openai.azure.com:443", "contoso-phi", "contoso-phi.openai.azure.com:443"),
            ("{x}-aiplatform.googleapis.com", "us-east1", "us-east1-aiplatform.googleapis.com"),
            ("*.{x}.test", "a", "*.a.test"),
            ("{x}", "10.1.2.3", "10.1.2.3"),
            ("udp/{x}:53", "10.1.2.3", "udp/10.1.2.3:53"),
            ("{x}:443", "2001:db8::1", "[2001:db8::1]:443"),
            ("[{x}]:443", "2001:db8::1", "[2001:db8::1]:443"),
            ("{x}/24", "10.1.2.0", "10.1.2.0/24"),
            ("udp/{x}/24:53", "10.1.2.0", "udp/10.1.2.0/24:53"),
            ("a.test:{x}", "8443", "a.test:8443"),
            ("a.test:{x}-9000", "8443", "a.test:8443-9000"),
            ("[2001:db8::1]:{x}", "1", "[2001:db8::1]:1"),
        ] {
            assert_eq!(filled(template, value).as_ref().map(|t| t.as_deref()), Ok(Some(expected)), "{template}");
        }
    }

    #[test]
    fn a_value_never_changes_the_kind_of_a_pattern() {
        for (template, value) in [
            ("{x}/a.test", "any"),
            ("10.0.0.0/{x}", "0"),
            ("{x}a/10.0.0.0", "ud"),
            ("a.test:{x}", "0"),
            ("a.test:{x}", "http"),
            ("{x}.test", "10.0.0.1"),
            ("a.{x}", "10.0.0.1"),
            ("{x", "a"),
            ("x}", "a"),
            ("{}", "a"),
            ("{{x}}", "a"),
        ] {
            assert!(filled(template, value).is_err(), "{template}: {:?}", filled(template, value));
        }
        let missing = Values::from([("x".into(), None)]);
        assert_eq!(fill("{x}.test", &missing, false), Ok(None));
        assert_eq!(fill("{x}.test:{x}", &missing, true), Ok(Some("parameter.test:443".into())));
    }
}
