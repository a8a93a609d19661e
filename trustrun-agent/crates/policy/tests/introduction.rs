//! Every preset that comes with trustrun is one, under its own name.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use jiff::civil::date;
use trustrun_policy::{Composer, Introduction, Kind, Named, NoFiles, presets};

#[test]
fn every_preset_composes_and_says_where_it_is_from() {
    for preset in presets() {
        let about = preset.about().unwrap_or_else(|error| panic!("{error}"));
        let head = about.head.as_ref().unwrap_or_else(|| panic!("{} has no head", preset.name));
        assert_eq!(about.name, preset.name);
        let kind = match head.kind {
            Kind::Baa => "baa/",
            Kind::Deny => "deny/",
            Kind::Allow => "allow/",
        };
        assert!(preset.name.starts_with(kind), "{}", preset.name);
        let any_tenant = head.kind == Kind::Baa && !head.tenant;
        assert_eq!(preset.name.ends_with("-any-tenant"), any_tenant, "{}", preset.name);
        assert!(!head.source.is_empty() && head.checked_on.is_some() && about.description.is_some(), "{}", preset.name);
        let mut files = NoFiles;
        let composer = Composer::new(&mut files, date(2026, 11, 21)).with_placeholders();
        let policy = composer.compose(&[Named::Preset(preset.name.into())]).unwrap_or_else(|error| panic!("{error}"));
        assert!(!policy.rules.is_empty(), "{}", preset.name);
    }
    assert!(presets().is_sorted_by_key(|preset| preset.name));
}

#[test]
fn a_document_tells_what_it_leaves_open() {
    let text = "version: 1\nname: x\nparameters: {a: {description: what it is}, b: 5, c: }\noverlays: {staging: {}}\n";
    let about = Introduction::read("x.yaml", text.as_bytes().to_vec()).unwrap();
    let of = |name: &str, description: Option<&str>, default: Option<&str>| {
        (name.to_owned(), description.map(str::to_owned), default.map(str::to_owned))
    };
    assert_eq!(about.parameters, [of("a", Some("what it is"), None), of("b", None, Some("5")), of("c", None, None)]);
    assert_eq!(about.environments, ["staging"]);
    assert!(Introduction::read("x.yaml", b"version: 2\n".to_vec()).is_err());
}
