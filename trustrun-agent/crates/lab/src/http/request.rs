//! Reading one HTTP/1.1 request (RFC 9112), as far as the lab's clients need.

use std::io::{self, BufRead, Read};

/// No request head is longer.
const LONGEST_HEAD: u64 = 64 * 1024;
/// Bodies are read whole up to this length, and beyond it counted only.
const KEPT_BODY: u64 = 64 * 1024;

/// The head of a request.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: Option<String>,
    pub(crate) length: u64,
    /// Whether the connection ends after this request.
    pub(crate) close: bool,
    pub(crate) expects_continue: bool,
    /// The lines as they came, for a proxy that passes them on.
    pub(crate) lines: Vec<String>,
}

impl Head {
    /// Reads a head. `None` at the end of the connection.
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut reader = reader.take(LONGEST_HEAD);
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return if lines.is_empty() { Ok(None) } else { Err(bad("a request without an end")) };
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let mut words = lines.first().ok_or_else(|| bad("an empty request"))?.split(' ');
        let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
            return Err(bad("a request line that is none"));
        };
        let mut head = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            host: None,
            length: 0,
            close: version == "HTTP/1.0",
            expects_continue: false,
            lines: Vec::new(),
        };
        for line in &lines[1..] {
            let Some((name, value)) = line.split_once(':') else { continue };
            head.header(&name.to_ascii_lowercase(), value.trim());
        }
        head.lines = lines;
        Ok(Some(head))
    }

    fn header(&mut self, name: &str, value: &str) {
        match name {
            "host" => self.host = Some(value.to_owned()),
            "content-length" => self.length = value.parse().unwrap_or(0),
            "connection" if value.eq_ignore_ascii_case("close") => self.close = true,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => self.close = false,
            "expect" => self.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            _ => {}
        }
    }

    /// Reads the body to its end and gives its first part.
    pub(crate) fn read_body(&self, reader: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        reader.take(self.length.min(KEPT_BODY)).read_to_end(&mut body)?;
        io::copy(&mut reader.take(self.length.saturating_sub(KEPT_BODY)), &mut io::sink())?;
        Ok(body)
    }
}
