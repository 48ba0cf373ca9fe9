//! Debian's Rust compiler and its WebAssembly target, unpacked under target/ without installing
//! anything.
//!
//! apt works on a state of its own, made from the machine's own mirror and keys, so neither root
//! nor a change to the system is needed. The compiler is started by the C library that came along
//! in the same suite.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::TARGET;
use super::mirror::Mirror;
use crate::child;
use crate::progress::note;
use crate::tree::Tree;

/// An unpacked compiler.
#[derive(Debug)]
pub(crate) struct Compiler {
    folder: PathBuf,
}

impl Compiler {
    pub(crate) fn root(&self) -> &Path {
        &self.folder
    }

    /// A program that takes rustc's arguments.
    pub(crate) fn rustc(&self) -> PathBuf {
        self.folder.join("rustc")
    }

    /// Writes the program that starts the compiler and asks it for its version. The program holds
    /// absolute paths, and the tree may have been moved.
    fn ready(folder: PathBuf) -> Result<Self> {
        let usr = folder.join("root/usr");
        let libraries = find(&usr.join("lib"), |path| path.join("libc.so.6").exists())?;
        let loader = find(&libraries, |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("ld-linux") && name.contains(".so")
        })?;
        let rustc = usr.join("bin/rustc");
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let script = format!(
            "#!/bin/sh\nexec {loader} --library-path {libraries} --argv0 {rustc} {rustc} --sysroot {usr} \"$@\"\n",
            loader = quoted(&loader),
            libraries = quoted(&libraries),
            rustc = quoted(&rustc),
            usr = quoted(&usr),
        );
        let compiler = Self { folder };
        let starter = compiler.rustc();
        // Cargo takes a compiler with a new time stamp for a new compiler and builds everything again.
        if fs::read_to_string(&starter).ok().as_deref() != Some(script.as_str()) {
            fs::write(&starter, script).with_context(|| format!("writing {}", starter.display()))?;
            fs::set_permissions(&starter, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("making {} executable", starter.display()))?;
        }
        let version = child::capture(Command::new(&starter).arg("--version"), child::SHORT, DELETE_CACHE)?;
        note(version.trim());
        Ok(compiler)
    }
}

/// The compiler of this suite, if an earlier run has unpacked it to the end.
pub(super) fn unpacked(tree: &Tree, suite: &str) -> Result<Option<Compiler>> {
    newest(&tree.target(CACHE), suite).map(Compiler::ready).transpose()
}

/// The folder of this suite that was completed last.
fn newest(cache: &Path, suite: &str) -> Option<PathBuf> {
    let prefix = format!("{suite}-");
    let folders = fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path());
    let (_, folder) = folders
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .filter_map(|path| Some((fs::metadata(path.join(STAMP)).ok()?.modified().ok()?, path)))
        .max()?;
    Some(folder)
}

/// Downloads and unpacks the compiler of this suite. What an interrupted run has left is used or
/// replaced.
pub(super) fn fetch(tree: &Tree, suite: &str) -> Result<Compiler> {
    for program in ["apt-get", "apt-cache", "apt-config", "dpkg-deb"] {
        ensure!(child::is_there(program), "`{program}` is not there; is this machine a Debian?");
    }
    let mirror = Mirror::find(Path::new("/etc/apt"))
        .ok_or_else(|| anyhow!("apt's sources in /etc/apt name no mirror of Debian's main archive"))?;
    let apt = Apt::prepare(&tree.target(CACHE).join(format!("apt-{suite}")), &mirror, suite)?;
    apt.run("apt-get", &["update", "-qq"], UPDATE_LIMIT)?;

    let version = apt.version("rustc")?;
    let folder = tree.target(CACHE).join(format!("{suite}-{}", version.replace([':', '~'], "_")));
    if !folder.join(STAMP).exists() {
        let packages = apt.closure(&["rustc", "libstd-rust-dev-wasm32"])?;
        note(format!(
            "downloading rustc {version} and what it needs: {} packages, about 200 MB",
            packages.len()
        ));
        apt.download(&packages)?;

        let root = folder.join("root");
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("clearing {}", root.display()))?;
        }
        fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
        note("unpacking");
        for file in apt.downloaded()? {
            child::capture(
                Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&root),
                UNPACK_LIMIT,
                DELETE_CACHE,
            )?;
        }
        let library = root.join("usr/lib/rustlib").join(TARGET);
        ensure!(library.exists(), "the packages of {suite} hold no standard library for {TARGET}");
        drop_unused(&root);
        // Last: only a folder with the stamp is ever used.
        fs::write(folder.join(STAMP), format!("rustc {version} from Debian {suite}\n"))
            .with_context(|| format!("stamping {}", folder.display()))?;
        // Only disk space: the next run does not look at it.
        let _ = fs::remove_dir_all(&apt.folder);
    }
    Compiler::ready(folder)
}

/// Other targets and manuals: 300 MB that nothing here uses. It does not matter if some stay.
fn drop_unused(root: &Path) {
    for folder in ["lib/rustlib/wasm32-unknown-unknown", "lib/rustlib/wasm32-wasip1", "share"] {
        let _ = fs::remove_dir_all(root.join("usr").join(folder));
    }
}

/// The first entry of `folder` that `fits`.
fn find(folder: &Path, fits: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("reading {}\n  way out: {DELETE_CACHE}", folder.display()))?;
    entries.flatten().map(|entry| entry.path()).find(|path| fits(path)).ok_or_else(|| {
        anyhow!("{} does not hold what was unpacked\n  way out: {DELETE_CACHE}", folder.display())
    })
}

/// apt with a configuration, package lists and downloads of its own.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn prepare(folder: &Path, mirror: &Mirror, suite: &str) -> Result<Self> {
        for sub in ["sources", "state/lists/partial", "cache/archives/partial", "packages"] {
            let path = folder.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let apt = Self { folder: folder.to_owned() };
        let (name, source) = mirror.source(suite);
        apt.write(&format!("sources/{name}"), &source)?;
        // No package counts as installed.
        apt.write("status", "")?;
        apt.write("apt.conf", &apt.configuration()?)?;
        Ok(apt)
    }

    /// The machine's way to its mirror (proxies and the like), and nothing else of its settings:
    /// its hooks would clean up the system's own state.
    fn configuration(&self) -> Result<String> {
        let all = child::capture(Command::new("apt-config").arg("dump"), child::SHORT, "")?;
        let access = all
            .lines()
            .filter(|line| line.starts_with("Acquire::") && !line.starts_with("Acquire::IndexTargets"))
            .filter(|line| !line.starts_with("Acquire::Languages"))
            .collect::<Vec<_>>()
            .join("\n");
        let folder = self.folder.display();
        Ok(format!(
            "{access}\n\
             Acquire::Languages \"none\";\n\
             Dir::State \"{folder}/state\";\n\
             Dir::State::status \"{folder}/status\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             Dir::Etc::main \"/dev/null\";\n\
             Dir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\n\
             Dir::Etc::sourceparts \"{folder}/sources\";\n\
             APT::Sandbox::User \"root\";\n"
        ))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments).env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C.UTF-8");
        command.current_dir(self.folder.join("packages"));
        child::capture(&mut command, limit, "")
    }

    fn version(&self, package: &str) -> Result<String> {
        let shown = self.run("apt-cache", &["show", "--no-all-versions", package], child::SHORT)?;
        let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
        version.map(str::to_owned).ok_or_else(|| anyhow!("apt knows no version of {package}"))
    }

    /// These packages and the libraries they need to run. Compilers, linkers and headers that they
    /// name too are not needed: the machine has its own.
    fn closure(&self, wanted: &[&str]) -> Result<BTreeSet<String>> {
        let mut found: BTreeSet<String> = BTreeSet::new();
        let mut next: Vec<String> = wanted.iter().map(|package| (*package).to_owned()).collect();
        while !next.is_empty() {
            if found.len() > MOST_PACKAGES {
                bail!("the compiler needs more than {MOST_PACKAGES} packages; this cannot be right");
            }
            found.extend(next.iter().cloned());
            let mut arguments = vec!["depends", "--important"];
            arguments.extend(next.iter().map(String::as_str));
            let listed = self.run("apt-cache", &arguments, child::SHORT)?;
            let new: BTreeSet<String> = dependencies(&listed)
                .filter(|name| is_needed(name) && !found.contains(*name))
                .map(str::to_owned)
                .collect();
            next = new.into_iter().collect();
        }
        Ok(found)
    }

    fn download(&self, packages: &BTreeSet<String>) -> Result<()> {
        let mut arguments = vec!["download", "-qq"];
        arguments.extend(packages.iter().map(String::as_str));
        self.run("apt-get", &arguments, DOWNLOAD_LIMIT)?;
        Ok(())
    }

    fn downloaded(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("packages");
        let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "deb"));
        files.sort();
        Ok(files)
    }
}

/// The packages in what `apt-cache depends` prints. Of alternatives all are named; virtual packages
/// are not.
fn dependencies(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| {
        let line = line.trim_start_matches([' ', '|']);
        let name = line.strip_prefix("Depends: ").or_else(|| line.strip_prefix("PreDepends: "))?.trim();
        // "name:any" asks for another architecture's package, too.
        let name = name.split(':').next().unwrap_or(name);
        (!name.starts_with('<')).then_some(name)
    })
}

fn is_needed(package: &str) -> bool {
    package.starts_with("libstd-rust-") || (package.starts_with("lib") && !package.ends_with("-dev"))
}

/// Below target/.
const CACHE: &str = "wasm-toolchain";

/// Lies in the folder of a compiler that is complete.
const STAMP: &str = "complete";

/// It is 17 today.
const MOST_PACKAGES: usize = 60;

const UPDATE_LIMIT: Duration = Duration::from_secs(180);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1200);
const UNPACK_LIMIT: Duration = Duration::from_secs(300);

const DELETE_CACHE: &str = "delete target/wasm-toolchain and try again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_needs_its_libraries_and_no_headers_or_linkers() {
        let listed = "rustc\n  Depends: libc6\n  PreDepends: libgcc-s1\n |Depends: gcc\n  Depends: <c-compiler>\n    \
                      clang\n  Depends: libc6-dev\n  Depends: libstd-rust-dev\n  Suggests: libfoo1\n";
        let needed: Vec<&str> = dependencies(listed).filter(|name| is_needed(name)).collect();
        assert_eq!(needed, ["libc6", "libgcc-s1", "libstd-rust-dev"]);
    }

    #[test]
    fn only_a_folder_that_was_unpacked_to_the_end_is_used() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("trixie-1.85.1");
        fs::create_dir_all(folder.join("root")).unwrap();
        assert_eq!(newest(cache.path(), "trixie"), None);
        fs::write(folder.join(STAMP), "").unwrap();
        assert_eq!(newest(cache.path(), "trixie"), Some(folder));
        assert_eq!(newest(cache.path(), "forky"), None);
    }
}
