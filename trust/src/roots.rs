//! Certificates that are believed as such.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// How old what was read may be: nothing that is built in one go reads it twice, and what the administrator
/// changes is believed by whatever is built a little later.
const FRESH: Duration = Duration::from_secs(30);

static READ: Mutex<Option<(Instant, Arc<RootCertStore>)>> = Mutex::new(None);

/// The roots of this system; none if it has none.
pub fn of_system() -> Arc<RootCertStore> {
    // Whoever comes second waits, and reads nothing.
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, roots)) = read.as_ref().filter(|(when, _)| when.elapsed() < FRESH) {
        return roots.clone();
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let roots = Arc::new(roots);
    *read = Some((Instant::now(), roots.clone()));
    roots
}

/// Those of a PEM file and no others.
///
/// # Errors
/// It cannot be read, holds something that is no certificate, or holds none.
pub fn of_file(file: &Path) -> anyhow::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    let text = adit_files::read(file, LARGEST_FILE).with_context(|| reading(file))?;
    add(&mut roots, &text, file)?;
    Ok(Arc::new(roots))
}

/// Those of a PEM text besides, which was read from `file`.
///
/// # Errors
/// It holds no certificate, or one that is no authority's.
pub fn add(roots: &mut RootCertStore, text: &[u8], file: &Path) -> anyhow::Result<()> {
    let about = || reading(file);
    ensure!(text.len() <= LARGEST_FILE, "{}: over {LARGEST_FILE} bytes", reading(file));
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text) {
        count += 1;
        roots
            .add(certificate.with_context(about)?)
            .with_context(|| format!("certificate {count} of {}", file.display()))?;
    }
    ensure!(count > 0, "{} holds no certificate (a PEM block CERTIFICATE)", file.display());
    Ok(())
}

fn reading(file: &Path) -> String {
    format!("reading the certificates of {}", file.display())
}

/// A bundle of every public authority has a quarter of it.
const LARGEST_FILE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_roots_are_read_once_for_all_that_is_built_in_one_go() {
        assert!(Arc::ptr_eq(&of_system(), &of_system()));
    }

    #[test]
    fn a_file_without_a_certificate_is_not_taken_for_one_that_lists_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for text in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", of_file(&file).unwrap_err());
            assert!(error.contains("ca.pem"), "{text:?}: {error}");
        }
    }
}
