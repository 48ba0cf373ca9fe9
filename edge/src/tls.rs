//! Certificates: those an operator gives, and those of the development CA that an edge makes itself
//! and keeps. Knows PEM files, rcgen and rustls; does not know who connects or which names are
//! configured.

pub(crate) mod distinguished;
pub(crate) mod leaf;
pub(crate) mod visitors;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::aws_lc_rs::hkdf;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;

use leaf::Leaf;
pub(crate) use visitors::TlsPolicy;

/// The names that connectors ask for: over QUIC, over HTTP/2, and in pre-checks (wire.md section 2).
pub(crate) const CONNECTOR_NAMES: [&str; 3] = ["quic.cftunnel.com", "h2.cftunnel.com", PROBE_NAME];

/// A connection that asks for this name only tries whether the edge can be reached.
pub(crate) const PROBE_NAME: &str = "probe.cftunnel.com";

/// The one ALPN protocol of a tunnel connection over QUIC (wire.md section 2).
pub(crate) const CONNECTOR_ALPN: &[u8] = b"argotunnel";

/// Where a certificate and its private key are kept, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityFiles {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

/// A certificate chain with the private key that fits it.
#[derive(Clone)]
pub(crate) struct Identity {
    certified: Arc<CertifiedKey>,
    seed: Seed,
}

/// What further keys are drawn from: as secret and as lasting as the private key that it was made of.
#[derive(Clone)]
pub(crate) struct Seed(Arc<hkdf::Prk>);

impl Seed {
    fn of(key: &[u8]) -> Self {
        Self(Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, b"adit edge").extract(key)))
    }

    /// 32 bytes for `purpose`, the same at each start.
    pub(crate) fn draw(&self, purpose: &[&[u8]]) -> [u8; 32] {
        let mut bytes = [0; 32];
        let drawn = self.0.expand(purpose, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut bytes));
        drawn.expect("one block of SHA-256 is never too long");
        bytes
    }
}

#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    #[error("reading {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("reading {}: {source}", path.display())]
    Pem { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("the certificate and the private key do not fit together: {0}")]
    Mismatch(rustls::Error),
}

impl Identity {
    pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let text = Self::read_pem(path)?;
        let pem = |source| IdentityError::Pem { path: path.to_owned(), source };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(pem)?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate { path: path.to_owned() });
        }
        Ok(chain)
    }

    pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(&Self::read_pem(path)?)
            .map_err(|source| IdentityError::Pem { path: path.to_owned(), source })
    }

    fn read_pem(path: &Path) -> Result<Vec<u8>, IdentityError> {
        adit_files::read(path, LARGEST_PEM)
            .map_err(|source| IdentityError::Read { path: path.to_owned(), source })
    }

    pub(crate) fn read(files: &IdentityFiles) -> Result<Self, IdentityError> {
        Self::new(Self::read_chain(&files.chain)?, Self::read_key(&files.key)?)
    }

    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        let seed = Seed::of(key.secret_der());
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(IdentityError::Mismatch)?;
        Ok(Self { certified: Arc::new(certified), seed })
    }

    pub(crate) fn seed(&self) -> &Seed {
        &self.seed
    }

    /// As the TLS library shows it.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// What the certificate says of itself, if it can be read.
    pub(crate) fn leaf(&self) -> Option<Leaf> {
        Leaf::of(self.certified.cert.first()?)
    }

    /// The last second in which the certificate holds with all of its chain, since 1970; `None` if it cannot be
    /// read.
    pub(crate) fn not_after(&self) -> Option<i64> {
        self.certified.cert.iter().filter_map(|link| Some(Leaf::of(link)?.not_after)).min()
    }

    /// Whether a client that asks for `name` would accept this certificate's names.
    pub(crate) fn covers(&self, name: &str) -> bool {
        let Some(leaf) = self.certified.cert.first() else { return false };
        let (Ok(leaf), Ok(name)) = (ParsedCertificate::try_from(leaf), ServerName::try_from(name)) else {
            return false;
        };
        rustls::client::verify_server_name(&leaf, &name).is_ok()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// TLS towards connectors: TLS 1.3, ALPN `argotunnel`, and exactly the groups that the reference
/// connector offers (wire.md section 0, finding 10): a key share for X25519MLKEM768, or P-256 after a
/// HelloRetryRequest.
pub(crate) fn connector_tls(shown: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::SECP256R1],
        ..provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![CONNECTOR_ALPN.to_vec()];
    // Connectors do not resume sessions.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The same TLS for connectors that come over TCP: they offer no ALPN (wire.md section 6).
pub(crate) fn without_alpn(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols.clear();
    config
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// A certificate authority for development, kept as `ca.pem` and `ca.key` in the edge's data folder.
/// It is made once and never overwritten; leaves are made anew at each start.
pub(crate) struct DevelopmentCa {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    seed: Seed,
    path: PathBuf,
}

#[derive(Debug, Error)]
pub(crate) enum CaError {
    #[error("{verb} {}: {source}", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{} exists but {} does not; bring it back, or move the first away to get a new development CA", there.display(), missing.display())]
    Half { there: PathBuf, missing: PathBuf },
    #[error("{} is damaged: {reason}; bring it back, or move ca.pem and ca.key away to get a new development CA", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("making a development certificate")]
    Make(#[from] rcgen::Error),
    #[error("making a development certificate")]
    Identity(#[from] IdentityError),
}

impl DevelopmentCa {
    /// The CA kept in `folder`, or a new one if there is none yet.
    pub(crate) fn open(folder: &Path) -> Result<Self, CaError> {
        let (certificate, key) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
        match (exists(&certificate)?, exists(&key)?) {
            (true, true) => Self::read(certificate, &key),
            (false, false) => Self::make(folder, certificate, &key),
            (true, false) => Err(CaError::Half { there: certificate, missing: key }),
            (false, true) => Err(CaError::Half { there: key, missing: certificate }),
        }
    }

    /// As [`Identity::not_after`].
    pub(crate) fn not_after(&self) -> Option<i64> {
        Leaf::of(&self.certificate).map(|leaf| leaf.not_after)
    }

    /// Where the certificate is that connectors and visitors must trust.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A server certificate for `names`, signed by this CA.
    pub(crate) fn issue(&self, names: Vec<String>) -> Result<Identity, CaError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "Adit development certificate");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number());
        let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + LEAF_VALIDITY;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let identity = Identity::new(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
        // The key of the leaf is gone at the next start, the CA's is not.
        Ok(Identity { seed: self.seed.clone(), ..identity })
    }

    fn make(folder: &Path, certificate: PathBuf, key: &Path) -> Result<Self, CaError> {
        fs::create_dir_all(folder).map_err(|source| CaError::File {
            verb: "making",
            path: folder.to_owned(),
            source,
        })?;
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = ca_params();
        let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + CA_VALIDITY;
        params.serial_number = Some(serial_number());
        let made = params.self_signed(&pair)?;
        // The key first: a crash in between leaves a half that the next start names.
        write_new(key, &pair.serialize_pem(), true)?;
        write_new(&certificate, &made.pem(), false)?;
        let seed = Seed::of(&pair.serialize_der());
        Ok(Self {
            certificate: made.der().clone(),
            issuer: Issuer::new(params, pair),
            seed,
            path: certificate,
        })
    }

    fn read(path: PathBuf, key_path: &Path) -> Result<Self, CaError> {
        let damaged = |path: &Path, reason: String| CaError::Damaged { path: path.to_owned(), reason };
        let text = |path: &Path| {
            adit_files::read_text(path, LARGEST_PEM).map_err(|source| CaError::File {
                verb: "reading",
                path: path.to_owned(),
                source,
            })
        };
        let certificate = CertificateDer::from_pem_slice(text(&path)?.as_bytes())
            .map_err(|error| damaged(&path, error.to_string()))?;
        let pair =
            KeyPair::from_pem(&text(key_path)?).map_err(|error| damaged(key_path, error.to_string()))?;
        let seed = Seed::of(&pair.serialize_der());
        let ca = Self { certificate, issuer: Issuer::new(ca_params(), pair), seed, path };
        ca.prove().map_err(|reason| damaged(&ca.path, reason))?;
        Ok(ca)
    }

    /// What somebody trusts who trusts this CA.
    pub(crate) fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(roots)
    }

    /// Issues a leaf and checks it as a client would: this finds a key that belongs to another
    /// certificate, an expired CA and a file that is no CA at all.
    fn prove(&self) -> Result<(), String> {
        let reason = |error: &dyn fmt::Display| error.to_string();
        let leaf = self.issue(vec![PROBE_NAME.to_owned()]).map_err(|error| reason(&error))?;
        let roots = self.roots().map_err(|error| reason(&error))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()))
            .build()
            .map_err(|error| reason(&error))?;
        let name = ServerName::try_from(PROBE_NAME).map_err(|error| reason(&error))?;
        let now = UnixTime::since_unix_epoch(since_epoch());
        verifier
            .verify_server_cert(&leaf.certified.cert[0], &[], &name, &[], now)
            .map(|_| ())
            .map_err(|error| format!("it does not vouch for what its key signs: {error}"))
    }
}

/// Everything about the CA that its leaves repeat: constant, so that an issuer can be made from the
/// key alone.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, "Adit development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn exists(path: &Path) -> Result<bool, CaError> {
    path.try_exists().map_err(|source| CaError::File { verb: "looking for", path: path.to_owned(), source })
}

fn write_new(path: &Path, text: &str, secret: bool) -> Result<(), CaError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = secret;
    let write = || {
        let mut file = options.open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| CaError::File { verb: "writing", path: path.to_owned(), source })
}

/// 16 random bytes, positive: two certificates of one issuer must never share a number (RFC 5280 4.1.2.2).
pub(crate) fn serial_number() -> SerialNumber {
    let mut bytes = uuid::Uuid::new_v4().into_bytes();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Bytes of a file in PEM: a key, or a chain with what people write around it.
const LARGEST_PEM: usize = 1 << 20;
const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * DAY.as_secs());
/// Clients refuse server certificates that live longer than this.
const LEAF_VALIDITY: Duration = Duration::from_secs(397 * DAY.as_secs());
pub(crate) const CLOCK_SKEW: Duration = DAY;

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(ca: &DevelopmentCa) -> String {
        fs::read_to_string(ca.path()).unwrap()
    }

    #[test]
    fn the_development_ca_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("deep/edge-data");
        let first = pem(&DevelopmentCa::open(&data).unwrap());
        let second = pem(&DevelopmentCa::open(&data).unwrap());
        assert_eq!(first, second);
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_reads_the_key_of_the_development_ca() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        DevelopmentCa::open(folder.path()).unwrap();
        let mode = fs::metadata(folder.path().join(CA_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_leaf_covers_its_names_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let ca = DevelopmentCa::open(folder.path()).unwrap();
        let leaf = ca.issue(vec!["app.example.com".into(), "*.example.org".into()]).unwrap();
        let left = |until: Option<i64>| until.unwrap().cast_unsigned() - since_epoch().as_secs();
        assert_eq!((left(leaf.not_after()) + 60) / DAY.as_secs(), 397, "a chain holds as long as its first");
        assert_eq!((left(ca.not_after()) + 60) / DAY.as_secs(), 3650);
        for (name, covered) in [
            ("app.example.com", true),
            ("a.example.org", true),
            ("example.org", false),
            ("other.example.com", false),
        ] {
            assert_eq!(leaf.covers(name), covered, "{name}");
        }
    }

    #[test]
    fn a_damaged_or_halved_ca_is_an_error_and_is_never_overwritten() {
        type Spoil<'a> = (&'static str, &'a dyn Fn(&Path));
        let spoil: [Spoil<'_>; 5] = [
            ("is damaged", &|folder| fs::write(folder.join(CA_CERTIFICATE), "rubbish").unwrap()),
            ("is damaged", &|folder| fs::write(folder.join(CA_KEY), "rubbish").unwrap()),
            ("does not; bring it back", &|folder| fs::remove_file(folder.join(CA_KEY)).unwrap()),
            ("does not; bring it back", &|folder| fs::remove_file(folder.join(CA_CERTIFICATE)).unwrap()),
            ("does not vouch", &|folder| {
                let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
                fs::write(folder.join(CA_KEY), other.serialize_pem()).unwrap();
            }),
        ];
        for (wanted, spoil) in spoil {
            let folder = tempfile::tempdir().unwrap();
            DevelopmentCa::open(folder.path()).unwrap();
            spoil(folder.path());
            let listing = || {
                let mut files: Vec<_> = fs::read_dir(folder.path())
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .map(|path| (path.clone(), fs::read(path).unwrap()))
                    .collect();
                files.sort();
                files
            };
            let before = listing();
            let Err(error) = DevelopmentCa::open(folder.path()) else {
                panic!("opened although it should say: {wanted}");
            };
            assert!(error.to_string().contains(wanted), "{error}");
            assert_eq!(before, listing());
        }
    }
}
