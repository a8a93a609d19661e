//! A git repository that the lab's web server can serve: the "dumb" protocol is files and nothing else.

use std::path::Path;
use std::process::Command;

use crate::error::LabError;

/// Makes `www/NAME` a bare repository with one commit, which holds `README.md`.
pub(crate) fn publish(www: &Path, name: &str) -> Result<(), LabError> {
    let bare = www.join(name);
    let work = www.join(format!(".{name}.work"));
    let (bare_arg, work_arg) = (bare.to_string_lossy(), work.to_string_lossy());
    git(www, &["init", "--quiet", "--initial-branch=main", &work_arg])?;
    let readme = work.join("README.md");
    std::fs::write(&readme, "A repository of the lab.\n").map_err(|source| LabError::File {
        what: "write",
        path: readme,
        source,
    })?;
    git(&work, &["add", "README.md"])?;
    git(&work, &["commit", "--quiet", "-m", "Say what this is"])?;
    git(www, &["clone", "--quiet", "--bare", &work_arg, &bare_arg])?;
    git(&bare, &["update-server-info"])?;
    std::fs::remove_dir_all(&work).map_err(|source| LabError::File { what: "remove", path: work, source })
}

fn git(folder: &Path, arguments: &[&str]) -> Result<(), LabError> {
    let failed = |reason: String| LabError::Program { command: format!("git {}", arguments.join(" ")), reason };
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "Lab"), ("GIT_AUTHOR_EMAIL", "lab@allowed.test")])
        .envs([("GIT_COMMITTER_NAME", "Lab"), ("GIT_COMMITTER_EMAIL", "lab@allowed.test")])
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
