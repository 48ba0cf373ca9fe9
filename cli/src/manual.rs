//! `adit completions` and `adit man`: what the command line itself knows, for shells and for man.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Arguments, Failure};

/// Prints completions for a shell.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "adit", &mut text);
    crate::table::print(&String::from_utf8_lossy(&text));
    Ok(())
}

/// Writes a page for each command to `folder`.
pub(crate) fn pages(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let pages = clap_mangen::generate_to(Arguments::command(), folder);
    Ok(pages.with_context(|| format!("writing to {}", folder.display()))?)
}
