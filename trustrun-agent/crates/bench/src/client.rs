//! The measured program: takes one order a line, does it, and answers with numbers. It runs alone, under programs
//! that do nothing, and under trustrun; what it does is the same.

use std::{
    fs,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    libc::linger,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt::Linger},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use crate::cpu;

/// How it is started.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// Stay on this processor.
    #[arg(long)]
    cpu: Option<usize>,
    /// Enter this cgroup first.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Believe this authority.
    #[arg(long)]
    ca: Option<PathBuf>,
}

/// Bytes of a datagram.
pub(crate) const DATAGRAM: usize = 64;

struct Client {
    inbox: UdpSocket,
    /// Somebody's inbox, connected to once.
    out: Option<(SocketAddr, UdpSocket)>,
    own: TcpListener,
    tls: Option<Arc<ClientConfig>>,
    cpu: Option<usize>,
}

/// Serves orders until stdin ends.
pub(crate) fn serve(args: &ClientArgs) -> Result<()> {
    if let Some(cgroup) = &args.cgroup {
        fs::write(cgroup.join("cgroup.procs"), "0").context("entering the cgroup")?;
    }
    if let Some(cpu) = args.cpu {
        cpu::stay_on(cpu)?;
    }
    let inbox = UdpSocket::bind("127.0.0.1:0")?;
    inbox.set_nonblocking(true)?;
    let tls = args.ca.as_ref().map(tls).transpose()?;
    let mut client = Client { inbox, out: None, own: TcpListener::bind("127.0.0.1:0")?, tls, cpu: args.cpu };
    let mut out = io::stdout();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answer = client.obey(&line).with_context(|| format!("the order {line:?}"))?;
        let words: Vec<String> = answer.iter().map(ToString::to_string).collect();
        writeln!(out, "{}", words.join(" "))?;
        out.flush()?;
    }
    Ok(())
}

impl Client {
    fn obey(&mut self, line: &str) -> Result<Vec<u64>> {
        let words: Vec<&str> = line.split(' ').collect();
        Ok(match words.as_slice() {
            ["port"] => vec![self.inbox.local_addr()?.port().into()],
            ["pid"] => vec![std::process::id().into()],
            ["connect", to, n] => connects(v4(to)?, n.parse()?, None)?,
            ["connect-own", n] => {
                let SocketAddr::V4(to) = self.own.local_addr()? else { bail!("not IPv4") };
                connects(to, n.parse()?, Some(&self.own))?
            }
            ["send", to, n] => vec![self.sends(to.parse()?, n.parse()?)?],
            ["sendto", to, n] => vec![self.sends_to(to.parse()?, n.parse()?)?],
            ["drain"] => vec![self.drain()],
            ["get", to, bytes] => vec![transfer(to.parse()?, b'g', bytes.parse()?)?],
            ["put", to, bytes] => vec![transfer(to.parse()?, b'p', bytes.parse()?)?],
            ["https", host, n] => vec![self.https(host, n.parse()?, true)?],
            ["https-kept", host, n] => vec![self.https(host, n.parse()?, false)?],
            ["storm", ports, seconds] => {
                let ports = ports.split(',').map(str::parse).collect::<Result<Vec<u16>, _>>()?;
                vec![storm(&ports, Duration::from_secs(seconds.parse()?), self.cpu.is_none())?]
            }
            _ => bail!("unknown"),
        })
    }

    /// Nanoseconds of a send(2) on a connected socket: the mean of `n`.
    fn sends(&mut self, to: SocketAddr, n: u64) -> Result<u64> {
        let socket = match self.out.take() {
            Some((known, socket)) if known == to => socket,
            _ => {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect(to)?;
                socket
            }
        };
        let begun = Instant::now();
        for _ in 0..n {
            socket.send(&[0; DATAGRAM])?;
        }
        let took = begun.elapsed();
        self.out = Some((to, socket));
        Ok(nanoseconds(took) / n)
    }

    /// Nanoseconds of a sendto(2) on a socket that is not connected: the mean of `n`.
    fn sends_to(&self, to: SocketAddr, n: u64) -> Result<u64> {
        let begun = Instant::now();
        for _ in 0..n {
            self.inbox.send_to(&[0; DATAGRAM], to)?;
        }
        Ok(nanoseconds(begun.elapsed()) / n)
    }

    /// Empties the inbox; how many datagrams there were.
    fn drain(&self) -> u64 {
        let mut n = 0;
        while self.inbox.recv(&mut [0; DATAGRAM]).is_ok() {
            n += 1;
        }
        n
    }

    /// Nanoseconds for `n` small requests, each on a connection of its own or all on one.
    fn https(&self, host: &str, n: u64, fresh: bool) -> Result<u64> {
        let config = self.tls.as_ref().context("no authority to believe")?;
        let begun = Instant::now();
        let to = (host, 443).to_socket_addrs()?.find(SocketAddr::is_ipv4).context("no IPv4 address")?;
        let name = ServerName::try_from(host.to_owned())?;
        let mut kept = None;
        for _ in 0..n {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => {
                    let tcp = TcpStream::connect(to)?;
                    tcp.set_nodelay(true)?;
                    StreamOwned::new(ClientConnection::new(Arc::clone(config), name.clone())?, tcp)
                }
            };
            request(&mut stream, host, fresh)?;
            if !fresh {
                kept = Some(stream);
            }
        }
        Ok(nanoseconds(begun.elapsed()))
    }
}

fn request(stream: &mut StreamOwned<ClientConnection, TcpStream>, host: &str, last: bool) -> Result<()> {
    let connection = if last { "close" } else { "keep-alive" };
    let head = format!("GET /bytes/100 HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::with_capacity(1024);
    let mut part = [0; 1024];
    loop {
        let n = stream.read(&mut part)?;
        answer.extend_from_slice(part.get(..n).unwrap_or_default());
        let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| answer.len() - at - 4);
        if body == Some(100) {
            break;
        }
        if n == 0 {
            bail!("the answer broke off");
        }
    }
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        bail!("the server did not like it: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

fn tls(ca: &PathBuf) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Each connection makes a whole handshake, as those of separate programs do.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Nanoseconds of a connect(2), and of socket, connect and close together: the means of `n`. They end with a reset:
/// sockets in TIME_WAIT would use up the ports. `own` is our own listener, to be kept empty.
fn connects(to: SocketAddrV4, n: u64, own: Option<&TcpListener>) -> Result<Vec<u64>> {
    let to = SockaddrIn::from(to);
    let (mut connecting, mut all) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..n {
        let begun = Instant::now();
        let fd = tcp_socket()?;
        let ready = begun.elapsed();
        connect(fd.as_raw_fd(), &to)?;
        connecting += begun.elapsed() - ready;
        drop(fd);
        all += begun.elapsed();
        if let Some(own) = own {
            drop(own.accept()?);
        }
    }
    Ok(vec![nanoseconds(connecting) / n, nanoseconds(all) / n])
}

fn tcp_socket() -> Result<OwnedFd> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, Linger, &linger { l_onoff: 1, l_linger: 0 })?;
    Ok(fd)
}

/// Connects as fast as one thread for each processor can; how many.
fn storm(ports: &[u16], time: Duration, pin: bool) -> Result<u64> {
    let end = Instant::now() + time;
    let one = |thread: usize| -> Result<u64> {
        if pin {
            cpu::stay_on(thread)?;
        }
        let mut n = 0;
        for port in ports.iter().cycle().skip(thread) {
            if Instant::now() >= end {
                break;
            }
            let fd = tcp_socket()?;
            connect(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port)))?;
            n += 1;
        }
        Ok(n)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cpu::count()).map(|i| scope.spawn(move || one(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).sum()
    })
}

/// Nanoseconds to get or put so many bytes.
fn transfer(to: SocketAddr, what: u8, bytes: u64) -> Result<u64> {
    let mut stream = TcpStream::connect(to)?;
    let mut order = vec![what];
    order.extend(bytes.to_be_bytes());
    let begun = Instant::now();
    stream.write_all(&order)?;
    let mut buffer = vec![0; 256 << 10];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let n = if what == b'g' { stream.read(part)? } else { stream.write(part)? };
        if n == 0 {
            bail!("the transfer broke off");
        }
        left -= n as u64;
    }
    if what == b'p' {
        stream.read_exact(&mut [0])?;
    }
    Ok(nanoseconds(begun.elapsed()))
}

fn v4(text: &str) -> Result<SocketAddrV4> {
    Ok(text.parse()?)
}

fn nanoseconds(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
