//! From a program to what people install: a Debian package, an OCI image, a bill of materials, checksums and
//! signatures. Made by ourselves, so that the same parts always give the same bytes and no daemon is needed.
//!
//! Does not know how the program was built: that is `cargo xtask release`. Read [`Parts`], then [`deb`],
//! [`image`] and [`sbom`].

pub mod deb;
pub mod image;
pub mod sbom;
mod tar;

use std::collections::BTreeMap;

use adit_oci::digest::Digest;

/// What packages are made of.
#[derive(Debug, Clone)]
pub struct Parts {
    pub version: String,
    pub commit: String,
    /// As Debian and OCI call it: `amd64` or `arm64`.
    pub architecture: String,
    pub licence: String,
    /// Every file in every archive is of this time, seconds since 1970.
    pub time: u64,
    pub program: Vec<u8>,
    /// The program needs nothing else of the system.
    pub is_static: bool,
    /// Templates of units by name, with `@COMMAND@` where the command goes.
    pub units: BTreeMap<String, String>,
    /// Pages by file name.
    pub manual: BTreeMap<String, Vec<u8>>,
    /// Completions by their path below `/usr/share`.
    pub completions: BTreeMap<String, String>,
    pub changelog: String,
    pub sbom: Vec<u8>,
    /// How hard gzip tries, 0 to 9.
    pub level: u32,
}

/// Lines as `sha256sum --check` reads them.
pub fn checksums<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    files.into_iter().map(|(name, content)| format!("{}  {name}\n", Digest::of(content).hex())).collect()
}
