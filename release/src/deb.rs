//! A Debian package: an `ar` archive of three members (deb(5)). Knows the format and where things lie on a
//! Debian; does not know how they were made.

use anyhow::Result;

use crate::Parts;
use crate::tar::{Tree, gzip};

/// The package. What it holds works without any of its files being edited.
///
/// # Errors
/// A name is too long for an archive.
pub fn pack(parts: &Parts) -> Result<Vec<u8>> {
    let data = data(parts)?;
    let mut control = Tree::default();
    control.file("control", 0o644, about(parts, data.size()));
    control.file("postinst", 0o755, RELOAD);
    control.file("postrm", 0o755, RELOAD);
    let mut deb = b"!<arch>\n".to_vec();
    for (name, member) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&control.tar("./", parts.time)?, parts.level)?),
        ("data.tar.gz", gzip(&data.tar("./", parts.time)?, parts.level)?),
    ] {
        let header =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", parts.time, 0, 0, "100644", member.len());
        deb.extend(header.as_bytes());
        deb.extend(&member);
        if member.len() % 2 == 1 {
            deb.push(b'\n');
        }
    }
    Ok(deb)
}

fn data(parts: &Parts) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.folder("etc/adit", 0o755, 0);
    tree.file("usr/bin/adit", 0o755, parts.program.clone());
    for (name, command) in [
        ("adit-edge", "/usr/bin/adit edge run --config /etc/adit/edge.toml"),
        ("adit-tunnel", "/usr/bin/adit tunnel run --config /etc/adit/host.toml"),
    ] {
        let unit = parts.units.get(name).map_or("", String::as_str).replace("@COMMAND@", command);
        tree.file(&format!("usr/lib/systemd/system/{name}.service"), 0o644, unit);
    }
    for (name, page) in &parts.manual {
        tree.file(&format!("usr/share/man/man1/{name}.gz"), 0o644, gzip(page, 9)?);
    }
    for (path, text) in &parts.completions {
        tree.file(&format!("usr/share/{path}"), 0o644, text.as_bytes());
    }
    let licence = format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: adit\n\n\
         Files: *\nCopyright: the authors of Adit\nLicense: {}\n On Debian the text is in \
         /usr/share/common-licenses/Apache-2.0.\n",
        parts.licence
    );
    tree.file("usr/share/doc/adit/copyright", 0o644, licence);
    tree.file("usr/share/doc/adit/changelog.gz", 0o644, gzip(parts.changelog.as_bytes(), 9)?);
    tree.file("usr/share/doc/adit/sbom.cdx.json.gz", 0o644, gzip(&parts.sbom, 9)?);
    Ok(tree)
}

fn about(parts: &Parts, size: usize) -> String {
    let depends = if parts.is_static { "" } else { "Depends: libc6, libgcc-s1\n" };
    format!(
        "Package: adit\nVersion: {}\nArchitecture: {}\nMaintainer: the authors of Adit\nInstalled-Size: {}\n\
         {depends}Recommends: ca-certificates\nSection: net\nPriority: optional\nDescription: tunnels that bring traffic to a private origin\n \
         A host beside your services keeps outbound connections to an edge; visitors\n reach the edge, and each of \
         their requests passes a chain of WebAssembly\n plugins before it reaches a service.\n",
        parts.version,
        parts.architecture,
        size.div_ceil(1024)
    )
}

/// Units have come, changed or gone.
const RELOAD: &str =
    "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl --system daemon-reload || true; fi\n";
