//! `trustrun demo-fetch`: fetches over plain HTTP, so that the demo also works where there is neither curl nor Python.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    process::ExitCode,
    time::Duration,
};

use clap::Args;

/// Of one connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most of an answer that is read.
const MOST: u64 = 1 << 20;

/// Fetch URLs over plain HTTP (a part of the demo).
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Through this proxy.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// What to fetch.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
}

/// Fetches each; 1 if one failed.
pub(crate) fn run(args: &FetchArgs) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for url in &args.urls {
        let fetched = fetch(url, args.proxy.as_deref()).and_then(|body| io::stdout().write_all(&body));
        if let Err(e) = fetched {
            eprintln!("demo-fetch: {}: {e}", trustrun_model::Untrusted::new(url));
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn fetch(url: &str, proxy: Option<&str>) -> io::Result<Vec<u8>> {
    let (host, port, path) = parts(url)?;
    let (to, target) = match proxy {
        Some(proxy) => {
            let (host, port, _) = parts(proxy)?;
            // RFC 9112 section 3.2.2: a proxy is asked for the whole URL.
            ((host, port), url.to_owned())
        }
        None => ((host, port), format!("/{path}")),
    };
    // Names are looked up by getaddrinfo(3), as in any other program.
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In one write, as clients do: `write!` on a socket would send each part of it by itself.
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(answer.split_off(head + 4))
}

/// Host, port and path of `http://HOST[:PORT]/PATH`.
fn parts(url: &str) -> io::Result<(&str, u16, &str)> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, "wanted http://HOST[:PORT]/PATH");
    let rest = url.strip_prefix("http://").ok_or_else(bad)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    match authority.split_once(':') {
        Some((host, port)) => Ok((host, port.parse().map_err(|_| bad())?, path)),
        None => Ok((authority, 80, path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_host_port_and_path() {
        assert_eq!(parts("http://a.test:3128").unwrap(), ("a.test", 3128, ""));
        assert_eq!(parts("http://a.test/b/c").unwrap(), ("a.test", 80, "b/c"));
        assert!(parts("https://a.test/").is_err() && parts("http://a.test:x/").is_err());
    }
}
