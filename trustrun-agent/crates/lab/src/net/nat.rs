//! Rewritten addresses (DNAT), as container engines and clusters make them: the one part of the lab that needs a tool,
//! `nft`, because nftables' own messages are many.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;

use super::NetNs;
use crate::error::LabError;

/// What is asked for, and where it really goes; TCP and UDP alike.
pub(crate) type Rewrite = (SocketAddr, SocketAddr);

/// Rewrites what programs in the namespace send, from now on.
pub(crate) fn rewrite(netns: &NetNs, rules: &[Rewrite]) -> Result<(), LabError> {
    let text = rules_text(rules);
    let failed = |reason: String| LabError::Program { command: "nft -f -".into(), reason };
    let output = thread::scope(|scope| {
        let run = || {
            netns.enter()?;
            let mut nft = Command::new("nft");
            nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = nft.spawn()?;
            child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(text.as_bytes()))?;
            child.wait_with_output()
        };
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let output = output.map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

fn rules_text(rules: &[Rewrite]) -> String {
    let mut text = String::from("table inet lab {\n chain out {\n  type nat hook output priority -100;\n");
    for (from, to) in rules {
        let family = if from.is_ipv4() { "ip" } else { "ip6" };
        for protocol in ["tcp", "udp"] {
            let (asked, port) = (from.ip(), from.port());
            let _ = writeln!(text, "  {family} daddr {asked} {protocol} dport {port} dnat {family} to {to};");
        }
    }
    text.push_str(" }\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_and_both_families_are_rewritten() {
        let rule = |from: &str, to: &str| (from.parse().unwrap(), to.parse().unwrap());
        let text = rules_text(&[rule("198.51.100.10:80", "203.0.113.10:8080"), rule("[2001:db8::a]:53", "[::1]:5353")]);
        assert!(text.contains("ip daddr 198.51.100.10 udp dport 80 dnat ip to 203.0.113.10:8080;"), "{text}");
        assert!(text.contains("ip6 daddr 2001:db8::a tcp dport 53 dnat ip6 to [::1]:5353;"), "{text}");
    }
}
