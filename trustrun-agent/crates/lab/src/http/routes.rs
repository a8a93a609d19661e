//! What a path answers.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::request::Head;
use crate::dns::{Dns, Transport};
use crate::service::Stop;

/// `/bytes/N` gives at most this much.
const MOST_BYTES: u64 = 16 << 30;
/// `/slow` waits so long, `/slow/MS` as it says, at most [`SLOWEST`].
const SLOW: Duration = Duration::from_secs(1);
const SLOWEST: Duration = Duration::from_secs(60);
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The one web site that every name of the lab shows.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) dns: Dns,
    pub(crate) www: PathBuf,
    pub(crate) stop: Arc<Stop>,
}

/// An answer, before it is written.
pub(crate) struct Response {
    status: &'static str,
    kind: &'static str,
    location: Option<String>,
    body: Body,
}

enum Body {
    Bytes(Vec<u8>),
    Zeros(u64),
    File(File, u64),
}

impl Response {
    fn text(status: &'static str, text: String) -> Self {
        Self { status, kind: "text/plain", location: None, body: Body::Bytes(text.into_bytes()) }
    }

    pub(super) fn write(self, out: &mut impl Write, request: &Head) -> io::Result<()> {
        let length = match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Zeros(length) | Body::File(_, length) => *length,
        };
        let mut head = format!(
            "HTTP/1.1 {}\r\nServer: trustrun-lab\r\nContent-Type: {}\r\nContent-Length: {length}\r\n",
            self.status, self.kind
        );
        if let Some(location) = &self.location {
            head.push_str(&format!("Location: {location}\r\n"));
        }
        head.push_str(if request.close { "Connection: close\r\n\r\n" } else { "Connection: keep-alive\r\n\r\n" });
        let mut first = head.into_bytes();
        if request.method == "HEAD" {
            return out.write_all(&first);
        }
        match self.body {
            Body::Bytes(bytes) => {
                // One write, so that a small answer is one packet.
                first.extend(bytes);
                out.write_all(&first)?;
            }
            Body::Zeros(mut left) => {
                out.write_all(&first)?;
                while left > 0 {
                    let part = left.min(ZEROS.len() as u64) as usize;
                    out.write_all(&ZEROS[..part])?;
                    left -= part as u64;
                }
            }
            Body::File(file, length) => {
                out.write_all(&first)?;
                io::copy(&mut file.take(length), out)?;
            }
        }
        out.flush()
    }
}

impl Site {
    pub(super) fn respond(
        &self,
        scheme: &str,
        (peer, local): (SocketAddr, SocketAddr),
        head: &Head,
        body: Vec<u8>,
    ) -> Response {
        let path = head.target.split(['?', '#']).next().unwrap_or_default();
        let host = head.host.as_deref().unwrap_or("nobody");
        if path == "/dns-query" && head.method == "POST" {
            return match self.dns.answer(&body, Transport::Https, peer, local) {
                Some(answer) => Response {
                    status: "200 OK",
                    kind: "application/dns-message",
                    location: None,
                    body: Body::Bytes(answer),
                },
                None => Response::text("400 Bad Request", "not a query\n".into()),
            };
        }
        if !matches!(head.method.as_str(), "GET" | "HEAD") {
            return Response::text("200 OK", format!("received {} bytes\n", head.length));
        }
        let mut words = path.trim_start_matches('/').splitn(2, '/');
        match (words.next().unwrap_or_default(), words.next()) {
            ("", _) => Response::text("200 OK", format!("hello from {host}\n")),
            ("bytes", Some(count)) => match count.parse::<u64>() {
                Ok(count) if count <= MOST_BYTES => Response {
                    status: "200 OK",
                    kind: "application/octet-stream",
                    location: None,
                    body: Body::Zeros(count),
                },
                _ => Response::text("400 Bad Request", "how many bytes?\n".into()),
            },
            ("slow", time) => {
                let time = time.and_then(|ms| ms.parse().ok()).map_or(SLOW, Duration::from_millis);
                self.stop.sleep(time.min(SLOWEST));
                Response::text("200 OK", format!("slowly, {host}\n"))
            }
            ("redirect", Some(to)) => Response {
                location: Some(format!("{scheme}://{to}/")),
                ..Response::text("302 Found", format!("go to {to}\n"))
            },
            _ => self.file(path).unwrap_or_else(|| Response::text("404 Not Found", "nothing here\n".into())),
        }
    }

    fn file(&self, path: &str) -> Option<Response> {
        let path = Path::new(path.trim_start_matches('/'));
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return None;
        }
        let path = self.www.join(path);
        let length = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.len();
        let file = File::open(path).ok()?;
        Some(Response {
            status: "200 OK",
            kind: "application/octet-stream",
            location: None,
            body: Body::File(file, length),
        })
    }
}
