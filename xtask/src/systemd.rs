//! Finds `systemd-analyze`, which judges units without running them: the machine's own, or Debian's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::child;
use crate::progress::note;
use crate::tree::Tree;
use crate::wasm::apt::Apt;

/// Nothing, and a word about it, where it cannot be had: then `cargo xtask test` fails at the test that wants it.
pub(crate) fn provide(tree: &Tree) -> Result<Option<PathBuf>> {
    if child::is_there(PROGRAM) {
        note(format!("the installed {PROGRAM}"));
        return Ok(Some(PathBuf::from(PROGRAM)));
    }
    match from_debian(tree) {
        Ok(program) => {
            note(format!("Debian's {PROGRAM}, in {}", tree.short(&program)));
            Ok(Some(program))
        }
        Err(error) => {
            note(format!("SKIPPED: there is no {PROGRAM} here, so no unit is judged ({error:#})"));
            Ok(None)
        }
    }
}

/// Unpacked with its libraries below target/tools; it is started by the C library that came along.
fn from_debian(tree: &Tree) -> Result<PathBuf> {
    let folder = tree.target("tools/systemd");
    let starter = folder.join(PROGRAM);
    if starter.is_file() {
        return Ok(starter);
    }
    let apt = Apt::of(&folder.join("apt"), SUITE)?;
    apt.download(&apt.closure(&["systemd"])?)?;
    let root = folder.join("root");
    apt.unpack(&root)?;
    apt.forget();
    // Debian is between /lib and /usr/lib; both are looked into.
    let script = format!(
        "#!/bin/sh\nroot='{}'\nfor lib in usr/lib lib; do for at in \"$root/$lib\"/*-linux-gnu*; do\n\
         paths=\"$paths:$at:$at/systemd\"; done; done\n\
         for loader in \"$root\"/lib/*-linux-gnu*/ld-linux* \"$root\"/usr/lib/*-linux-gnu*/ld-linux*; do\n\
         [ -e \"$loader\" ] && exec \"$loader\" --library-path \"$paths:$root/usr/lib/systemd:$root/lib/systemd\" \"$root/usr/bin/{PROGRAM}\" \"$@\"\n\
         done\necho 'no loader was unpacked' >&2; exit 1\n",
        root.display()
    );
    fs::write(&starter, script).with_context(|| format!("writing {}", starter.display()))?;
    fs::set_permissions(&starter, fs::Permissions::from_mode(0o755))?;
    child::capture(Command::new(&starter).arg("--version"), child::SHORT, "")
        .inspect_err(|_| drop(fs::remove_file(&starter)))?;
    Ok(starter)
}

const PROGRAM: &str = "systemd-analyze";
const SUITE: &str = "bookworm";
