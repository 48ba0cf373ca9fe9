//! apt beside the machine's own: it fetches packages of Debian without installing anything.
//!
//! It works on a state of its own, made from the machine's own mirror and keys, so neither root nor a
//! change to the system is needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::mirror::Mirror;
use crate::child;

/// apt with a configuration, package lists and downloads of its own.
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// With the lists of this suite of the machine's own mirror.
    pub(crate) fn of(folder: &Path, suite: &str) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "apt-config", "dpkg-deb"] {
            ensure!(child::is_there(program), "`{program}` is not there; is this machine a Debian?");
        }
        let mirror = Mirror::find(Path::new("/etc/apt"))
            .ok_or_else(|| anyhow!("apt's sources in /etc/apt name no mirror of Debian's main archive"))?;
        let apt = Self::prepare(folder, &mirror, suite)?;
        apt.run("apt-get", &["update", "-qq"], UPDATE_LIMIT)?;
        Ok(apt)
    }

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

    pub(crate) fn version(&self, package: &str) -> Result<String> {
        let shown = self.run("apt-cache", &["show", "--no-all-versions", package], child::SHORT)?;
        let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
        version.map(str::to_owned).ok_or_else(|| anyhow!("apt knows no version of {package}"))
    }

    /// These packages and the libraries they need to run. Compilers, linkers and headers that they
    /// name too are not needed: the machine has its own.
    pub(crate) fn closure(&self, wanted: &[&str]) -> Result<BTreeSet<String>> {
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

    pub(crate) fn download(&self, packages: &BTreeSet<String>) -> Result<()> {
        let mut arguments = vec!["download", "-qq"];
        arguments.extend(packages.iter().map(String::as_str));
        self.run("apt-get", &arguments, DOWNLOAD_LIMIT)?;
        Ok(())
    }

    /// These packages and all that they depend on, as apt would install them on a machine without any.
    pub(crate) fn download_whole(&self, packages: &[&str]) -> Result<()> {
        let mut arguments = vec!["install", "-qq", "--yes", "--no-install-recommends", "--download-only"];
        // Nothing is installed, so nobody else may be in the way.
        arguments.extend(["-o", "Debug::NoLocking=1"]);
        arguments.extend(packages);
        self.run("apt-get", &arguments, DOWNLOAD_LIMIT)?;
        Ok(())
    }

    /// Unpacks what was downloaded whole into a folder that has folders and links of its own. Hands back how many
    /// packages it was.
    pub(crate) fn unpack_into(&self, root: &Path) -> Result<usize> {
        let files = debs(&self.folder.join("cache/archives"))?;
        for file in &files {
            let script =
                "dpkg-deb --fsys-tarfile \"$1\" | tar --extract --keep-directory-symlink --directory \"$2\"";
            let mut command = Command::new("bash");
            command.args(["-o", "pipefail", "-c", script, "bash"]).arg(file).arg(root);
            child::capture(&mut command, UNPACK_LIMIT, "")?;
        }
        Ok(files.len())
    }

    /// Unpacks what was downloaded into a new folder.
    pub(crate) fn unpack(&self, root: &Path) -> Result<()> {
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("clearing {}", root.display()))?;
        }
        fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
        for file in debs(&self.folder.join("packages"))? {
            child::capture(
                Command::new("dpkg-deb").arg("--extract").arg(&file).arg(root),
                UNPACK_LIMIT,
                "delete what is named above in target/ and try again",
            )?;
        }
        Ok(())
    }

    /// Gives back the disk space of lists and packages.
    pub(crate) fn forget(&self) {
        // Only disk space: the next run does not look at it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn debs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "deb"));
    files.sort();
    Ok(files)
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

/// Of a compiler; it is 17 today.
const MOST_PACKAGES: usize = 60;

const UPDATE_LIMIT: Duration = Duration::from_secs(180);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1200);
const UNPACK_LIMIT: Duration = Duration::from_secs(300);

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
}
