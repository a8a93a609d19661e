//! The lab's name server: a zone of plain data, honest answers made with hickory, and hostile ones made by hand.
//!
//! `zone` says what is true, `answer` turns a query into what is sent, `forgery` makes packets that no honest server
//! sends, `server` owns the sockets and the log of queries.

mod answer;
mod forgery;
mod server;
mod zone;

pub use forgery::{Forger, Forgery};
pub use server::{Dns, Query, Transport};
pub use zone::{Behaviour, Entry, Record, Zone, fresh_address};
