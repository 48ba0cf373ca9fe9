//! The plugins that come with Adit, inside of the program. Knows bytes and names; does not know what a component
//! is, nor who may ask for one. `build.rs` packs what was built before this crate.

use std::io::{self, Read};

use flate2::read::DeflateDecoder;

/// A component as it lies in the program.
struct Packed {
    name: &'static str,
    /// Of the component, bytes.
    length: usize,
    deflated: &'static [u8],
}

/// The names of those that were built in, in the order of the alphabet.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHELF.iter().map(|packed| packed.name)
}

/// What they take of the program, bytes.
pub fn size() -> usize {
    SHELF.iter().map(|packed| packed.deflated.len()).sum()
}

/// A component, unpacked.
///
/// # Errors
/// It is not inside of this program.
pub fn read(name: &str) -> io::Result<Vec<u8>> {
    let packed = SHELF.iter().find(|packed| packed.name == name).ok_or_else(|| missing(name))?;
    let mut component = Vec::with_capacity(packed.length);
    DeflateDecoder::new(packed.deflated).read_to_end(&mut component)?;
    Ok(component)
}

fn missing(name: &str) -> io::Error {
    let there = match SHELF.len() {
        0 => "it was built without any plugins".to_owned(),
        _ => format!("it was built with {} only", names().collect::<Vec<_>>().join(", ")),
    };
    let message = format!(
        "this program does not hold `{name}`: {there}; take a released one, or run `cargo xtask plugins` in the \
         sources and build it again"
    );
    io::Error::new(io::ErrorKind::NotFound, message)
}

const SHELF: &[Packed] = include!(concat!(env!("OUT_DIR"), "/packed.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_comes_out_as_it_went_in_and_smaller() {
        let mut whole = 0;
        for name in names() {
            let component = read(name).unwrap();
            assert!(component.starts_with(b"\0asm\x0d\0\x01\0"), "{name} is no component");
            whole += component.len();
        }
        assert!(size() * 2 < whole || whole == 0, "{} of {whole} bytes", size());
    }

    #[test]
    fn what_is_not_inside_is_named_with_the_way_to_it() {
        let error = read("no-such").unwrap_err().to_string();
        assert!(error.contains("`no-such`") && error.contains("cargo xtask plugins"), "{error}");
    }
}
