//! An HTTP proxy (RFC 9110 sections 7.2 and 9.3.6): one request to a connection.

use std::io::{self, BufReader, Write};

use super::relay::{Upstream, authority, stream_of};
use crate::http::Head;
use crate::service::Conn;

pub(super) fn serve(conn: Conn, upstream: &Upstream) -> io::Result<()> {
    let (ticket, client) = (conn.ticket.clone(), stream_of(&conn));
    let mut reader = BufReader::new(conn);
    let Some(head) = Head::read(&mut reader)? else { return Ok(()) };
    let tunnel = head.method == "CONNECT";
    let (target, path) = if tunnel {
        (Some(head.target.as_str()), "")
    } else {
        match head.target.strip_prefix("http://") {
            Some(rest) => match rest.find('/') {
                Some(slash) => (Some(&rest[..slash]), &rest[slash..]),
                None => (Some(rest), "/"),
            },
            None => (None, ""),
        }
    };
    let Some((host, port)) = target.and_then(|text| authority(text, (!tunnel).then_some(80))) else {
        return reader.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    };
    ticket.requested(Some(&format!("{host}:{port}")), &format!("{} {}", head.method, head.target));
    let server = match upstream.connect(host, port) {
        Ok(server) => server,
        Err(e) => {
            let text = format!("{host}:{port}: {e}\n");
            let answer = format!("HTTP/1.1 502 Bad Gateway\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            return reader.get_mut().write_all(answer.as_bytes());
        }
    };
    if tunnel {
        reader.get_mut().write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    } else {
        (&*server).write_all(rewritten(&head, path).as_bytes())?;
    }
    upstream.relay(&client, reader, &server)
}

/// The head as an origin server wants it, for one request.
fn rewritten(head: &Head, path: &str) -> String {
    let mut out = format!("{} {path} HTTP/1.1\r\n", head.method);
    for line in &head.lines[1..] {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if !name.starts_with("proxy-") && name != "connection" {
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    out.push_str("Connection: close\r\n\r\n");
    out
}
