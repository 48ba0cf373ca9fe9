//! Redis's protocol in its second version, as much of it as is needed: commands out, replies in, both with an end. Knows
//! bytes; does not know what is asked.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Most elements of a list: as many keys as a server may list at once, and a few more.
const MOST_ELEMENTS: usize = 8192;
/// Longest line, bytes: an error or a status.
const LONGEST_LINE: usize = 4096;
/// Most bytes of a whole reply.
pub(super) const LARGEST_REPLY: usize = 4 << 20;

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status(String),
    Error(String),
    Integer(i64),
    /// `None` says that there is none.
    Bytes(Option<Vec<u8>>),
    /// Lists have no lists in them here.
    List(Vec<Self>),
}

/// A command as it is sent.
pub(super) fn command(parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len() + 16).sum();
    let mut bytes = Vec::with_capacity(length + 16);
    bytes.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The next reply.
pub(super) async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Reply> {
    let mut left = LARGEST_REPLY;
    let line = line(from).await?;
    let Some(count) = line.strip_prefix('*') else { return item(from, &line, &mut left).await };
    let count: usize = match count.parse::<i64>() {
        Ok(-1) => return Ok(Reply::Bytes(None)),
        Ok(count) => usize::try_from(count).ok().filter(|count| *count <= MOST_ELEMENTS),
        Err(_) => None,
    }
    .ok_or_else(|| broken("a list of so many"))?;
    let mut list = Vec::new();
    for _ in 0..count {
        let line = self::line(from).await?;
        list.push(item(from, &line, &mut left).await?);
    }
    Ok(Reply::List(list))
}

/// What begins with this line, and may take so many bytes more.
async fn item(from: &mut (impl AsyncBufRead + Unpin), line: &str, left: &mut usize) -> io::Result<Reply> {
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| broken("an empty line"))?;
    match kind {
        "+" => Ok(Reply::Status(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        ":" => Ok(Reply::Integer(rest.parse().map_err(|_| broken("a number that is none"))?)),
        "$" if rest == "-1" => Ok(Reply::Bytes(None)),
        "$" => {
            let length = rest.parse::<usize>().ok().filter(|length| *length <= *left);
            let length = length.ok_or_else(|| broken("more bytes than there may be"))?;
            *left -= length;
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes).await?;
            if !bytes.ends_with(b"\r\n") {
                return Err(broken("bytes without their end"));
            }
            bytes.truncate(length);
            Ok(Reply::Bytes(Some(bytes)))
        }
        _ => Err(broken("something that is no reply")),
    }
}

async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(LONGEST_LINE as u64).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(|| broken("a line without its end"))?;
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server of shared buckets sends {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(mut bytes: &[u8]) -> io::Result<Reply> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(&mut bytes))
    }

    #[test]
    fn a_command_says_how_long_each_of_its_parts_is() {
        let bytes = command(&[b"SET", b"", b"a\r\nb"]);
        assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn replies_are_read_to_their_end() {
        let bytes = |text: &str| Reply::Bytes(Some(text.as_bytes().to_vec()));
        for (text, reply) in [
            ("+OK\r\n", Reply::Status("OK".to_owned())),
            (
                "-NOAUTH Authentication required.\r\n",
                Reply::Error("NOAUTH Authentication required.".to_owned()),
            ),
            (":-9223372036854775808\r\n", Reply::Integer(i64::MIN)),
            ("$-1\r\n", Reply::Bytes(None)),
            ("$4\r\na\r\nb\r\n", bytes("a\r\nb")),
            ("*-1\r\n", Reply::Bytes(None)),
            ("*0\r\n", Reply::List(Vec::new())),
            (
                "*3\r\n$1\r\n7\r\n$-1\r\n:1\r\n",
                Reply::List(vec![bytes("7"), Reply::Bytes(None), Reply::Integer(1)]),
            ),
        ] {
            assert_eq!(all(text.as_bytes()).unwrap(), reply, "{text:?}");
        }
    }

    #[test]
    fn what_is_cut_off_too_long_or_something_else_is_no_reply() {
        let (long, wide) =
            (format!("+{}\r\n", "x".repeat(LONGEST_LINE)), format!("*{}\r\n", MOST_ELEMENTS + 1));
        let huge = format!("${}\r\n", LARGEST_REPLY + 1);
        for text in [
            "",
            "+OK",
            "+OK\n",
            "\r\n",
            "$5\r\nabc",
            "$3\r\nabcde",
            "$-2\r\n",
            "$x\r\n",
            ":1.5\r\n",
            "*2\r\n:1\r\n",
            "*-2\r\n",
            "*1\r\n*1\r\n:1\r\n",
            "%1\r\n",
            "é\r\n",
            &long,
            &wide,
            &huge,
        ] {
            assert!(all(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes);
        }

        #[test]
        fn lines_of_any_kind_are_read_without_panic(text in "([*$:+-]-?[0-9]{0,20}\r\n){0,6}") {
            let _ = all(text.as_bytes());
        }
    }
}
