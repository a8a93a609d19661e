//! The JSON Schema of policies, for editors and other tools. A test holds it to what the parser takes and refuses.

/// JSON Schema 2020-12 of a policy. An editor finds it by the first line of a policy:
/// `# yaml-language-server: $schema=./trustrun-policy.schema.json`
pub const SCHEMA: &str = include_str!("schema.json");
