//! Forms with files (RFC 7578). Parts are found by their lines, so a body that is cut off is read as far as it is
//! there.

use super::{Writer, is_secret_name};

impl Writer<'_> {
    pub(super) fn multipart(&mut self, text: &str) {
        // The boundary is what the body begins with; a body that begins otherwise is a text.
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("--") || first.len() <= 2 {
            return self.plain(text);
        }
        for (number, part) in text.split(first).enumerate() {
            if number > 0 {
                self.push(first);
            }
            let (separator, at) = match (part.find("\r\n\r\n"), part.find("\n\n")) {
                (Some(at), _) => (4, at),
                (None, Some(at)) => (2, at),
                (None, None) => {
                    self.plain(part);
                    continue;
                }
            };
            let (head, content) = part.split_at(at + separator);
            let names: Vec<&str> = head.split("name=").skip(1).map(quoted).collect();
            let content_end = content.trim_end_matches(['\r', '\n']);
            self.push_head(head);
            if names.iter().any(|name| is_secret_name(name)) {
                self.mark(content_end);
            } else {
                self.value(content_end);
            }
            self.push(&content[content_end.len()..]);
        }
    }

    /// The names of fields are no secrets; all else there may be.
    fn push_head(&mut self, head: &str) {
        for line in head.split_inclusive('\n') {
            let is_disposition =
                line.to_ascii_lowercase().starts_with("content-disposition: form-data; name=");
            match line.find("; filename") {
                None if is_disposition => self.push(line),
                Some(at) if is_disposition => {
                    self.push(&line[..at]);
                    self.plain(&line[at..]);
                }
                _ => self.plain(line),
            }
        }
    }
}

fn quoted(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(rest) => rest.split('"').next().unwrap_or_default(),
        None => text.split([';', '\r', '\n']).next().unwrap_or_default(),
    }
}
