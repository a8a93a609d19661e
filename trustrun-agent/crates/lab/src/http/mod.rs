//! The web servers: a small HTTP/1.1 responder, in the clear and over TLS, for every name and address of the lab.
//!
//! `request` reads, `routes` decides what a path answers, `tls` makes certificates and takes the ClientHello apart.

mod request;
mod routes;
mod tls;

use std::io::{self, BufReader, Read, Write};

use crate::arrivals::Ticket;
use crate::service::Conn;

pub(crate) use request::Head;
pub(crate) use routes::Site;
pub(crate) use tls::Authority;

/// Answers requests on one connection until it is over.
pub(crate) fn serve_clear(conn: Conn, site: &Site) {
    let ticket = conn.ticket.clone();
    let ends = (conn.peer, conn.local);
    // A client that goes away in the middle is no failure of the server.
    let _ = requests(conn, &ticket, |head, body| site.respond("http", ends, head, body));
}

/// The same inside TLS.
pub(crate) fn serve_tls(conn: Conn, site: &Site, authority: &Authority) {
    let ticket = conn.ticket.clone();
    let ends = (conn.peer, conn.local);
    let Ok(mut stream) = authority.accept(conn) else { return };
    let _ = requests(&mut stream, &ticket, |head, body| site.respond("https", ends, head, body));
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn requests<S: Read + Write>(
    stream: S,
    ticket: &Ticket,
    respond: impl Fn(&Head, Vec<u8>) -> routes::Response,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(16 * 1024, stream);
    while let Some(head) = Head::read(&mut reader)? {
        ticket.requested(head.host.as_deref(), &format!("{} {}", head.method, head.target));
        if head.expects_continue {
            reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = head.read_body(&mut reader)?;
        let response = respond(&head, body);
        response.write(reader.get_mut(), &head)?;
        if head.close {
            break;
        }
    }
    Ok(())
}
