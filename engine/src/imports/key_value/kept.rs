//! A bucket as bytes that outlive the process: a line that says what they are, its entries, and a digest of all that,
//! so that half of a file is never taken for a whole one. Times to live are kept as times of day: they run on while no
//! process has the bucket.

use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::{Bucket, Entries, Entry, size};

const FORMAT: &[u8] = b"adit bucket 1\n";

impl Bucket {
    /// All of it, if it has changed since this was last asked.
    pub(crate) fn changed(&self, now: Instant, time: SystemTime) -> Option<Vec<u8>> {
        let mut entries = self.entries();
        std::mem::take(&mut entries.is_changed).then(|| written(&entries, now, time))
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.entries().is_changed
    }

    /// What was handed out could not be written.
    pub(crate) fn written_in_vain(&self) {
        self.entries().is_changed = true;
    }

    /// What was written, without what has expired meanwhile; `None` if that is damaged.
    pub(crate) fn restored(bytes: &[u8], now: Instant, time: SystemTime) -> Option<Self> {
        let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(SHA256_OUTPUT_LEN)?)?;
        if digest(&SHA256, content).as_ref() != sum {
            return None;
        }
        let mut rest = content.strip_prefix(FORMAT)?;
        let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut entries = Entries::default();
        while !rest.is_empty() {
            let key = String::from_utf8(part(&mut rest)?.to_vec()).ok()?;
            let value = part(&mut rest)?.to_vec();
            let (until, behind) = rest.split_first_chunk()?;
            rest = behind;
            let expires = match u64::from_be_bytes(*until) {
                0 => None,
                until => match Duration::from_millis(until).checked_sub(since_1970) {
                    None => continue,
                    Some(left) => now.checked_add(left),
                },
            };
            entries.used += size(&key, &value);
            entries.map.insert(key, Entry { value, expires });
        }
        Some(Self(entries.into()))
    }
}

fn written(entries: &Entries, now: Instant, time: SystemTime) -> Vec<u8> {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut bytes = FORMAT.to_vec();
    for (key, entry) in entries.map.iter().filter(|(_, entry)| !entry.is_over(now)) {
        for part in [key.as_bytes(), &entry.value] {
            let length = u32::try_from(part.len()).expect("keys and values are at most a MiB");
            bytes.extend(length.to_be_bytes());
            bytes.extend(part);
        }
        let left = entry.expires.map(|expires| expires.saturating_duration_since(now));
        // One that never comes is none.
        let until = left.map_or(0, |left| u64::try_from((since_1970 + left).as_millis()).unwrap_or(0));
        bytes.extend(until.to_be_bytes());
    }
    let sum = digest(&SHA256, &bytes);
    bytes.extend(sum.as_ref());
    bytes
}

fn part<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (part, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: usize = 10_000;

    #[test]
    fn what_was_kept_is_there_again_and_what_has_expired_meanwhile_is_not() {
        let (bucket, now, time) = (Bucket::default(), Instant::now(), SystemTime::now());
        assert_eq!(bucket.changed(now, time), None, "nothing is there");
        bucket.put("stays".into(), b"\0\xff".to_vec(), None, QUOTA, now).unwrap();
        bucket.put("".into(), vec![], None, QUOTA, now).unwrap();
        let in_a_minute = now.checked_add(Duration::from_secs(60));
        bucket.put("ends".into(), b"1".to_vec(), in_a_minute, QUOTA, now).unwrap();
        let kept = bucket.changed(now, time).expect("it has changed");
        assert_eq!(bucket.changed(now, time), None, "since then it has not");
        bucket.written_in_vain();
        assert!(bucket.is_changed());

        let later = |seconds| {
            let (now, time) = (Instant::now(), time + Duration::from_secs(seconds));
            (Bucket::restored(&kept, now, time).expect("it is whole"), now)
        };
        let (soon, now) = later(30);
        assert_eq!(soon.keys(now), ["", "ends", "stays"]);
        assert_eq!(soon.value("stays", now), Some(b"\0\xff".to_vec()));
        assert_eq!(soon.value("ends", now + Duration::from_secs(29)), Some(b"1".to_vec()));
        assert_eq!(soon.value("ends", now + Duration::from_secs(31)), None, "its time has run on");
        let (late, now) = later(61);
        assert_eq!(late.keys(now), ["", "stays"]);
        late.remove("stays");
        late.remove("");
        assert_eq!(late.entries().used, 0, "what is restored counts");
    }

    #[test]
    fn what_is_cut_or_changed_is_not_taken() {
        let (bucket, now, time) = (Bucket::default(), Instant::now(), SystemTime::now());
        bucket.put("key".into(), b"value".to_vec(), None, QUOTA, now).unwrap();
        let kept = bucket.changed(now, time).unwrap();
        assert!(Bucket::restored(&kept, now, time).is_some());
        for length in 0..kept.len() {
            assert!(Bucket::restored(&kept[..length], now, time).is_none(), "{length}");
            let mut other = kept.clone();
            other[length] ^= 1;
            assert!(Bucket::restored(&other, now, time).is_none(), "{length}");
        }
    }
}
