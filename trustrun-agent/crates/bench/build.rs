//! Takes the programs that do nothing from where the guard's build script left them.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let built = env::var("DEP_TRUSTRUN_EBPF_NOOP").context("the guard was built without the kernel programs")?;
    println!("cargo:rerun-if-changed={built}");
    fs::copy(&built, PathBuf::from(env::var("OUT_DIR")?).join("noop")).with_context(|| format!("copying {built}"))?;
    Ok(())
}
