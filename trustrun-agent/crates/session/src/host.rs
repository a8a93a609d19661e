//! What is known of this host and of who runs the tool.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use nix::unistd::{Uid, User, getuid};
use sha2::{Digest as _, Sha256};
use trustrun_model::{Operator, ToolInfo};

/// The target's resolvers and search list, frozen when the session starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// Addresses; answers come from port 53.
    pub addresses: Vec<IpAddr>,
    /// The search list, lower case, without trailing dots.
    pub search: Vec<String>,
    /// What `/etc/hosts` answers, which no packet shows: as trusted as the resolvers beside it.
    pub hosts: Vec<(IpAddr, String)>,
}

/// Most entries of `/etc/hosts` that are bound.
const MOST_HOSTS: usize = 4096;

impl Resolvers {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`; without a nameserver line resolvers ask 127.0.0.1 (resolv.conf(5)).
    #[must_use]
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&text("/etc/resolv.conf"), &about_host().0, &text("/etc/hosts"))
    }

    /// What these texts of resolv.conf and hosts say. Without a search list the host name's own domain is one
    /// (resolv.conf(5)).
    #[must_use]
    pub fn parse(text: &str, host: &str, hosts_file: &str) -> Self {
        let mut r = Self { hosts: hosts(hosts_file), ..Self::default() };
        r.search.extend(host.split_once('.').map(|(_, domain)| domain.to_ascii_lowercase()));
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (fe80::1%eth0) is not part of the address.
                    let address = words.next().and_then(|w| w.split('%').next()?.parse::<IpAddr>().ok());
                    r.addresses.extend(address);
                }
                Some("search" | "domain") => {
                    r.search = words.map(|w| w.trim_end_matches('.').to_ascii_lowercase()).collect();
                }
                _ => {}
            }
        }
        if r.addresses.is_empty() {
            r.addresses.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        r.addresses.truncate(16);
        r
    }
}

/// The names of a hosts(5) file, lower case, by address.
fn hosts(text: &str) -> Vec<(IpAddr, String)> {
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default());
    let entries = lines.filter_map(|l| {
        let mut words = l.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(words.map(move |name| (address, name.trim_end_matches('.').to_ascii_lowercase())))
    });
    entries.flatten().filter(|(_, name)| !name.is_empty()).take(MOST_HOSTS).collect()
}

/// Whether a name is the machine's own: as it is set, its first label, or that in a domain of the search list.
pub(crate) fn is_own(name: &str, host: &str, search: &[String]) -> bool {
    let (name, host) = (name.trim_end_matches('.').to_ascii_lowercase(), host.to_ascii_lowercase());
    let short = host.split('.').next().unwrap_or_default();
    let (first, domain) = name.split_once('.').map_or((name.as_str(), None), |(first, rest)| (first, Some(rest)));
    !short.is_empty() && (name == host || first == short && domain.is_none_or(|d| search.iter().any(|s| s == d)))
}

/// Host name, boot id and kernel release.
#[must_use]
pub fn about_host() -> (String, String, String) {
    let read = |path: &str| fs::read_to_string(path).map(|s| s.trim().to_owned()).unwrap_or_default();
    (read("/proc/sys/kernel/hostname"), read("/proc/sys/kernel/random/boot_id"), read("/proc/sys/kernel/osrelease"))
}

/// Who ran the tool: the user behind sudo, and the one who logged in.
#[must_use]
pub fn operator() -> Operator {
    let sudo = env::var("SUDO_UID").ok().filter(|_| getuid().is_root()).and_then(|u| u.parse().ok());
    let uid = sudo.unwrap_or_else(|| getuid().as_raw());
    let login_uid = fs::read_to_string("/proc/self/loginuid").ok().and_then(|t| t.trim().parse().ok());
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|u| u.name).unwrap_or_default();
    Operator { uid, login_uid: login_uid.unwrap_or(u32::MAX), name }
}

/// SHA-256 of a file, lower-case hex; empty where it cannot be read. A pipe or a device, which may never end, is none.
pub(crate) fn sha256(path: &str) -> String {
    if !fs::metadata(path).is_ok_and(|m| m.is_file()) {
        return String::new();
    }
    let Ok(mut file) = fs::File::open(path) else { return String::new() };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return hasher.finalize().iter().map(|b| format!("{b:02x}")).collect(),
            Ok(n) => hasher.update(buffer.get(..n).unwrap_or_default()),
            Err(_) => return String::new(),
        }
    }
}

/// This executable. It is read once: it is large, and cannot change while it runs.
pub(crate) fn tool() -> ToolInfo {
    static SHA256: LazyLock<String> = LazyLock::new(|| sha256("/proc/self/exe"));
    ToolInfo { version: env!("CARGO_PKG_VERSION").into(), sha256: SHA256.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_knows_its_own_name() {
        let search = ["lan".to_owned()];
        for own in ["pc7", "PC7.", "pc7.lan", "pc7.ward.example"] {
            assert!(is_own(own, "pc7.ward.example", &search), "{own}");
        }
        for other in ["pc", "pc7.evil.test", "pc7.lan.evil.test", "lan", "ward.example", ""] {
            assert!(!is_own(other, "pc7.ward.example", &search), "{other}");
        }
        assert!(!is_own("", "", &search) && !is_own(".lan", "", &search));
    }

    #[test]
    fn resolvers_are_what_resolv_conf_says() {
        let r = Resolvers::parse(
            "# x\nnameserver 10.0.0.53\nsearch Svc.Cluster.Local. example.org\nnameserver fe80::1%eth0\n",
            "a.b",
            "",
        );
        assert_eq!(r.addresses, ["10.0.0.53".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
        assert_eq!(r.search, ["svc.cluster.local", "example.org"]);
        assert_eq!(Resolvers::parse("", "node1.ward.example", "").search, ["ward.example"]);
        assert_eq!(Resolvers::parse("", "", "").addresses, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }

    #[test]
    fn hosts_are_what_the_hosts_file_says() {
        let ip: IpAddr = "10.0.0.7".parse().unwrap();
        let wanted = [(ip, "fhir.local".to_owned()), (ip, "fhir".to_owned())];
        assert_eq!(hosts("# c\n10.0.0.7\tFHIR.local. fhir # x\nnonsense a\n"), wanted);
    }
}
