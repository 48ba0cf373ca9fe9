//! The tests that run other people's programs over a tunnel, and that are no part of `cargo xtask test` for that reason.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::child;
use crate::progress::Progress;
use crate::tree::Tree;

pub(crate) fn run(tree: &Tree, arguments: &[String]) -> Result<()> {
    let reference = match arguments {
        [] => None,
        [program] => Some(Path::new(program).canonicalize().with_context(|| format!("finding {program}"))?),
        _ => bail!("takes nothing, or the path of the reference's program"),
    };
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(variable, path, _)| std::env::var_os(variable).is_none() && !Path::new(path).exists())
        .map(|(_, _, package)| *package)
        .collect();
    ensure!(
        missing.is_empty(),
        "not everything is here: `apt-get install --no-install-recommends {}`, or say where it is by {}",
        missing.join(" "),
        NEEDED.map(|(variable, ..)| variable).join(", ")
    );
    let mut progress = Progress::of(1);
    progress.step("OpenSSH, PostgreSQL, Redis and a remote desktop over a tunnel", || {
        // The whole workspace, because that builds the program as well.
        let mut command = tree.cargo();
        command.args(["test", "--locked", "--workspace", "--test", "e2e", "--", "--ignored", "programs::"]);
        if let Some(program) = reference {
            command.env("ADIT_REFERENCE_CLIENT", program);
        }
        child::stream(&mut command, "")
    })?;
    progress.finish("every program was served");
    Ok(())
}

/// Where a program is looked for, and the package of Debian that has it.
const NEEDED: [(&str, &str, &str); 4] = [
    ("ADIT_SSHD", "/usr/sbin/sshd", "openssh-server"),
    ("ADIT_POSTGRES", "/usr/lib/postgresql/15/bin", "postgresql-15"),
    ("ADIT_REDIS", "/usr/bin/redis-server", "redis-server"),
    ("ADIT_XRDP", "/usr/sbin/xrdp", "xrdp"),
];
