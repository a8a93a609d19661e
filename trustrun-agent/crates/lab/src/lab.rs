//! The lab itself: everything started, and everything ended when it is dropped.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::arrivals::{Arrival, Arrivals, Service};
use crate::builder::LabBuilder;
use crate::defaults::{
    CLIENT, ECHO_PORT, FRESH_RANGE, HTTP_PORTS, HTTP_PROXY_PORT, HTTPS_PORTS, PROXY, SOCKS_PROXY_PORT, TCP_SINK_PORTS,
    UDP_SINK_PORTS,
};
use crate::dns::Dns;
use crate::error::LabError;
use crate::git;
use crate::http::{self, Authority, Site};
use crate::net::{EtcFiles, Identity, MountNs, NetNs, Plan, enter_before_exec, rewrite};
use crate::proxy::{self, Upstream};
use crate::service::{Conn, EndOfPool, PROBE, PROBE_V6, Pool, echo, serve_tcp, serve_udp, sink};
use crate::support::wait_until;

/// Variables that would lead a program past the lab, or out of it.
const UNWANTED: [&str; 16] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "CURL_HOME",
    "RES_OPTIONS",
    "LOCALDOMAIN",
    "GIT_SSL_NO_VERIFY",
    "NODE_TLS_REJECT_UNAUTHORIZED",
];

/// A running lab. Dropping it ends every server and gives the network back.
pub struct Lab {
    // Fields are dropped in this order: first the threads, then the files that they serve.
    end: EndOfPool,
    netns: NetNs,
    mounts: MountNs,
    files: EtcFiles,
    dns: Dns,
    arrivals: Arrivals,
    www: PathBuf,
    folder: tempfile::TempDir,
}

impl Lab {
    /// Starts the standard lab.
    ///
    /// # Errors
    ///
    /// As [`LabBuilder::start`].
    pub fn start() -> Result<Self, LabError> {
        LabBuilder::default().start()
    }

    /// Starts with choices.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    pub(crate) fn from_builder(builder: LabBuilder) -> Result<Self, LabError> {
        let resolv_conf = builder.resolv_conf();
        let name_servers = builder.name_servers();
        let plan = Plan {
            client: CLIENT,
            v4: builder.v4.iter().copied().chain([PROBE]).collect(),
            v6: builder.v6.clone(),
            v6_reserved: vec![PROBE_V6],
            ranges: vec![FRESH_RANGE],
            mtu: builder.mtu,
        };
        let netns = NetNs::create(&plan)?;
        if !builder.rewrites.is_empty() {
            rewrite(&netns, &builder.rewrites)?;
        }
        let addresses: Vec<IpAddr> =
            builder.v4.iter().map(|a| IpAddr::from(*a)).chain(builder.v6.iter().map(|a| IpAddr::from(*a))).collect();
        let authority = Authority::create(&addresses)?;
        let folder = lab_folder()?;
        let files = EtcFiles::write(folder.path(), &resolv_conf, authority.pem())?;
        let mounts = MountNs::create(&files)?;
        let www = folder.path().join("www");
        fs::create_dir(&www).map_err(|source| LabError::File { what: "make", path: www.clone(), source })?;
        let dns = Dns::new(builder.zone);
        let lab = Self {
            end: EndOfPool(Arc::new(Pool::new(netns.clone()))),
            netns,
            mounts,
            files,
            dns,
            arrivals: Arrivals::default(),
            www,
            folder,
        };
        lab.serve(&name_servers, authority)?;
        Ok(lab)
    }

    fn serve(&self, name_servers: &[SocketAddr], authority: Authority) -> Result<(), LabError> {
        let pool = &self.end.0;
        for address in name_servers.iter().filter(|address| address.is_ipv4() || self.netns.ipv6()) {
            self.dns.serve(pool, &self.netns, *address)?;
        }
        let site = Site { dns: self.dns.clone(), www: self.www.clone(), stop: pool.stop() };
        let authority = Arc::new(authority);
        for port in HTTP_PORTS {
            let site = site.clone();
            self.everywhere("HTTP", port, Service::Http, move |conn| http::serve_clear(conn, &site))?;
        }
        for port in HTTPS_PORTS {
            let (site, authority) = (site.clone(), Arc::clone(&authority));
            self.everywhere("HTTPS", port, Service::Https, move |conn| http::serve_tls(conn, &site, &authority))?;
        }
        self.everywhere("echo", ECHO_PORT, Service::TcpEcho, echo)?;
        for port in TCP_SINK_PORTS {
            self.everywhere("sink", port, Service::TcpSink, sink)?;
        }
        for any in self.wildcards() {
            serve_udp(pool, &self.netns, SocketAddr::new(any, ECHO_PORT), (Service::UdpEcho, &self.arrivals))?;
            for port in UDP_SINK_PORTS {
                serve_udp(pool, &self.netns, SocketAddr::new(any, port), (Service::UdpSink, &self.arrivals))?;
            }
        }
        let upstream = Upstream { dns: self.dns.clone(), stop: pool.stop() };
        let address = SocketAddr::new(PROXY.into(), HTTP_PROXY_PORT);
        let way_out = upstream.clone();
        serve_tcp(pool, &self.netns, ("HTTP proxy", address), (Service::HttpProxy, &self.arrivals), move |conn| {
            proxy::serve_http(conn, &way_out);
        })?;
        let address = SocketAddr::new(PROXY.into(), SOCKS_PROXY_PORT);
        serve_tcp(pool, &self.netns, ("SOCKS proxy", address), (Service::SocksProxy, &self.arrivals), move |conn| {
            proxy::serve_socks(conn, &upstream);
        })
    }

    /// Serves a port on every address, over IPv4 and IPv6.
    fn everywhere(
        &self,
        what: &'static str,
        port: u16,
        service: Service,
        serve: impl Fn(Conn) + Clone + Send + Sync + 'static,
    ) -> Result<(), LabError> {
        for any in self.wildcards() {
            let address = SocketAddr::new(any, port);
            serve_tcp(&self.end.0, &self.netns, (what, address), (service, &self.arrivals), serve.clone())?;
        }
        Ok(())
    }

    fn wildcards(&self) -> Vec<IpAddr> {
        let mut list = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        list.extend(self.netns.ipv6().then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        list
    }

    /// A command that will run inside the lab: its network, its resolv.conf, its certificates in the environment,
    /// and no proxy variables of the caller. Set its identity with [`Lab::command_as`]; `Command::uid` acts too early.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.prepared(program.as_ref(), None)
    }

    /// The same, as another user (without supplementary groups).
    pub fn command_as(&self, uid: u32, gid: u32, program: impl AsRef<OsStr>) -> Command {
        self.prepared(program.as_ref(), Some(Identity { uid, gid }))
    }

    fn prepared(&self, program: &OsStr, identity: Option<Identity>) -> Command {
        let mut command = Command::new(program);
        for name in UNWANTED {
            command.env_remove(name);
        }
        command.envs(self.env());
        enter_before_exec(&mut command, self.netns.fd(), self.mounts.fd(), identity);
        command
    }

    /// Runs `work` on a thread inside the lab, and gives its result: for clients written in Rust.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started or cannot enter. A panic of `work` goes on in the caller.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("lab-inside".into()).spawn_scoped(scope, || {
                self.netns.enter()?;
                self.mounts.enter()?;
                Ok(work())
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The environment that makes curl, Python, Node and git trust the lab's certificates, and no others.
    #[must_use]
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let ca = self.ca().to_string_lossy().into_owned();
        let stores = ["CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"];
        stores.into_iter().map(|name| (name, ca.clone())).chain([("GIT_TERMINAL_PROMPT", "0".to_owned())]).collect()
    }

    /// The certificate of the lab's authority, in PEM.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.files.ca()
    }

    /// The name server: what it was asked, and its zone.
    #[must_use]
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// What arrived at the servers since the start, or since it was last cleared. Name servers have a log of their own.
    #[must_use]
    pub fn arrived(&self) -> Vec<Arrival> {
        self.arrivals.snapshot()
    }

    /// Waits until the logs hold everything that programs sent before this call: no connection or datagram is left in
    /// a queue, and every connection is over. False when that takes longer than `deadline` (a client that is still
    /// there keeps its connection). Call it before saying that nothing arrived.
    pub fn settle(&self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        let probes = self.end.0.probes();
        let through = self.inside(|| probes.run(deadline)).and_then(|done| done);
        through.unwrap_or(false)
            && wait_until(end.saturating_duration_since(Instant::now()), || self.arrivals.all_closed())
    }

    /// Arrivals that found the log full, and are only counted.
    #[must_use]
    pub fn arrivals_lost(&self) -> u64 {
        self.arrivals.lost()
    }

    /// What arrived at one address.
    #[must_use]
    pub fn arrived_at(&self, address: impl Into<IpAddr>) -> Vec<Arrival> {
        let address = address.into();
        self.arrived().into_iter().filter(|arrival| arrival.local.ip() == address).collect()
    }

    /// Forgets what arrived and what was asked.
    pub fn clear(&self) {
        self.arrivals.clear();
        self.dns.clear();
    }

    /// Rewrites the resolv.conf that programs in the lab see from now on.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn set_resolv_conf(&self, text: &str) -> io::Result<()> {
        self.files.set_resolv_conf(text)
    }

    /// Files put here are served by every web server.
    #[must_use]
    pub fn www(&self) -> &Path {
        &self.www
    }

    /// A folder of the lab for a test's own files, readable by every user and gone with the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a git repository with one commit on the web servers: `git clone https://api.allowed.test/NAME`.
    ///
    /// # Errors
    ///
    /// When git is missing or fails.
    pub fn publish_git(&self, name: &str) -> Result<(), LabError> {
        git::publish(&self.www, name)
    }

    /// Whether the lab has IPv6: a kernel may be without.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.netns.ipv6()
    }
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab").field("folder", &self.folder.path()).field("netns", &self.netns).finish_non_exhaustive()
    }
}

/// A folder that programs of any user may read.
fn lab_folder() -> Result<tempfile::TempDir, LabError> {
    let denied = |source| LabError::File { what: "make a folder in", path: std::env::temp_dir(), source };
    let folder = tempfile::Builder::new().prefix("trustrun-lab-").tempdir().map_err(denied)?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(denied)?;
    Ok(folder)
}
