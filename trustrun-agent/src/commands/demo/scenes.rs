//! What is shown: the network, the policy, and three commands with what is announced about each.

use std::net::{IpAddr, Ipv4Addr};

use trustrun_lab::{EVIL, Entry, HOSPITAL, Lab, LabBuilder, PROXY, TRACKER};
use trustrun_model::{Report, Verdict};

use super::client::{Client, SCRIPT_FILE};

/// The one policy.
pub(super) const POLICY_FILE: &str = "hospital.yaml";
pub(super) const POLICY: &str = "\
version: 1
name: hospital
default: block                              # whatever no rule allows is refused
rules:
  - name: patient records
    allow: [\"fhir.hospital.test\"]
  - name: the hospital's web proxy
    allow: [\"proxy.hospital.test:3128\"]
";

/// A name of the lab's that no agreement covers.
const MODEL: &str = "api.llm.test";
/// What the FHIR server answers.
pub(super) const RECORD: (&str, &str) =
    ("Patient/17", "{\"resourceType\": \"Patient\", \"id\": \"17\", \"name\": \"(made up)\"}\n");

/// The network of the demo.
pub(super) fn network() -> LabBuilder {
    Lab::builder()
        .name("fhir.hospital.test", Entry::new().a(HOSPITAL))
        .name("proxy.hospital.test", Entry::new().a(PROXY))
        .name(MODEL, Entry::new().a(EVIL))
}

/// One command.
pub(super) struct Scene {
    pub(super) number: u8,
    pub(super) title: &'static str,
    pub(super) prose: &'static str,
    pub(super) urls: &'static [&'static str],
    pub(super) proxy: Option<&'static str>,
    pub(super) announced: Verdict,
    /// What the report must say besides; else what is missing.
    pub(super) reasons: fn(&Report) -> Result<(), &'static str>,
    /// Servers that must have been reached, and those that must not, with a word for each.
    pub(super) reached: (&'static str, Ipv4Addr),
    pub(super) untouched: &'static [(&'static str, Ipv4Addr)],
}

const NOT_ALLOWED: &[(&str, Ipv4Addr)] = &[(MODEL, EVIL), ("the tracker", TRACKER)];

/// What is said before anything happens.
pub(super) fn opening(client: Client) -> String {
    let with = match client {
        Client::Curl => "curl, as installed on this machine".to_owned(),
        Client::Python3 => format!("Python, as installed on this machine, with a small script ({SCRIPT_FILE})"),
        Client::Own => "a small client of TrustRun's own, over plain HTTP".to_owned(),
    };
    format!(
        "TrustRun answers one question: does this program talk only to whom it may?

Three real commands follow, each under the same policy. They run in a small network that was made
for this demo inside this machine and has no way out: a hospital's server for patient records and
its web proxy, a public language model that nobody has an agreement with, and a tracker.
The requests are made by {with}.

The policy, {POLICY_FILE}:
"
    )
}

/// The three, in order.
pub(super) fn all() -> [Scene; 3] {
    [
        Scene {
            number: 1,
            title: "A job that keeps to the policy: expect PASS",
            prose: "A nightly job fetches a patient record from the hospital's own server. The policy allows that, so\n\
nothing stands in its way. PASS means: there was a policy, nothing outside it was tried, and\n\
nothing was missed.",
            urls: &["https://fhir.hospital.test/Patient/17"],
            proxy: None,
            announced: Verdict::Pass,
            reasons: |report| {
                let seen = report.destinations.iter().any(|d| d.host.as_deref() == Some("fhir.hospital.test"));
                if seen { Ok(()) } else { Err("the report does not name fhir.hospital.test") }
            },
            reached: ("fhir.hospital.test", HOSPITAL),
            untouched: NOT_ALLOWED,
        },
        Scene {
            number: 2,
            title: "A job that also calls others: expect FAIL",
            prose: "The same job after an update. Now it also turns to a public language model, and a library in it\n\
reports to a tracker by its bare address. Neither is in the policy. The kernel refuses both before\n\
a byte leaves, the rest of the job goes on, and FAIL names what was tried, by which program, and\n\
what to do if it was meant.",
            urls: &[
                "https://fhir.hospital.test/Patient/17",
                "https://api.llm.test/v1/chat",
                "http://203.0.113.67/collect",
            ],
            proxy: None,
            announced: Verdict::Fail,
            reasons: |report| {
                let model = report.violations.iter().any(|v| v.host.as_deref() == Some(MODEL) && v.action.refuses());
                let tracker = IpAddr::from(TRACKER);
                let tracker = report.violations.iter().any(|v| v.address == Some(tracker) && v.action.refuses());
                match (model, tracker) {
                    (true, true) => Ok(()),
                    (false, _) => Err("the report names no refused lookup of api.llm.test"),
                    (_, false) => Err("the report names no refused connection to 203.0.113.67"),
                }
            },
            reached: ("fhir.hospital.test", HOSPITAL),
            untouched: NOT_ALLOWED,
        },
        Scene {
            number: 3,
            title: "A job that cannot be judged: expect INCOMPLETE",
            prose: "This time the record is fetched through the hospital's web proxy, which the policy allows. But a\n\
connection to such a proxy can carry requests for anyone, and only the first one is read. Nothing\n\
wrong was seen, and still TrustRun does not say PASS: it says INCOMPLETE, and what it cannot see.",
            urls: &["http://fhir.hospital.test/Patient/17"],
            proxy: Some("http://proxy.hospital.test:3128"),
            announced: Verdict::Incomplete,
            reasons: |report| {
                let hidden = report.gaps.iter().any(|gap| gap.kind == "proxy-hides-destination");
                if hidden { Ok(()) } else { Err("the report has no gap proxy-hides-destination") }
            },
            reached: ("the proxy", PROXY),
            untouched: NOT_ALLOWED,
        },
    ]
}
