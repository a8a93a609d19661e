//! Connecting on somebody's behalf, and passing bytes both ways.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;

use crate::defaults::PROXY;
use crate::dns::Dns;
use crate::service::{Conn, IDLE, Stop, connect_from};

/// The way out of a proxy.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) dns: Dns,
    pub(crate) stop: Arc<Stop>,
}

impl Upstream {
    /// Connects to a name or an address (IPv6 with or without brackets).
    pub(super) fn connect(&self, host: &str, port: u16) -> io::Result<Arc<TcpStream>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = match bare.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.dns.addresses(host),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the lab's zone has no such name");
        for address in addresses {
            match connect_from(PROXY.into(), SocketAddr::new(address, port)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(IDLE))?;
                    stream.set_write_timeout(Some(IDLE))?;
                    return Ok(Arc::new(stream));
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Passes bytes both ways until both sides are done. `from_client` may hold bytes that were read already.
    pub(super) fn relay(
        &self,
        client: &Arc<TcpStream>,
        mut from_client: impl Read,
        server: &Arc<TcpStream>,
    ) -> io::Result<()> {
        let watched = self.stop.watch(server);
        let done = thread::scope(|scope| {
            let back = thread::Builder::new().name("lab-relay".into()).spawn_scoped(scope, || {
                pass(&mut &**server, client);
            })?;
            pass(&mut from_client, server);
            let _ = back.join();
            Ok(())
        });
        self.stop.forget(watched);
        done
    }
}

/// Copies until the end of `from`, and tells `to` that it came.
fn pass(from: &mut impl Read, to: &TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    let mut to_end = to;
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 || to_end.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Splits `host:port`.
pub(super) fn authority(text: &str, default: Option<u16>) -> Option<(&str, u16)> {
    match text.rsplit_once(':') {
        // The colons of a bare IPv6 address separate no port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => Some((host, port.parse().ok()?)),
        _ => Some((text, default?)),
    }
}

/// The client's own stream, for the way back.
pub(super) fn stream_of(conn: &Conn) -> Arc<TcpStream> {
    Arc::clone(&conn.stream)
}
