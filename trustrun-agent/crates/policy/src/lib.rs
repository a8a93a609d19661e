//! What a policy says, and what to do about a destination.
//!
//! A policy goes one way: text ([`Policy::load`], [`Policy::parse`]) to plain data ([`Policy`]) to two compiled forms
//! that must agree: [`Matcher`], which decides in user space, and [`Tables`], which the kernel programs look up.
//! Nothing here touches the system besides reading the policy's own file.

mod document;
mod encrypted_dns;
mod error;
mod learn;
mod load;
mod matcher;
mod pattern;
mod policy;
mod ports;
mod private;
mod query;
mod rule;
mod socket_path;
mod suggest;
mod tables;
mod targets;
mod yaml;

pub use encrypted_dns::ENCRYPTED_DNS;
pub use error::{Fault, Place, PolicyError};
pub use learn::Seen;
pub use load::MAX_BYTES;
pub use matcher::{Decision, Matcher};
pub use pattern::{Pattern, PatternError};
pub use policy::Policy;
pub use private::{Private, is_private_address, is_public_name};
pub use rule::{Agreement, Baa, Except, Origin, Rule, RuleIndex, When};
pub use tables::{MAX_PORT_ENTRIES, NameKey, Tables, TablesError};
