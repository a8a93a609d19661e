//! The reports of earlier sessions: from the events database, or from files.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use trustrun_model::{Report, Untrusted};
use trustrun_store::{Reader, readable_path};

use super::ToolError;
use crate::caller;

/// Largest report file that is read.
const MAX_BYTES: u64 = 256 << 20;

/// A report: a file of that name, else a session of the database.
pub(super) fn report(name: &str, db: Option<&PathBuf>) -> Result<Report, ToolError> {
    let path = Path::new(name);
    if path.is_file() {
        let failed = |source| ToolError::File { what: "cannot read", path: path.into(), source };
        let file = caller::as_caller(|| File::open(path)).map_err(failed)?;
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        return parse(name, &text);
    }
    let db = db.cloned().unwrap_or_else(|| readable_path().path);
    let reader = Reader::open(&db)?;
    let session = reader.session(name)?;
    let text = reader.report(&session.id)?;
    let text = text.ok_or(ToolError::NoReport { id: session.id.clone(), why: session.state.explain() })?;
    parse(&session.id, &text)
}

fn parse(what: &str, text: &str) -> Result<Report, ToolError> {
    let what = || Untrusted::new(what).to_string();
    serde_json::from_str(text).map_err(|source| ToolError::NotAReport { what: what(), source })
}
