//! What to type after the demo: exact commands for this machine.

use std::{
    env,
    path::{Path, PathBuf},
};

use trustrun_model::Untrusted;

use super::client::Client;
use crate::caller;

/// How to call this program from here.
pub(super) fn program() -> String {
    let Ok(exe) = env::current_exe() else { return "trustrun".into() };
    let on_path = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("trustrun"))
        .find(|found| found.is_file())
        .and_then(|found| found.canonicalize().ok());
    if on_path.as_deref() == Some(&exe) {
        return "trustrun".into();
    }
    let near = env::current_dir().ok().and_then(|here| exe.strip_prefix(here).ok().map(Path::to_owned));
    quoted(&near.unwrap_or(exe).to_string_lossy())
}

/// The checkout that this program was built in, where that is where we are.
fn in_checkout() -> bool {
    let root = env::current_exe().ok().and_then(|exe| Some(exe.ancestors().nth(3)?.to_owned()));
    root.is_some_and(|root: PathBuf| {
        root.join("xtask/Cargo.toml").is_file() && env::current_dir().is_ok_and(|here| here.starts_with(&root))
    })
}

pub(super) fn commands(program: &str, client: Client, database: &Path, kept: Option<&Path>) -> String {
    let sudo = if caller::behind_sudo().is_some() { "sudo " } else { "" };
    let run = if in_checkout() { "cargo xtask run".into() } else { format!("{sudo}{program} run") };
    let (example, db) = (client.try_this(), quoted(&database.to_string_lossy()));
    let kept = kept.map_or_else(String::new, |folder| {
        format!("The policy and the reports are in {}.\n", Untrusted::new(folder.to_string_lossy()))
    });
    format!(
        "{kept}Look again at what was stored, all of it:

  {sudo}{program} session list --db {db}
  {sudo}{program} session show last --db {db}

Then a program of your own. Watch it, which refuses nothing; have a policy written from what it did,
and read that; then hold it to the policy:

  {run} -- {example}
  {run} --learn policy.yaml -- {example}
  {run} --policy policy.yaml -- {example}

All options: {program} run --help"
    )
}

/// As a shell reads it back.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    if text.chars().all(plain) {
        return text.into();
    }
    format!("'{}'", Untrusted::new(text).to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_split_it() {
        assert_eq!(quoted("target/release/trustrun"), "target/release/trustrun");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
