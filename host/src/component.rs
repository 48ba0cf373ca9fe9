//! Where the bytes of a component lie: in a file, or inside of the program. Knows places; does not know what a
//! component is.

use std::io::{self, Read};
use std::path::Path;

use adit_rules::shelf;

/// The bytes at a place that a document or a command names; of a file that is longer than `limit` one byte more,
/// so that whoever is given it sees that there is more.
///
/// # Errors
/// It cannot be read, or this program was built without it.
pub fn read(place: &Path, limit: usize) -> io::Result<Vec<u8>> {
    if let Some(name) = shelf::name(place) {
        return adit_shelf::read(name);
    }
    let mut bytes = Vec::new();
    adit_files::open(place)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
