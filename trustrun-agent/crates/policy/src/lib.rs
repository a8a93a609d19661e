//! What a policy says, and what to do about a destination.
//!
//! A policy goes one way: texts, put together by a [`Composer`], to plain data ([`Policy`]) to two compiled forms
//! that must agree: [`Matcher`], which decides in user space, and [`Tables`], which the kernel programs look up.
//! Nothing here touches the system: files are opened by whom the caller names, and the day is told.

mod about;
mod canonical;
mod classes;
mod compose;
mod describe;
mod diff;
mod document;
mod encrypted_dns;
mod error;
mod exceptions;
mod expect;
mod explain;
mod fault;
mod judge;
mod learn;
mod lint;
mod load;
mod matcher;
mod pattern;
mod policy;
mod ports;
mod presets;
mod private;
mod query;
mod rank;
mod replay;
mod rule;
mod schema;
mod socket_path;
mod suggest;
mod tables;
mod targets;
mod text;
mod yaml;

pub use about::About;
pub use classes::{Class, Classes, MAX_CLASSES};
pub use compose::{Composer, Named, NoFiles, Opened, Opener};
pub use describe::{Described, DescribedParameter};
pub use diff::{Change, DiffRow, Difference, Example, Word};
pub use document::{Capture, Head, Kind, Settings};
pub use encrypted_dns::ENCRYPTED_DNS;
pub use error::{Fault, MAX_FAULTS, Place, PolicyError, Wrong};
pub use expect::{Expectation, Expectations, WhoError};
pub use explain::{Counts, Destination, DestinationError, Explanation, Lock, Matched};
pub use judge::Who;
pub use learn::{Line, Profile, Review, Seen, write_profile};
pub use lint::{Facts, Lint, LintKind, SOON_DAYS};
pub use load::{AnyFile, MAX_BYTES, read_file};
pub use matcher::{Decision, Matcher};
pub use pattern::{Pattern, PatternError};
pub use policy::{DocumentRef, Expired, Policy, sha256};
pub use presets::{Introduction, Preset, presets};
pub use private::{Private, is_private_address, is_public_name};
pub use replay::{Outcome, Reader, Replay, Replayed};
pub use rule::{Agreement, Baa, Except, Origin, Rule, RuleIndex, When};
pub use schema::SCHEMA;
pub use tables::{MAX_PORT_ENTRIES, NameKey, Tables, TablesError};
