//! Where things are in the source tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The source tree that this run works on.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree that holds this crate. Cargo says where it is now; the place where it was compiled
    /// may have moved since.
    pub(crate) fn find() -> Result<Self> {
        let here = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root =
            here.join("..").canonicalize().with_context(|| format!("finding {}/..", here.display()))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Below target/, which is this tree's own whatever the user's settings say: the tests look for
    /// the binary and the plugins there.
    pub(crate) fn target(&self, below: &str) -> PathBuf {
        self.root.join("target").join(below)
    }

    /// `path` as a person in the root of the tree would write it.
    pub(crate) fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// Cargo on the product's own workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = self.any_cargo();
        command.env("CARGO_TARGET_DIR", self.target(""));
        command
    }

    /// Cargo on the workspace of the plugins, which is built for another machine and by another
    /// compiler, hence in a folder of its own.
    pub(crate) fn plugins_cargo(&self, subcommand: &str) -> Command {
        let mut command = self.any_cargo();
        command.arg(subcommand).arg("--manifest-path").arg(self.root.join("plugins/Cargo.toml"));
        command.env("CARGO_TARGET_DIR", self.target("plugins-build"));
        command
    }

    fn any_cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        // What is built once and thrown away is built faster without notes for the next time.
        if std::env::var_os("CI").is_some() {
            command.env("CARGO_INCREMENTAL", "0");
        }
        command
    }
}
