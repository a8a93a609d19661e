//! Every preset that comes with trustrun: it is what it says, it allows what it should, and refuses what only looks so.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute alone, and helpers have none")]

use std::{collections::BTreeMap, net::IpAddr};

use jiff::civil::{Date, date};
use trustrun_model::{Action, Protocol};
use trustrun_policy::{Composer, Kind, Matcher, Named, NoFiles, Policy, Preset, presets};

const TODAY: Date = date(2026, 11, 21);

/// Every preset; a new one has a row in `DECISIONS` too.
const NAMES: [&str; 27] = [
    "allow/aws-sign-in",
    "allow/azure-sign-in",
    "allow/google-sign-in",
    "allow/local",
    "allow/os-updates",
    "allow/package-registries",
    "baa/aws-bedrock",
    "baa/aws-bedrock-any-tenant",
    "baa/aws-comprehend-medical",
    "baa/aws-comprehend-medical-any-tenant",
    "baa/aws-foundations",
    "baa/aws-foundations-any-tenant",
    "baa/aws-healthlake",
    "baa/aws-healthlake-any-tenant",
    "baa/azure-ai",
    "baa/azure-ai-any-tenant",
    "baa/azure-health-data",
    "baa/azure-health-data-any-tenant",
    "baa/azure-openai",
    "baa/azure-openai-any-tenant",
    "baa/google-healthcare",
    "baa/google-healthcare-any-tenant",
    "baa/google-vertex",
    "baa/google-vertex-any-tenant",
    "deny/public-llm",
    "deny/telemetry",
    "deny/trackers",
];

/// Made-up values for every parameter that a preset has.
const VALUES: [(&str, &str); 6] = [
    ("resource", "contoso-phi"),
    ("region", "us-east-1"),
    ("endpoint", "vpce-0a1b2c3d-x9y8"),
    ("workspace", "contosows"),
    ("service", "records"),
    ("bucket", "contoso-phi-data"),
];

fn value(name: &str) -> &'static str {
    VALUES.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no made-up value for {name}")).1
}

/// A policy that extends one preset, with made-up parameters.
fn compose(preset: &Preset, default: &str, values: &BTreeMap<&str, &str>) -> Policy {
    let list: Vec<String> = values.iter().map(|(name, value)| format!("{name}: \"{value}\"")).collect();
    let text = format!(
        "version: 1\ndefault: {default}\nextends:\n  - preset: {}\n    parameters: {{{}}}\n",
        preset.name,
        list.join(", ")
    );
    let named = [Named::Text("test".into(), text.into_bytes())];
    Composer::new(&mut NoFiles, TODAY).compose(&named).unwrap_or_else(|error| panic!("{}: {error}", preset.name))
}

fn with_values(preset: &Preset, default: &str) -> Policy {
    let parameters = preset.describe().unwrap().parameters;
    compose(preset, default, &parameters.iter().map(|p| (&*p.name, value(&p.name))).collect())
}

fn preset(name: &str) -> &'static Preset {
    presets().iter().find(|preset| preset.name == name).unwrap_or_else(|| panic!("no preset {name}"))
}

/// `name`, `name@address` or `address`, with a port where it is not 443.
fn decide(matcher: &Matcher, destination: &str) -> Action {
    let (destination, port) = match destination.rsplit_once(" port ") {
        Some((destination, port)) => (destination, port.parse().unwrap()),
        None => (destination, 443),
    };
    let (host, address) = match destination.split_once('@') {
        Some((host, address)) => (Some(host), Some(address.parse::<IpAddr>().unwrap())),
        None => match destination.parse() {
            Ok(address) => (None, Some(address)),
            Err(_) => (Some(destination), None),
        },
    };
    matcher.decide(host, address, port, Protocol::Tcp).action
}

/// Preset, what it is to let through (deny presets: refuse or report), and what it is not to speak about.
const DECISIONS: &[(&str, &[&str], &[&str])] = &[
    (
        "baa/azure-openai",
        &[
            "contoso-phi.openai.azure.com",
            "contoso-phi.openai.azure.com@10.1.2.3",
            "contoso-phi.services.ai.azure.com",
            "contoso-phi.cognitiveservices.azure.com",
            "contoso-phi.openai.azure.us",
        ],
        &[
            "evil.openai.azure.com",
            "contoso-phi.openai.azure.com.evil.test",
            "x.contoso-phi.openai.azure.com",
            "contoso-phi-openai.azure.com",
            "openai.azure.com",
            "contoso-phi.openai.azure.com port 80",
            "10.1.2.3",
        ],
    ),
    (
        "baa/azure-openai-any-tenant",
        &["evil.openai.azure.com", "a.services.ai.azure.com", "a.openai.azure.us"],
        &[
            "openai.azure.com.evil.test",
            "x.openai.azure.com.evil.test",
            "evilopenai.azure.com",
            "a.blob.core.windows.net",
            "openai.azure.com",
        ],
    ),
    (
        "baa/azure-ai",
        &["contoso-phi.cognitiveservices.azure.com", "contoso-phi.services.ai.azure.com"],
        &["evil.cognitiveservices.azure.com", "eastus.api.cognitive.microsoft.com", "eastus.stt.speech.microsoft.com"],
    ),
    (
        "baa/azure-ai-any-tenant",
        &["evil.cognitiveservices.azure.com", "eastus.api.cognitive.microsoft.com", "eastus.stt.speech.microsoft.com"],
        &["speech.microsoft.com", "a.microsoft.com", "eastus.api.cognitive.microsoft.com.evil.test"],
    ),
    (
        "baa/azure-health-data",
        &[
            "contosows-records.fhir.azurehealthcareapis.com",
            "contosows-records.dicom.azurehealthcareapis.com@10.0.0.9",
            "contosows.workspace.azurehealthcareapis.com",
        ],
        &[
            "evil-records.fhir.azurehealthcareapis.com",
            "contosows-other.fhir.azurehealthcareapis.com",
            "a.api.deid.azure.com",
        ],
    ),
    (
        "baa/azure-health-data-any-tenant",
        &["evil-records.fhir.azurehealthcareapis.com", "a.api.deid.azure.com"],
        &["azurehealthcareapis.com", "fhir.azurehealthcareapis.com.evil.test", "a.azure.com"],
    ),
    (
        "baa/aws-bedrock",
        &[
            "bedrock-runtime.us-east-1.amazonaws.com@10.1.2.3",
            "bedrock-runtime-fips.us-east-1.amazonaws.com@10.1.2.3",
            "bedrock-runtime.us-east-1.api.aws@10.1.2.3",
            "vpce-0a1b2c3d-x9y8.bedrock-runtime.us-east-1.vpce.amazonaws.com@10.1.2.3",
        ],
        &[
            "bedrock-runtime.us-east-1.amazonaws.com",
            "bedrock-runtime.us-east-1.amazonaws.com@52.94.1.1",
            "bedrock-runtime.us-west-2.amazonaws.com@10.1.2.3",
            "vpce-0ffffffff-evil.bedrock-runtime.us-east-1.vpce.amazonaws.com@10.1.2.3",
            "bedrock-mantle.us-east-1.api.aws@10.1.2.3",
            "aws-external-anthropic.us-east-1.api.aws@10.1.2.3",
            "bedrock-runtime.us-east-1.amazonaws.com.cn@10.1.2.3",
        ],
    ),
    (
        "baa/aws-bedrock-any-tenant",
        &[
            "bedrock-runtime.us-east-1.amazonaws.com",
            "bedrock-runtime-fips.us-east-1.amazonaws.com",
            "bedrock-agent-runtime.us-east-1.api.aws",
            "bedrock-data-automation-runtime-fips.us-east-1.api.aws",
        ],
        &[
            "bedrock-runtime.us-west-2.amazonaws.com",
            "s3.us-east-1.amazonaws.com",
            "bedrock-mantle.us-east-1.api.aws",
            "x.bedrock-runtime.us-east-1.amazonaws.com",
            "bedrock-runtime.us-east-1.amazonaws.com.evil.test",
        ],
    ),
    (
        "baa/aws-healthlake",
        &["healthlake.us-east-1.amazonaws.com@10.1.2.3", "runtime-medical-imaging.us-east-1.amazonaws.com@10.1.2.3"],
        &["healthlake.us-east-1.amazonaws.com", "healthlake.eu-west-1.amazonaws.com@10.1.2.3"],
    ),
    (
        "baa/aws-healthlake-any-tenant",
        &["healthlake.us-east-1.amazonaws.com", "dicom-medical-imaging.us-east-1.amazonaws.com"],
        &["healthlake.eu-west-1.amazonaws.com", "healthlake.us-east-1.amazonaws.com.evil.test"],
    ),
    (
        "baa/aws-comprehend-medical",
        &[
            "comprehendmedical.us-east-1.amazonaws.com@10.1.2.3",
            "transcribestreaming-fips.us-east-1.amazonaws.com@10.1.2.3",
        ],
        &["comprehendmedical.us-east-1.amazonaws.com", "comprehend.us-east-1.amazonaws.com@10.1.2.3"],
    ),
    (
        "baa/aws-comprehend-medical-any-tenant",
        &[
            "comprehendmedical.us-east-1.amazonaws.com",
            "fips.transcribe.us-east-1.amazonaws.com",
            "textract.us-east-1.api.aws",
        ],
        &["comprehend.us-east-1.amazonaws.com", "comprehendmedical.us-west-2.amazonaws.com"],
    ),
    (
        "baa/aws-foundations",
        &[
            "contoso-phi-data.s3.us-east-1.amazonaws.com",
            "contoso-phi-data.s3-fips.dualstack.us-east-1.amazonaws.com",
            "contoso-phi-data.bucket.vpce-0a1b2c3d-x9y8.s3.us-east-1.vpce.amazonaws.com@10.1.2.3",
            "kms.us-east-1.amazonaws.com@10.1.2.3",
        ],
        &[
            "evil.s3.us-east-1.amazonaws.com",
            "contoso-phi-data.s3.us-west-2.amazonaws.com",
            "s3.us-east-1.amazonaws.com",
            "contoso-phi-data.s3.amazonaws.com",
            "kms.us-east-1.amazonaws.com",
        ],
    ),
    (
        "baa/aws-foundations-any-tenant",
        &["evil.s3.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com", "kms-fips.us-east-1.amazonaws.com"],
        &["evil.s3.us-west-2.amazonaws.com", "evil.s3.amazonaws.com", "ec2.us-east-1.amazonaws.com"],
    ),
    (
        "baa/google-vertex",
        &[
            "us-east-1-aiplatform.googleapis.com@10.1.2.3",
            "aiplatform.googleapis.com@10.1.2.3",
            "aiplatform-vpce-0a1b2c3d-x9y8.p.googleapis.com@10.1.2.3",
        ],
        &[
            "us-east-1-aiplatform.googleapis.com",
            "us-east-1-aiplatform.googleapis.com@199.36.153.4",
            "europe-west1-aiplatform.googleapis.com@10.1.2.3",
            "aiplatform-evil.p.googleapis.com@10.1.2.3",
            "storage.googleapis.com@10.1.2.3",
        ],
    ),
    (
        "baa/google-vertex-any-tenant",
        &["aiplatform.googleapis.com", "us-east-1-aiplatform.mtls.googleapis.com", "aiplatform.eu.rep.googleapis.com"],
        &["generativelanguage.googleapis.com", "storage.googleapis.com", "aiplatform.googleapis.com.evil.test"],
    ),
    (
        "baa/google-healthcare",
        &["healthcare.googleapis.com@10.1.2.3", "healthcare-vpce-0a1b2c3d-x9y8.p.googleapis.com@10.1.2.3"],
        &["healthcare.googleapis.com", "healthcare-evil.p.googleapis.com@10.1.2.3"],
    ),
    (
        "baa/google-healthcare-any-tenant",
        &["healthcare.googleapis.com", "healthcare.mtls.googleapis.com"],
        &["x.healthcare.googleapis.com", "healthcare.googleapis.com.evil.test"],
    ),
    (
        "allow/azure-sign-in",
        &["login.microsoftonline.com", "169.254.169.254 port 80"],
        &[
            "x.login.microsoftonline.com",
            "login.microsoftonline.com.evil.test",
            "169.254.169.254",
            "169.254.169.253 port 80",
        ],
    ),
    (
        "allow/aws-sign-in",
        &[
            "sts.us-east-1.amazonaws.com",
            "sts.us-east-1.amazonaws.com@10.1.2.3",
            "sts.amazonaws.com",
            "169.254.170.2 port 80",
        ],
        &["sts.us-west-2.amazonaws.com", "iam.amazonaws.com"],
    ),
    (
        "allow/google-sign-in",
        &["oauth2.googleapis.com", "metadata.google.internal@169.254.169.254 port 80"],
        &["storage.googleapis.com", "accounts.google.com.evil.test"],
    ),
    (
        "allow/os-updates",
        &["deb.debian.org port 80", "us.archive.ubuntu.com port 80", "dl.fedoraproject.org", "cdn.redhat.com"],
        &["ubuntu.com", "ppa.launchpad.net", "deb.debian.org.evil.test port 80", "deb.debian.org port 22"],
    ),
    (
        "allow/package-registries",
        &["pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "static.crates.io", "cloud.r-project.org"],
        &["upload.pypi.org", "test.pypi.org", "pypi.org.evil.test", "pypi.org port 80"],
    ),
    (
        "allow/local",
        &["127.0.0.1", "127.0.0.53 port 5432", "::1 port 5432", "localhost@127.0.0.1 port 8080"],
        &["10.0.0.1", "192.168.1.1", "localhost.evil.test", "fe80::1"],
    ),
    (
        "deny/public-llm",
        &["api.openai.com", "us.api.openai.com", "api.anthropic.com", "openrouter.ai", "a.endpoints.huggingface.cloud"],
        &["contoso.openai.azure.com", "huggingface.co", "aiplatform.googleapis.com", "api.openai.com.evil.test"],
    ),
    (
        "deny/telemetry",
        &[
            "api.smith.langchain.com",
            "api.wandb.ai",
            "us.i.posthog.com",
            "telemetry.crewai.com port 4319",
            "o1.ingest.sentry.io",
        ],
        &["huggingface.co", "raw.githubusercontent.com", "posthog.com"],
    ),
    (
        "deny/trackers",
        &[
            "graph.facebook.com",
            "www.google-analytics.com",
            "region1.google-analytics.com",
            "api.segment.io",
            "events.eu1.segmentapis.com",
            "business-api.tiktok.com",
            "api-eu.mixpanel.com",
            "api2.amplitude.com",
        ],
        &["facebook.com.evil.test", "google.com", "microsoft.com"],
    ),
];

#[test]
fn every_preset_says_what_it_is_from_where_and_since_when() {
    let names: Vec<&str> = presets().iter().map(|preset| preset.name).collect();
    assert_eq!(names, NAMES);
    for preset in presets() {
        let described = preset.describe().unwrap_or_else(|| panic!("{} is no preset", preset.name));
        let head = &described.head;
        assert!(preset.text.contains(&format!("\nname: {}\n", preset.name)), "{} has another name", preset.name);
        let kind = match head.kind {
            Kind::Baa => "baa",
            Kind::Deny => "deny",
            Kind::Allow => "allow",
        };
        assert_eq!(preset.name.split_once('/').unwrap().0, kind);
        assert!(described.description.is_some_and(|text| !text.is_empty()), "{}", preset.name);
        assert!(!head.source.is_empty(), "{}: no source", preset.name);
        assert!(head.checked_on.is_some_and(|day| day <= TODAY && day >= date(2026, 1, 1)), "{}", preset.name);
        assert!(head.disclaimer.as_ref().is_some_and(|text| text.len() > 40), "{}", preset.name);
        if head.kind == Kind::Baa {
            assert_eq!(head.tenant, !preset.name.ends_with("-any-tenant"), "{}", preset.name);
            assert!(!head.tenant || !described.parameters.is_empty(), "{}: what tells the tenant?", preset.name);
        }
        assert!(described.parameters.iter().all(|p| p.description.is_some()), "{}", preset.name);
        assert!(preset.text.lines().all(|line| line.trim_end() == line), "{}", preset.name);
    }
}

#[test]
fn every_preset_decides_as_its_names_promise_and_refuses_near_misses() {
    let rows: Vec<&str> = DECISIONS.iter().map(|(name, ..)| *name).collect();
    assert!(NAMES.iter().all(|name| rows.contains(name)) && rows.len() == NAMES.len(), "{rows:?}");
    for (name, speaks, silent) in DECISIONS {
        let preset = preset(name);
        let (default, wanted) = match *name {
            "deny/telemetry" => ("allow", Action::Alert),
            name if name.starts_with("deny/") => ("allow", Action::Block),
            _ => ("block", Action::Allow),
        };
        let policy = with_values(preset, default);
        let matcher = policy.compile();
        for destination in *speaks {
            assert_eq!(decide(&matcher, destination), wanted, "{name}: {destination}");
        }
        for destination in *silent {
            assert_eq!(decide(&matcher, destination).as_str(), default, "{name}: {destination}");
        }
        policy.tables().unwrap();
    }
}

#[test]
fn a_required_parameter_has_to_be_given_and_is_one_label() {
    for preset in presets() {
        let parameters = preset.describe().unwrap().parameters;
        for parameter in parameters.iter().filter(|p| p.default.is_none()) {
            for wrong in ["a.evil", "*", "", "a b"] {
                let values: Vec<String> = parameters
                    .iter()
                    .map(|p| (p, if p.name == parameter.name { wrong } else { value(&p.name) }))
                    .map(|(p, value)| format!("{}: \"{value}\"", p.name))
                    .collect();
                let text = format!(
                    "version: 1\ndefault: block\nextends:\n  - preset: {}\n    parameters: {{{}}}\n",
                    preset.name,
                    values.join(", ")
                );
                let named = [Named::Text("test".into(), text.into_bytes())];
                let composed = Composer::new(&mut NoFiles, TODAY).compose(&named);
                assert!(composed.is_err(), "{}: {} = {wrong:?}", preset.name, parameter.name);
            }
            let text = format!("version: 1\ndefault: block\nextends: [{}]\n", preset.name);
            let named = [Named::Text("test".into(), text.into_bytes())];
            let error = Composer::new(&mut NoFiles, TODAY).compose(&named).unwrap_err().to_string();
            assert!(error.contains(&format!("the parameter `{}`", parameter.name)), "{error}");
        }
    }
}

/// Zones below which strangers have names of their own: a wildcard on one of them lets data out to anybody.
const SHARED: [&str; 16] = [
    "amazonaws.com",
    "us-east-1.amazonaws.com",
    "vpce.amazonaws.com",
    "api.aws",
    "azure.com",
    "azure.us",
    "windows.net",
    "core.windows.net",
    "blob.core.windows.net",
    "microsoft.com",
    "googleapis.com",
    "p.googleapis.com",
    "google.com",
    "s3.amazonaws.com",
    "githubusercontent.com",
    "cloudfront.net",
];

/// Wildcards that presets of the kinds `allow` and `baa` may have: whose names those are was looked at.
const REVIEWED: [&str; 18] = [
    "*.openai.azure.com",
    "*.openai.azure.us",
    "*.services.ai.azure.com",
    "*.cognitiveservices.azure.com",
    "*.cognitiveservices.azure.us",
    "*.api.cognitive.microsoft.com",
    "*.stt.speech.microsoft.com",
    "*.tts.speech.microsoft.com",
    "*.voice.speech.microsoft.com",
    "*.convai.speech.microsoft.com",
    "*.fhir.azurehealthcareapis.com",
    "*.dicom.azurehealthcareapis.com",
    "*.workspace.azurehealthcareapis.com",
    "*.deid.azure.com",
    "*.s3.us-east-1.amazonaws.com",
    "*.s3-fips.us-east-1.amazonaws.com",
    "*.s3.dualstack.us-east-1.amazonaws.com",
    "*.s3-fips.dualstack.us-east-1.amazonaws.com",
];

#[test]
fn no_preset_allows_more_than_its_form_says() {
    for preset in presets() {
        let head = preset.describe().unwrap().head;
        for (action, pattern) in with_values(preset, "block").rules.iter().flat_map(|rule| &rule.patterns) {
            let text = pattern.to_string();
            let Some(below) = text.split(':').next().filter(|t| t.starts_with("*.")) else { continue };
            if *action != Action::Allow {
                continue;
            }
            assert!(!(head.kind == Kind::Baa && head.tenant), "{}: {text} in a tenant form", preset.name);
            assert!(!SHARED.iter().any(|shared| below == format!("*.{shared}")), "{}: {text}", preset.name);
            let own = below == "*.archive.ubuntu.com";
            assert!(own || REVIEWED.contains(&below), "{}: {text} was not looked at", preset.name);
        }
    }
}

#[test]
fn telemetry_is_let_through_and_comes_with_its_off_switch() {
    let policy = with_values(preset("deny/telemetry"), "block");
    for rule in &policy.rules {
        assert!(rule.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "{}", rule.name);
        assert!(rule.patterns.iter().all(|(action, _)| *action == Action::Alert), "{}", rule.name);
    }
}

#[test]
fn all_presets_together_are_one_policy_and_deny_wins() {
    let every: Vec<String> = NAMES.iter().map(|name| format!("  - {name}\n")).collect();
    let parameters: Vec<String> = VALUES.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let text =
        format!("version: 1\ndefault: block\nparameters: {{{}}}\nextends:\n{}", parameters.join(", "), every.concat());
    let named = [Named::Text("test".into(), text.into_bytes())];
    let policy = Composer::new(&mut NoFiles, TODAY).compose(&named).unwrap_or_else(|error| panic!("{error}"));
    let matcher = policy.compile();
    assert_eq!(decide(&matcher, "www.google-analytics.com"), Action::Block, "trackers over telemetry's alert");
    assert_eq!(decide(&matcher, "evil.openai.azure.com"), Action::Allow, "the provider form is wide");
    assert!(policy.rules.iter().any(|rule| rule.baa.as_ref().is_some_and(|baa| baa.tenant)));
    policy.tables().unwrap();
}
