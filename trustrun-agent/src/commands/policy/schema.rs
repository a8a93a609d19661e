//! `trustrun policy schema`

use std::process::ExitCode;

use trustrun_policy::SCHEMA;

use super::{ToolError, output};

pub(super) fn run() -> Result<ExitCode, ToolError> {
    output::write(SCHEMA)?;
    Ok(ExitCode::SUCCESS)
}
