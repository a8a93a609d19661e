//! What can be chosen about a lab before it starts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::defaults;
use crate::dns::{Entry, Zone};
use crate::error::LabError;
use crate::lab::Lab;
use crate::net::Rewrite;

/// Choices for a lab. All have the defaults of the standard lab.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    pub(crate) zone: Zone,
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
    pub(crate) resolvers: Vec<IpAddr>,
    pub(crate) named: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
    pub(crate) mtu: u32,
    pub(crate) rewrites: Vec<Rewrite>,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self {
            zone: Zone::standard(),
            v4: defaults::addresses_v4(),
            v6: defaults::addresses_v6(),
            resolvers: defaults::resolvers(),
            named: vec![defaults::RESOLVER.into(), defaults::RESOLVER_TWO.into()],
            search: Vec::new(),
            options: vec!["timeout:2".into(), "attempts:2".into()],
            mtu: 1500,
            rewrites: Vec::new(),
        }
    }
}

impl LabBuilder {
    /// Adds or replaces a name. Its addresses are not made local by that: see [`LabBuilder::address`].
    #[must_use]
    pub fn name(mut self, name: &str, entry: Entry) -> Self {
        self.zone.set(name, entry);
        self
    }

    /// Takes another zone altogether.
    #[must_use]
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// Makes an address local, so that all servers are reachable there. Documentation ranges are the right ones.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) if !self.v4.contains(&address) => self.v4.push(address),
            IpAddr::V6(address) if !self.v6.contains(&address) => self.v6.push(address),
            _ => {}
        }
        self
    }

    /// The resolvers that resolv.conf names, in this order. The lab answers on all three of its own in any case.
    #[must_use]
    pub fn resolvers(mut self, resolvers: &[IpAddr]) -> Self {
        for resolver in resolvers {
            if !resolver.is_loopback() {
                self = self.address(*resolver);
            }
            if !self.resolvers.contains(resolver) {
                self.resolvers.push(*resolver);
            }
        }
        self.named = resolvers.to_vec();
        self
    }

    /// The search list of resolv.conf.
    #[must_use]
    pub fn search(mut self, domains: &[&str]) -> Self {
        self.search = domains.iter().map(|&domain| domain.to_owned()).collect();
        self
    }

    /// An option of resolv.conf, such as `ndots:5`.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// The MTU of the network: 1500 unless told. `lo` itself would have 65536.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// What programs send to `from`, over TCP and UDP, arrives at `to` (DNAT): a container's resolver, a cluster's
    /// service. A resolver that is rewritten answers at `to` and not at `from`. Needs the program `nft` and a kernel
    /// with NAT.
    #[must_use]
    pub fn rewrite(mut self, from: SocketAddr, to: SocketAddr) -> Self {
        for address in [from.ip(), to.ip()].into_iter().filter(|a| !a.is_loopback()) {
            self = self.address(address);
        }
        self.rewrites.push((from, to));
        self
    }

    /// Where name servers listen.
    pub(crate) fn name_servers(&self) -> Vec<SocketAddr> {
        let asked = self.resolvers.iter().map(|ip| SocketAddr::new(*ip, defaults::DNS_PORT));
        asked.map(|a| self.rewrites.iter().find(|(from, _)| *from == a).map_or(a, |(_, to)| *to)).collect()
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// [`LabError::is_permission`] when the caller is not root; else what could not be set up.
    pub fn start(self) -> Result<Lab, LabError> {
        Lab::from_builder(self)
    }

    pub(crate) fn resolv_conf(&self) -> String {
        let mut text: String = self.named.iter().map(|resolver| format!("nameserver {resolver}\n")).collect();
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}
