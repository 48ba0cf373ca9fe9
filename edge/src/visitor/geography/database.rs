//! Countries of networks, as a file in the form of MaxMind DB has them, which may be replaced at any time. Knows its
//! form; does not know what is done with a country.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adit_files::mark;
use arc_swap::ArcSwap;
use maxminddb::{MaxMindDbError, PathElement, Reader};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::LONGEST_CODE;

/// A file, and what it had when it was last good.
pub(crate) struct Database {
    path: PathBuf,
    countries: ArcSwap<Countries>,
}

/// What is in one.
pub(crate) struct Countries(Reader<Vec<u8>>);

impl Database {
    /// Reads a file. Waits for the file system.
    ///
    /// # Errors
    /// It cannot be read, or is none of this form.
    pub(crate) fn open(path: PathBuf) -> Result<Self, String> {
        let countries = read(&path)?;
        Ok(Self { path, countries: ArcSwap::from_pointee(countries) })
    }

    pub(super) fn now(&self) -> Arc<Countries> {
        self.countries.load_full()
    }

    fn read_again(&self) -> Result<(), String> {
        self.countries.store(Arc::new(read(&self.path)?));
        Ok(())
    }
}

fn read(path: &std::path::Path) -> Result<Countries, String> {
    let bytes = adit_files::read(path, LARGEST_DATABASE)
        .map_err(|error| format!("reading {}: {error}", path.display()))?;
    Countries::parse(bytes).map_err(|error| format!("{}: {error}", path.display()))
}

impl Countries {
    fn parse(bytes: Vec<u8>) -> Result<Self, MaxMindDbError> {
        Reader::from_source(bytes).map(Self)
    }

    /// The country of an address, and the part of it where the file knows one; as they are written there.
    pub(super) fn of(&self, address: IpAddr) -> (Option<&str>, Option<&str>) {
        let Ok(found) = self.0.lookup(address.to_canonical()) else { return (None, None) };
        let code = |path: &[PathElement<'_>]| {
            let code: Option<&str> = found.decode_path(path).ok().flatten();
            code.filter(|code| (1..=LONGEST_CODE).contains(&code.len()))
        };
        let iso = PathElement::Key("iso_code");
        // Where an address is, or else where it is registered.
        let country = ["country", "registered_country"]
            .into_iter()
            .find_map(|whose| code(&[PathElement::Key(whose), iso.clone()]));
        (country, code(&[PathElement::Key("subdivisions"), PathElement::Index(0), iso]))
    }
}

/// Reads the file again whenever it has changed and come to rest, until `stop`. Waits for the file system where it is
/// called.
pub(crate) async fn watch(database: Arc<Database>, stop: CancellationToken) {
    // Whatever was written between the start and this moment is read once more.
    let (mut read, mut last) = (None, None);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = mark(&database.path);
        let has_come_to_rest = now == last;
        last = now;
        if !has_come_to_rest || now == read {
            continue;
        }
        let is_first = read.is_none();
        read = now;
        match database.read_again() {
            Ok(()) if is_first => {}
            Ok(()) => info!(file = %database.path.display(), "a new file with countries counts"),
            Err(error) => warn!(error, "a new file with countries is not taken: the one before counts"),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.path.display())
    }
}

impl fmt::Debug for Countries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Countries({})", self.0.metadata().database_type)
    }
}

/// How often the file is looked at. It is read when two looks found the same.
const EVERY: Duration = Duration::from_millis(500);
/// Bytes of a file with countries, which is kept in memory; twice as many while it is replaced.
const LARGEST_DATABASE: usize = 512 << 20;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::super::*;
    use super::*;

    fn codes(country: &str) -> Codes {
        Codes { pop: None, country: Some(country.to_owned()), region: None }
    }

    /// A file in the form of MaxMind DB (version 2.0) with the countries of IPv4 networks.
    fn file(networks: &[(&str, &str)]) -> Vec<u8> {
        const EMPTY: u32 = u32::MAX;
        let text = |text: &str| [&[0x40 | text.len() as u8][..], text.as_bytes()].concat();
        let (mut tree, mut data) = (vec![[EMPTY; 2]], Vec::new());
        let mut leaves = Vec::new();
        for (network, code) in networks {
            let (address, length) = network.split_once('/').unwrap();
            let (bits, length) =
                (u32::from(address.parse::<std::net::Ipv4Addr>().unwrap()), length.parse::<usize>().unwrap());
            let bit = |at: usize| ((bits >> (31 - at)) & 1) as usize;
            let mut node = 0;
            for at in 0..length - 1 {
                if tree[node][bit(at)] == EMPTY {
                    tree[node][bit(at)] = tree.len() as u32;
                    tree.push([EMPTY; 2]);
                }
                node = tree[node][bit(at)] as usize;
            }
            leaves.push((node, bit(length - 1), data.len() as u32));
            data.extend([&[0xe1][..], &text("country"), &[0xe1], &text("iso_code"), &text(code)].concat());
        }
        let count = tree.len() as u32;
        for (node, bit, offset) in leaves {
            tree[node][bit] = count + 16 + offset;
        }
        let records = tree.iter().flatten().map(|record| if *record == EMPTY { count } else { *record });
        let mut file: Vec<u8> = records.flat_map(|record| record.to_be_bytes()[1..].to_vec()).collect();
        file.extend([0; 16]);
        file.extend(data);
        file.extend(b"\xab\xcd\xefMaxMind.com\xe9");
        let count = [&[0xc4][..], &count.to_be_bytes()].concat();
        for (name, value) in [
            ("binary_format_major_version", &[0xa1, 2][..]),
            ("binary_format_minor_version", &[0xa0]),
            ("build_epoch", &[0x01, 0x02, 1]),
            ("database_type", &text("Test")),
            ("description", &[0xe0]),
            ("ip_version", &[0xa1, 4]),
            ("languages", &[0x00, 0x04]),
            ("node_count", &count),
            ("record_size", &[0xa1, 24]),
        ] {
            file.extend([&text(name)[..], value].concat());
        }
        file
    }

    #[test]
    fn a_file_knows_the_countries_that_neither_a_proxy_nor_the_table_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countries.mmdb");
        std::fs::write(&path, file(&[("192.0.2.0/24", "PL"), ("198.51.100.0/25", "US")])).unwrap();
        let database = Arc::new(Database::open(path).unwrap());
        let mut networks = Networks::default();
        assert!(networks.add("192.0.2.128/25".parse().unwrap(), &codes("DE")));
        let headers = Headers { country: Some(HeaderName::from_static("x-country")), region: None };
        let geography =
            Geography { headers, networks, database: Some(database.clone()), ..Geography::default() };
        let mut asked = HeaderMap::new();
        asked.insert("x-country", HeaderValue::from_static("fr"));
        for (visitor, is_trusted, country) in [
            ("192.0.2.1", false, Some("PL")),
            ("::ffff:192.0.2.1", false, Some("PL")),
            ("192.0.2.200", false, Some("DE")),
            ("192.0.2.1", true, Some("FR")),
            ("198.51.100.1", false, Some("US")),
            ("198.51.100.129", false, None),
            ("2001:db8::1", false, None),
        ] {
            let said = geography.said(&asked, is_trusted);
            let place = geography.place(&said, visitor.parse().unwrap());
            assert_eq!(place.country, country, "{visitor} {is_trusted}");
        }
        assert!(Countries::parse(b"no such file".to_vec()).is_err());
        // Whatever is in it, nothing but a wrong answer comes of it.
        let whole = file(&[("192.0.2.0/24", "PL")]);
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            if let Ok(countries) = Countries::parse(broken) {
                let _ = countries.of([192, 0, 2, 1].into());
            }
        }
    }

    /// What a visitor's country is, once it is this one.
    async fn becomes(database: &Database, country: Option<&str>) {
        let visitor = [192, 0, 2, 1].into();
        let changed = async {
            while database.now().of(visitor).0 != country {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), changed).await.expect("the file is taken");
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_counts_from_then_on_and_a_broken_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countries.mmdb");
        std::fs::write(&path, file(&[("192.0.2.0/24", "PL")])).unwrap();
        let database = Arc::new(Database::open(path.clone()).unwrap());
        let stop = CancellationToken::new();
        let watch = tokio::spawn(watch(database.clone(), stop.clone()));
        becomes(&database, Some("PL")).await;
        adit_files::replace(&path, &file(&[("192.0.2.0/24", "DE")]), 0o600).unwrap();
        becomes(&database, Some("DE")).await;
        adit_files::replace(&path, b"no such file", 0o600).unwrap();
        adit_files::replace(&path, &file(&[("192.0.2.0/24", "FR")]), 0o600).unwrap();
        becomes(&database, Some("FR")).await;
        std::fs::write(&path, b"no such file").unwrap();
        assert!(database.read_again().is_err());
        becomes(&database, Some("FR")).await;
        stop.cancel();
        watch.await.unwrap();
    }
}
