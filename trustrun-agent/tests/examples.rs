//! The policies in `policies/examples/` are what they say they are: the real binary accepts each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jiff::civil::date;
use trustrun_model::{Action, Protocol};
use trustrun_policy::{AnyFile, Composer, Named, Policy};

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/examples");
    let mut found: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    found.sort();
    found
}

fn compose(file: &Path) -> Policy {
    let named = [Named::File(file.to_owned())];
    Composer::new(&mut AnyFile, date(2026, 11, 21)).compose(&named).expect("checked above")
}

fn check(files: &[PathBuf]) -> Output {
    let mut trustrun = Command::new(env!("CARGO_BIN_EXE_trustrun"));
    trustrun.args(["policy", "check"]).args(files).output().expect("trustrun starts")
}

#[test]
fn every_example_is_a_policy_that_refuses_what_it_does_not_name() {
    let files = examples();
    assert_eq!(files.len(), 5, "REDCap, FHIR, notebook, R and CI: {files:?}");
    let checked = check(&files);
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert_eq!(text.lines().count(), files.len(), "{text}");
    assert!(text.lines().all(|line| line.ends_with("default block, enforcing")), "{text}");
}

#[test]
fn every_example_fits_the_kernels_tables_and_is_named_as_its_file() {
    for file in examples() {
        let policy = compose(&file);
        assert_eq!(file.file_stem().and_then(|stem| stem.to_str()), Some(policy.name.as_str()));
        policy.tables().expect("tables");
    }
}

#[test]
fn the_examples_decide_as_their_comments_say() {
    let decide = |name: &str, host: &str| {
        let file = examples().into_iter().find(|file| file.ends_with(name)).expect("the example");
        let compiled = compose(&file).compile();
        compiled.decide(Some(host), None, 443, Protocol::Tcp).action
    };
    for (file, host, action) in [
        ("notebook.yaml", "contoso-phi.openai.azure.com", Action::Allow),
        ("notebook.yaml", "api.openai.com", Action::Kill),
        ("notebook.yaml", "example.com", Action::Block),
        ("notebook.yaml", "other.openai.azure.com", Action::Block),
        ("notebook.yaml", "api.wandb.ai", Action::Alert),
        ("redcap.yaml", "redcap.example.edu", Action::Allow),
        ("redcap.yaml", "graph.facebook.com", Action::Block),
        ("fhir-server.yaml", "sso.example.org", Action::Allow),
        ("fhir-server.yaml", "example.com", Action::Block),
        ("r-analysis.yaml", "cran.r-project.org", Action::Allow),
        ("r-analysis.yaml", "pypi.org", Action::Block),
        ("ci-job.yaml", "pypi.org", Action::Allow),
        ("ci-job.yaml", "objects.githubusercontent.com", Action::Alert),
        ("ci-job.yaml", "api.openai.com", Action::Block),
    ] {
        assert_eq!(decide(file, host), action, "{file}: {host}");
    }
}
