//! A disk of its own that is small, may be read-only and may be full, seen only by what runs on it. Needs Linux and
//! the right to make namespaces; where it is missing, whoever wants a disk is told so and goes without.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::Process;

/// It is gone when dropped; what runs on it should be gone before.
pub struct Disk {
    folder: PathBuf,
    /// Has its folders to itself as long as it lives.
    holder: Process,
}

impl Disk {
    /// In place of `folder`, with so many KiB. `None` where the machine forbids it, which is [a skip](crate::skip).
    pub async fn at(folder: &Path, kib: u32) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("the folder of a test can be written to");
        let allowed = Command::new("unshare").args(SPACE).arg("true").stderr(Stdio::null()).status();
        if !allowed.is_ok_and(|status| status.success()) {
            crate::skip("this machine allows no mount namespaces");
            return None;
        }
        let mut holder = Command::new("unshare");
        holder.args(SPACE).args(["sh", "-c", HOLDER, "sh", &format!("size={kib}k,mode=700")]).arg(folder);
        let holder = Process::start("disk", holder);
        holder.printed("mounted").await;
        Some(Self { folder: folder.to_owned(), holder })
    }

    /// A program that sees it, in the folder around it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.holder.id().to_string();
        command.args(["--target", &target, "--user", "--mount", "--preserve-credentials"]);
        // Who enters is at the root.
        command.args(["sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "sh"]);
        command.arg(self.folder.parent().expect("a folder in a folder")).arg(program);
        command
    }

    pub fn set_writable(&self, is_writable: bool) {
        let option = if is_writable { "remount,rw" } else { "remount,ro" };
        self.run("mount", &["-o", option], &self.folder);
    }

    /// Nothing more fits, until [`Disk::empty`].
    pub fn fill(&self) {
        // It ends with an error where there is no room left.
        let _ = self.command("dd").args(["if=/dev/zero", "bs=4k"]).arg(self.filler()).output();
    }

    pub fn empty(&self) {
        self.run("truncate", &["--size", "0"], &self.folder.join(FILLER));
    }

    fn filler(&self) -> String {
        format!("of={}", self.folder.join(FILLER).display())
    }

    fn run(&self, program: &str, arguments: &[&str], last: &Path) {
        let done = self.command(program).args(arguments).arg(last).output().expect("nsenter runs");
        assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

const SPACE: [&str; 3] = ["--user", "--map-root-user", "--mount"];
/// Ends with the test, whose end it reads.
const HOLDER: &str = "mount -t tmpfs -o \"$1\" none \"$2\" && echo mounted && exec cat";
const FILLER: &str = "filler";
