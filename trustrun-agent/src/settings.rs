//! The settings: which policy applies where none is named, and why.
//!
//! `/etc/trustrun/trustrun.yaml` is the host's, `$XDG_CONFIG_HOME/trustrun/trustrun.yaml` the user's, which goes before it.
//! `./trustrun.yaml` came with the folder that the command runs in, maybe from a stranger: its policy may only tighten.
//! Under root only settings count that root alone could have written.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use trustrun_model::Untrusted;
use trustrun_policy::{Named, Opener, PolicyError, Settings};

use crate::trusted::Counting;

const HOST: &str = "/etc/trustrun/trustrun.yaml";
const FOLDER: &str = "./trustrun.yaml";

/// The policy that applies where none is named.
#[derive(Debug, Default)]
pub(crate) struct Active {
    /// What it is composed of.
    pub(crate) named: Vec<Named>,
    /// What may only tighten it.
    pub(crate) tighten: Vec<Named>,
    /// The environment that the settings name.
    pub(crate) environment: Option<String>,
    /// The settings that name it; none where there is no such policy.
    pub(crate) settings: Option<String>,
    /// Why it is this one, a line for each settings file that is there.
    pub(crate) why: Vec<String>,
}

/// Where settings are looked for.
#[derive(Debug)]
struct Places {
    host: PathBuf,
    user: Option<PathBuf>,
    folder: PathBuf,
}

/// Reads the settings.
///
/// # Errors
/// If settings are no settings, or the host's could have been written by others.
pub(crate) fn active() -> Result<Active, PolicyError> {
    let home = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = home("XDG_CONFIG_HOME").or_else(|| Some(home("HOME")?.join(".config")));
    let user = config.map(|config| config.join("trustrun/trustrun.yaml"));
    Places { host: HOST.into(), user, folder: FOLDER.into() }.active()
}

impl Places {
    fn active(&self) -> Result<Active, PolicyError> {
        let mut active = Active::default();
        let host = read(&self.host, true, &mut active.why)?;
        let user = match &self.user {
            Some(path) => read(path, false, &mut active.why)?.map(|settings| (path, settings)),
            None => None,
        };
        let chosen = [user, host.map(|settings| (&self.host, settings))].into_iter().flatten();
        for (path, settings) in chosen.filter(|(_, settings)| !settings.policy.is_empty()) {
            let shown = Untrusted::new(path.to_string_lossy());
            if active.named.is_empty() {
                active.why.push(format!("{shown} names {}", list(&settings.policy)));
                active.named = settings.policy;
                active.environment = settings.environment;
                active.settings = Some(path.to_string_lossy().into_owned());
            } else {
                active.why.push(format!("{shown} names {}, which does not count beside that", list(&settings.policy)));
            }
        }
        self.folder(&mut active)?;
        if active.settings.is_none() {
            active.why.push("no settings name a policy: without --policy there is none".to_owned());
        }
        Ok(active)
    }

    /// The settings of the folder that the command runs in.
    fn folder(&self, active: &mut Active) -> Result<(), PolicyError> {
        let Some(settings) = read(&self.folder, false, &mut active.why)? else { return Ok(()) };
        let shown = Untrusted::new(self.folder.to_string_lossy()).to_string();
        if settings.environment.is_some() {
            active
                .why
                .push(format!("{shown} names an environment, which does not count: a folder's settings only tighten"));
        }
        if !settings.policy.is_empty() {
            active.why.push(format!("{shown} adds {}, which may only tighten", list(&settings.policy)));
            active.tighten = settings.policy;
            active.settings.get_or_insert(shown);
        }
        Ok(())
    }
}

/// Settings, where there are some that count.
fn read(path: &Path, must_count: bool, why: &mut Vec<String>) -> Result<Option<Settings>, PolicyError> {
    let mut opener = Counting::of_settings();
    match opener.open(path) {
        Ok(opened) => Settings::parse(path, opened.octets, opened.hidden).map(Some),
        Err(PolicyError::Unreadable { source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(PolicyError::NotTaken(reason)) if !must_count => {
            why.push(format!("settings that do not count: {reason}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn list(named: &[Named]) -> String {
    let name = |named: &Named| match named {
        Named::File(path) => Untrusted::new(path.to_string_lossy()).to_string(),
        Named::Preset(name) | Named::Text(name, _) => Untrusted::new(name).to_string(),
    };
    named.iter().map(name).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn places(dir: &Path) -> Places {
        for folder in ["etc", "user", "here"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        Places {
            host: dir.join("etc/trustrun.yaml"),
            user: Some(dir.join("user/trustrun.yaml")),
            folder: dir.join("here/trustrun.yaml"),
        }
    }

    #[test]
    fn the_users_settings_go_before_the_hosts_and_the_folders_only_add() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let none = places.active().unwrap();
        assert!(none.named.is_empty() && none.settings.is_none());
        assert_eq!(none.why, ["no settings name a policy: without --policy there is none"]);
        fs::write(&places.host, "policy: ./host.yaml\nenvironment: prod\n").unwrap();
        let host = places.active().unwrap();
        assert_eq!(host.named, [Named::File(dir.path().join("etc/host.yaml"))]);
        assert_eq!(host.environment.as_deref(), Some("prod"));
        fs::write(places.user.as_ref().unwrap(), "policy: [mine.yaml, /srv/ours.yaml]\n").unwrap();
        fs::write(&places.folder, "policy: theirs.yaml\nenvironment: lax\n").unwrap();
        let all = places.active().unwrap();
        let files = [dir.path().join("user/mine.yaml"), PathBuf::from("/srv/ours.yaml")].map(Named::File);
        assert_eq!(all.named, files);
        assert_eq!(all.tighten, [Named::File(dir.path().join("here/theirs.yaml"))]);
        assert_eq!(all.environment, None, "neither the host's, whose policy it was, nor the folder's");
        assert!(all.why[1].ends_with("host.yaml, which does not count beside that"), "{:?}", all.why);
        assert_eq!(all.why.len(), 4, "{:?}", all.why);
        fs::write(&places.folder, "polcy: x\ndb: /tmp/x\n").unwrap();
        let wrong = places.active().unwrap_err().to_string();
        assert!(
            wrong.contains(":1:1: unknown key `polcy`: wanted one of policy, environment; did you mean `policy`?"),
            "{wrong}"
        );
        assert!(wrong.contains(":2:1: unknown key `db`"), "{wrong}");
    }
}
