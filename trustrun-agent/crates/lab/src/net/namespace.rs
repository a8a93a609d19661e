//! The network namespace: made by a thread that then ends, kept alive by a descriptor.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use super::rtnetlink::Rtnetlink;
use crate::error::LabError;

/// What `lo` carries.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The address that clients get as their source (IPv4).
    pub(crate) client: Ipv4Addr,
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
    /// IPv6 addresses that programs never get as their source.
    pub(crate) v6_reserved: Vec<Ipv6Addr>,
    /// Ranges of which every address is local.
    pub(crate) ranges: Vec<(Ipv4Addr, u8)>,
    pub(crate) mtu: u32,
}

/// A network namespace of our own.
#[derive(Clone, Debug)]
pub(crate) struct NetNs {
    fd: Arc<OwnedFd>,
    ipv6: bool,
}

impl NetNs {
    /// Makes the namespace and configures it. There is no default route: an address outside the plan is unreachable
    /// at once (ENETUNREACH), never a wait.
    pub(crate) fn create(plan: &Plan) -> Result<Self, LabError> {
        // A thread of its own, because unshare changes the calling thread for good.
        let plan = plan.clone();
        joined(thread::Builder::new().name("lab-netns".into()).spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| refused("network namespace", e))?;
            let fd = File::open("/proc/thread-self/ns/net")
                .map_err(|source| LabError::Namespace { what: "open its network namespace", source })?;
            sysctls();
            let ipv6 = configure(&plan)?;
            Ok(Self { fd: Arc::new(fd.into()), ipv6 })
        }))
    }

    /// Whether IPv6 addresses could be configured: a kernel may be booted without.
    pub(crate) fn ipv6(&self) -> bool {
        self.ipv6
    }

    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Moves the calling thread inside, for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }
}

/// Waits for a helper thread's answer.
pub(super) fn joined<T>(handle: io::Result<thread::JoinHandle<Result<T, LabError>>>) -> Result<T, LabError> {
    let handle = handle.map_err(|source| LabError::Namespace { what: "start a thread", source })?;
    handle.join().unwrap_or_else(|_| {
        Err(LabError::Namespace { what: "finish its set-up", source: io::Error::other("the set-up thread panicked") })
    })
}

pub(super) fn refused(what: &'static str, errno: Errno) -> LabError {
    if errno == Errno::EPERM {
        LabError::NotPermitted { what, source: errno.into() }
    } else {
        LabError::Namespace { what: "make a namespace", source: errno.into() }
    }
}

/// Wishes, not needs: `/proc/sys` may be read-only in a container, and the lab works without them.
fn sysctls() {
    for (key, value) in [
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/lo/disable_ipv6", "0"),
        // Tens of thousands of short connections, whose ports stay in TIME_WAIT.
        ("ipv4/ip_local_port_range", "10240 65535"),
        // TCP fast open on every socket, without cookies: data in the very first packet (ip-sysctl, 0x1|2|4|200|400).
        ("ipv4/tcp_fastopen", "1543"),
        ("ipv4/ping_group_range", "0 2147483647"),
        // Packets that a program makes below the network layer (AF_PACKET) are to arrive, so that tests can see them.
        ("ipv4/conf/all/accept_local", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/lo/rp_filter", "0"),
    ] {
        let _ = fs::write(format!("/proc/sys/net/{key}"), value);
    }
}

fn configure(plan: &Plan) -> Result<bool, LabError> {
    let named = |what: String| move |source| LabError::Network { what, source };
    let mut kernel = Rtnetlink::open().map_err(named("a netlink socket".into()))?;
    kernel.loopback_up(plan.mtu).map_err(named("`lo` itself".into()))?;
    kernel.add_address(plan.client.into()).map_err(named(plan.client.to_string()))?;
    // Local routes rather than addresses, so that clients get `client` as their source as they would on a network:
    // an address of our own as destination would otherwise be chosen as the source too.
    for (address, prefix) in plan.v4.iter().map(|a| (*a, 32)).chain(plan.ranges.iter().copied()) {
        kernel.add_local_route(address, prefix, plan.client).map_err(named(format!("{address}/{prefix}")))?;
    }
    kernel.add_multicast_v4().map_err(named("224.0.0.0/4".into()))?;
    let addresses = plan.v6.iter().map(|a| (a, false)).chain(plan.v6_reserved.iter().map(|a| (a, true)));
    for (address, reserved) in addresses {
        let added = if reserved { kernel.add_deprecated(*address) } else { kernel.add_address((*address).into()) };
        match added {
            Ok(()) => {}
            Err(_) if !fs::exists("/proc/thread-self/net/if_inet6").unwrap_or(false) => return Ok(false),
            Err(source) => return Err(LabError::Network { what: address.to_string(), source }),
        }
    }
    kernel.add_multicast_v6().map_err(named("ff00::/8".into()))?;
    Ok(true)
}
