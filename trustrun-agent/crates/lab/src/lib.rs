//! A small network in one process: what the tests and `trustrun demo` drive real programs in.
//!
//! [`Lab::start`] makes a network namespace whose addresses (documentation ranges only) all live on its own `lo`, so
//! that no packet can leave the machine, and a mount namespace with its own `/etc/resolv.conf`. In it run a DNS
//! server, HTTP and HTTPS servers, echoes, sinks and proxies, all as threads of the calling process. Each of them
//! writes down what arrived ([`Lab::arrived`], [`Dns::queries`]): the far end, and not TrustRun, judges whether a byte
//! went out.
//!
//! ```no_run
//! let lab = trustrun_lab::Lab::start()?;
//! let out = lab.command("curl").arg("https://api.allowed.test/").output()?;
//! assert!(out.status.success());
//! assert_eq!(lab.arrived()[0].sni.as_deref(), Some("api.allowed.test"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here knows the rest of TrustRun, and nothing but [`LabBuilder::rewrite`] needs a tool such as `ip`.

#[cfg(not(target_os = "linux"))]
compile_error!("the lab is made of Linux namespaces; build it on Linux only");

mod arrivals;
mod builder;
mod defaults;
mod dns;
mod error;
mod git;
mod http;
mod lab;
mod net;
mod proxy;
mod service;
mod support;

pub use arrivals::{Arrival, Service};
pub use builder::LabBuilder;
pub use defaults::*;
pub use dns::{Behaviour, Dns, Entry, Forger, Forgery, Query, Record, Transport, Zone, fresh_address};
pub use error::LabError;
pub use lab::Lab;
pub use support::{have, skip, wait_until};
