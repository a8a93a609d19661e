//! One file per subcommand: parse, plan, act.

#[cfg(feature = "demo")]
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod policy;
pub(crate) mod run;
pub(crate) mod session;
