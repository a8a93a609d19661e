//! Forward proxies: HTTP (CONNECT and absolute-form) and SOCKS (4, 4a and 5).
//!
//! They resolve names through the lab's zone without asking its resolvers, as a proxy elsewhere would: a program's own
//! lookups alone are in the log of queries. What they fetch comes from [`crate::PROXY`]'s address.

mod http;
mod relay;
mod socks;

pub(crate) use relay::Upstream;

use crate::service::Conn;

/// One connection to the HTTP proxy.
pub(crate) fn serve_http(conn: Conn, upstream: &Upstream) {
    // A client that goes away in the middle is no failure of the proxy.
    let _ = http::serve(conn, upstream);
}

/// One connection to the SOCKS proxy.
pub(crate) fn serve_socks(conn: Conn, upstream: &Upstream) {
    let _ = socks::serve(conn, upstream);
}
