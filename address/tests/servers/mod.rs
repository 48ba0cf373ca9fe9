//! Servers that read paths in their own ways, written without the crate. The tests of the whole product have
//! origins of this kind too.

/// Undoes escapes once, as every server does that undoes any.
fn undo(path: &str) -> String {
    let bytes = path.as_bytes();
    let (mut undone, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let value = escape
            .filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match value {
            Some(value) if bytes[at] == b'%' => {
                undone.push(value);
                at += 3;
            }
            _ => {
                undone.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&undone).into_owned()
}

fn resolve(path: &str, drops_empty: bool) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        is_folder = segment.is_empty() || segment == "." || segment == "..";
        match segment {
            "" if drops_empty => {}
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    // A last segment that is empty stands in the list already where empty ones are kept.
    let needs_slash =
        is_folder && (drops_empty || !path.ends_with('/')) && (!drops_empty || !kept.is_empty());
    if needs_slash {
        format!("/{}/", kept.join("/")).replacen("//", "/", usize::from(kept.is_empty()))
    } else {
        format!("/{}", kept.join("/"))
    }
}

fn merge(path: &str) -> String {
    let mut merged = String::new();
    for letter in path.chars() {
        if letter != '/' || !merged.ends_with('/') {
            merged.push(letter);
        }
    }
    merged
}

fn without_parameters(path: &str) -> String {
    path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("/")
}

/// A file server: undone once, empty segments and dots gone.
fn file_server(path: &str) -> String {
    resolve(&undo(path), true)
}

/// A router that cleans nothing.
fn router(path: &str) -> String {
    undo(path)
}

/// A servlet container: parameters go before escapes are undone.
fn container(path: &str) -> String {
    resolve(&undo(&without_parameters(path)), true)
}

/// The same behind a proxy that undoes escapes itself.
fn container_behind_proxy(path: &str) -> String {
    container(&resolve(&undo(path), true))
}

/// A server of Windows, which also undoes twice.
fn windows(path: &str) -> String {
    resolve(&undo(&undo(path)).replace('\\', "/"), true)
}

/// RFC 3986 with nothing dropped.
fn strict(path: &str) -> String {
    resolve(&undo(path), false)
}

/// A URL library of browsers: `\` is a slash and `%2e` a dot, but `%2f`, `%5c` and `%3b` are no separators. What it does not
/// undo is undone here where it means the same to everybody.
fn browser(path: &str) -> String {
    let dotted = path.replace('\\', "/").replace("%2e", ".").replace("%2E", ".");
    let mut kept = resolve(&dotted, false);
    for escape in ["2f", "2F", "5c", "3b"] {
        kept = kept.replace(&format!("%{escape}"), &format!("%25{escape}"));
    }
    undo(&kept)
}

/// A proxy that hands on what it has undone, before a router.
fn twice(path: &str) -> String {
    undo(&merge(&undo(path)))
}

/// One that keeps `%2f`, before a file server.
fn keeps_slashes(path: &str) -> String {
    let kept = path.replace("%2f", "%252f").replace("%2F", "%252F");
    file_server(&resolve(&undo(&kept), true))
}

/// Reads what it has undone as an address once more.
fn rereads(path: &str) -> String {
    let undone = undo(path);
    resolve(undone.split(['?', '#', '\0']).next().unwrap_or_default(), true)
}

pub(super) type Reader = fn(&str) -> String;

pub(super) const READERS: [(&str, Reader); 10] = [
    ("file server", file_server),
    ("router", router),
    ("container", container),
    ("container behind a proxy", container_behind_proxy),
    ("windows", windows),
    ("strict", strict),
    ("browser", browser),
    ("twice", twice),
    ("keeps slashes", keeps_slashes),
    ("rereads", rereads),
];
