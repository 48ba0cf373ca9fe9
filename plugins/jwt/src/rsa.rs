//! Verifies RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2.2). Only public keys, so that nothing
//! here needs to run in constant time.

use crypto_bigint::modular::runtime_mod::{DynResidue, DynResidueParams};
use crypto_bigint::{Encoding, U2048, U3072, U4096, Uint};
use sha2::{Digest, Sha256};

/// A public key with what every verification needs of its modulus.
#[derive(Clone, Debug)]
pub struct PublicKey {
    modulus: Modulus,
    exponent: u32,
    /// Bytes of the modulus, and so of every signature.
    length: usize,
}

/// By the size that it fits in.
#[derive(Clone, Debug)]
enum Modulus {
    Small(Box<DynResidueParams<{ U2048::LIMBS }>>),
    Middle(Box<DynResidueParams<{ U3072::LIMBS }>>),
    Large(Box<DynResidueParams<{ U4096::LIMBS }>>),
}

impl PublicKey {
    /// Big-endian numbers without leading zeros; a modulus of 2048 to 4096 bits. `None` for other keys.
    pub fn new(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let length = modulus.len();
        let (Some(first), Some(last)) = (modulus.first(), modulus.last()) else { return None };
        // So many bytes are so many bits only if the first one is not small.
        if *first == 0 || last & 1 == 0 || (length == SHORTEST && first & 0x80 == 0) {
            return None;
        }
        let exponent =
            exponent.iter().try_fold(0u32, |value, byte| Some(value.checked_mul(256)? | u32::from(*byte)))?;
        if exponent < 3 || exponent % 2 == 0 {
            return None;
        }
        let modulus =
            match length {
                SHORTEST..=256 => Modulus::Small(Box::new(DynResidueParams::new(&U2048::from_be_slice(
                    &padded::<256>(modulus),
                )))),
                257..=384 => Modulus::Middle(Box::new(DynResidueParams::new(&U3072::from_be_slice(
                    &padded::<384>(modulus),
                )))),
                385..=512 => Modulus::Large(Box::new(DynResidueParams::new(&U4096::from_be_slice(
                    &padded::<512>(modulus),
                )))),
                _ => return None,
            };
        Some(Self { modulus, exponent, length })
    }

    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        if signature.len() != self.length {
            return false;
        }
        let Some(found) = self.power(signature) else { return false };
        found == expected(self.length, message)
    }

    /// The signature to the power of the exponent, as long as the modulus; `None` if it is not below that.
    fn power(&self, signature: &[u8]) -> Option<Vec<u8>> {
        let whole = match &self.modulus {
            Modulus::Small(modulus) => {
                power(&U2048::from_be_slice(&padded::<256>(signature)), modulus, self.exponent)?
                    .to_be_bytes()
                    .to_vec()
            }
            Modulus::Middle(modulus) => {
                power(&U3072::from_be_slice(&padded::<384>(signature)), modulus, self.exponent)?
                    .to_be_bytes()
                    .to_vec()
            }
            Modulus::Large(modulus) => {
                power(&U4096::from_be_slice(&padded::<512>(signature)), modulus, self.exponent)?
                    .to_be_bytes()
                    .to_vec()
            }
        };
        // What is below the modulus has nothing but zeros in front.
        Some(whole[whole.len() - self.length..].to_vec())
    }
}

fn power<const LIMBS: usize>(
    base: &Uint<LIMBS>,
    modulus: &DynResidueParams<LIMBS>,
    exponent: u32,
) -> Option<Uint<LIMBS>> {
    if base >= modulus.modulus() {
        return None;
    }
    let exponent: Uint<LIMBS> = Uint::from(exponent);
    Some(DynResidue::new(base, *modulus).pow_bounded_exp(&exponent, 32).retrieve())
}

/// As long as a number of this size; whoever calls has made sure that it fits.
fn padded<const SIZE: usize>(bytes: &[u8]) -> [u8; SIZE] {
    let mut padded = [0; SIZE];
    let bytes = &bytes[..bytes.len().min(SIZE)];
    padded[SIZE - bytes.len()..].copy_from_slice(bytes);
    padded
}

/// The encoded message (RFC 8017 section 9.2): made whole and compared whole, so that nothing in the
/// padding is left to be read leniently.
fn expected(length: usize, message: &[u8]) -> Vec<u8> {
    let tail = SHA256_INFO.len() + 32;
    let mut encoded = vec![0xff; length];
    encoded[0] = 0;
    encoded[1] = 1;
    encoded[length - tail - 1] = 0;
    encoded[length - tail..length - 32].copy_from_slice(&SHA256_INFO);
    encoded[length - 32..].copy_from_slice(&Sha256::digest(message));
    encoded
}

/// Bytes of the smallest modulus: 2048 bits.
const SHORTEST: usize = 256;

/// DER of DigestInfo with SHA-256, up to the digest (RFC 8017 section 9.2, note 1).
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

#[cfg(test)]
pub(crate) mod tests {
    use base64ct::{Base64, Encoding as _};

    use super::*;

    /// Made with `openssl genrsa` and `openssl dgst -sha256 -sign`.
    pub(crate) const MODULUS: &str = "qtDfuhStCgOnMe6Hrf1cfuz/AAXOqt4PYEqPGuG4g2i5Oq26kg4ynCS0zqfbGZCqT+oBywu04XzFBP4W3fbz+a7AsmWcB0uJpcg4wYDFYHrH1U6atGMtcHo66aZ77D/vkIn7YTc2ZylWvy8e4Y/RBJXJ6JtDAmE4cmmanArupdrq6CuqfUVOqW3rXAP16fvEKjODQ5iM2feF3FC+QY3U8p88IxEoxUBba2n7b2IciqmkSF0PiJT6LwltgoVliic6dzPr/VvmcqQsIH4OmixptWCSe32ie8qkDDv1mlb8suRuHTIMCBk+jRV21E45pyL7InkwKcmgIbqdi7ORJAhp5w==";
    pub(crate) const MESSAGE: &[u8] = b"aGVhZA.Ym9keQ";
    pub(crate) const SIGNATURE: &str = "AsnBHYe3GVFiYFAAUPFEJRn62aSrPrS5K9+PcwXGQWyrCssJ5BMcHGnN8GpBMKS1YMyQ8cUp+Qqv4TosGTr6lXNOsh9QkVpp1RX/vx3TKNbthlmspMFHwy8WWq8HCPU99zDs2AssAno9ou1fe76I8M397YnUgmD/JUorO2VUOiqUpB0iPAnt865X623D+9pnaXVZyBvjRghYpbadw4jdtC0AokoBliPTCK6Dc6idLH3kg9Qe+tzttWI862O7dYxNgn2G2I2CxaiNdtntMPNYvVS0pljjOJZCqd0+Kx8bDUP7Wrzxhlsl5eua+7k6/DIE66V+MQWml+V8WhgT3oM0ng==";
    const MODULUS_3: &str = "raIDcXuUf2Mhs67QDlvfERzvQ1r3Fq1EsJ1gZHmjYZgyGRE3bNsImbXsPyzHKN0JO7UCCYYiIJS6zirtFcDNDyFSgK2s1cXpwxcfIuT2p9Bpull1G3+eFa2xjvTRH/VHuQIFxFCN0IVFlTbtPwaOL6svSq4WWBEsF99GFcIGswqGQ507a0Vnnf6ZK6gwkJtbifi/WGs/crwhK3H8fO07nFH9IhBwZ81wcrkb9bPrVu4uv3JL2lxOPhwtLF+pd54qP+S2WOx0KSkw+8uaLDrGvUjY3zieofzfymhr8xoUEU5glveA1bwG+eJWlg9fXZbHQI9R0jPedZAiKTEb6lZrI4jhHx47eVeOI7uddvUKs+ae+OGf4I2d6T6IT5pvENz8Wc0BvnI0V/hsf3XFmLlMkpNlRVFP+Oq3/+JRGSlkrVY0JalQwKresxSSg2Rr7G7o2iYfTayO4kbI++oapLLNI8ew6Tp+r/3DOX42JyrNSXdTPP4/5sfxxh07Z0JBc6m7";
    const SIGNATURE_3: &str = "f26dmuDmgQS9+oZu7c0SJljMB2mNVmK08E4KYsGxC8m7GJdQuO+KDif0pFC5yLq16sjBgrAsBVlUFEnYX2QJBHshgww8ZTnKcI/9E7O1mupFdN+gW1FbeeoBYCkVCbV7h+7TJLFsfdHRXUs4O+R6C2kQuBtB1oT4eF7cR3xON2Ipeexk3IkTroB8MQyRsQGBfsE7tECbj+wyjzlek0lNZ5QkovaSriCg8zN1mFr0Xbilqkpj7xWIEbyDxVhWz3IT/yW+Ze3CN/LOCi5yonji90J4DpQK6KKTg5U0VOxTcl19QcpqECpFUg4+U2UuZmn7biTOTlShXTQ520dQfvoXXbkcXo3M6jGX9Fs5HfjLJM2dt4uAfNv6Y+GbkOgfmgXbv3UktEB7R6Ilux7e4x1XVxDOsam13trtBd9lS6VRSSyWpFrWjpODhhbWUbhEs6Aoi5IYp4W3UEgOieL+a1Dao/GrfmBMCUZPPaGk7M4ZUvql9V/Sl5D9Bza0DuVUpKkN";
    const MODULUS_4: &str = "ozhuDYiSS1oaFsq4rCzNltDRHqn1UqjN6iNsd7P4WLZquIU89GPhpfx1sSZhK8bXuLSkuW3yaOvMOu1rtcOvOo9h+F5CLY/vln2jv8/thEcwUCur/B5tZ9ElLXujC+UvVohpv7WaiTaQlYIIXpF6S4oOpJnSIutUiWLUUxLqTBkCU4A2lNEWPG1psZ36nyI/uBS2AF9uj2G8XbSnYV8Bdlgr92ockOl+Rsgiz+IeE1HrSBra1QfNTpYimkdm9htEaQn5dbh1xodW9TlxEEFIH7TIfjriqNhBUom+82SjxqJo+Hja+9wrAkX01SE/vF0deLdycMeAdUinVCeWqbUP/JOWr0in4dMBx7awNacnuvG+EEvKmiM8VeBlcQNG4klcp+vIH7ObclLe1slkZoPc052JKX+59mvgCDG2WAq/mV1miM1C3Qbpi1kr3FD8lKzEYmF283Xu3ZmsKapdgSJsGhqJNK7p8Y+EjzyiTEP9hi9HwWQieFGJW4VmTE41aV7tGhIcdoNzcemwDSd0SW+j3thOXyCeqA5qdeccm8h8slrmV1ljXym4M5mWvRZmec6pznWCGTJdLpT2qEG8XVh9Ab1XOncI9Fut52mqWJHJUuUSsODKnK7fOswSfAW8+HPsJz63t0UXbb6MpJcidEns2jGVIfLGP79LfA8eALhJtU8=";
    const SIGNATURE_4: &str = "dEJ+wfJjg7brrdaeUut2SlIw58dz6FSvlcn62MjgWVcq3OYxCPQEiv90BmIVvnC7yApiScoW/bnSRYvUH3qmf7lkYOPTByVtpTUmVox5BSstr8bBMEOCLAIkz6QJ/PFwtgmn1cMkoQRwvRVefpSl9rr5wgJnP7a0d7wmJL5Ynw/EdsGt2Gn11w8FS9A/7wxZ8MP6jySTvYLF7+KzeUumsOCohaLXwreBruuMtp+oacViq6PI929gV9+lT+iN+VQXsIZNjW6jGlZMdusAr9PEasOB2B6jMbCqlq+leTsUgAGyKkGLSE7sL7RdbLc5OaIfXxUFe9uaLXJDYMg3b3M4AXEqLVwAvOh4juGOO6NhPNbN+k7du6+ALiDKczYAX3fyHIdDQWYsgFE7YoLHtoyehzxsRkABVl490u4MRKN/tr4LIyY5aGfAq0cBRRpcdkw9TQTaGM3hXJQzkyvsrFZPLGQ212xckBCEsHkUHMfNrUP/4IGVzES5cT6esxOw6t+vLSei1YJZKxIRWsEislES5aHvNytV8NVL0CkMjrmAiyarmOVqHvJNN3gGvyeZb2+gRyuTnJbSvo8llz8DzyjgVOLuNJSA8PvI4R41pWOkMcIbpyFWRV8u9WtI1VLQsUv1LOQVBaE3UrWmhgr02MQxgkg/nEqIX0YNAYLZxWgUjAM=";
    const EXPONENT: [u8; 3] = [1, 0, 1];

    fn bytes(text: &str) -> Vec<u8> {
        Base64::decode_vec(text).unwrap()
    }

    #[test]
    fn a_signature_of_openssl_is_verified_at_every_size() {
        for (modulus, signature) in [(MODULUS, SIGNATURE), (MODULUS_3, SIGNATURE_3), (MODULUS_4, SIGNATURE_4)]
        {
            let key = PublicKey::new(&bytes(modulus), &EXPONENT).unwrap();
            assert!(key.verify(MESSAGE, &bytes(signature)));
            assert!(!key.verify(b"aGVhZA.Ym9keR", &bytes(signature)));
        }
    }

    #[test]
    fn nothing_else_is_a_signature() {
        let key = PublicKey::new(&bytes(MODULUS), &EXPONENT).unwrap();
        let good = bytes(SIGNATURE);
        for at in [0, 17, 255] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!key.verify(MESSAGE, &bad), "{at}");
        }
        let mut long = good.clone();
        long.insert(0, 0);
        for bad in [&good[1..], &long, &[], &[0; 256], &[0xff; 256], &bytes(MODULUS)] {
            assert!(!key.verify(MESSAGE, bad));
        }
    }

    #[test]
    fn weak_and_malformed_keys_are_no_keys() {
        let good = bytes(MODULUS);
        let mut even = good.clone();
        even[255] &= 0xfe;
        let mut short = good.clone();
        short[0] &= 0x7f;
        let mut led = good.clone();
        led.insert(0, 0);
        for bad in [&even[..], &short, &led, &good[..128], &[], &[0xff; 513]] {
            assert!(PublicKey::new(bad, &EXPONENT).is_none(), "{}", bad.len());
        }
        for exponent in [&[1][..], &[2], &[], &[1, 0], &[1, 0, 0, 0, 1]] {
            assert!(PublicKey::new(&good, exponent).is_none(), "{exponent:?}");
        }
    }
}
