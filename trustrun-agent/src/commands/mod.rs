//! One file per subcommand: parse, plan, act.

pub(crate) mod demo;
pub(crate) mod policy;
pub(crate) mod run;
pub(crate) mod session;
