// Has the links of pages lead elsewhere, as they pass by: in tags `from` becomes `to`, whatever the pieces they come in.

// Looked for as text with a character for each byte; bytes are only ever copied whole, since a loop over them is slow.
let from, to;
// Of a tag that has not ended yet.
let held = new Uint8Array();

const utf8 = (text) => unescape(encodeURIComponent(text));

export const lifecycle = {
  describe: () => ({ name: "html-rewrite", version: "0.1.0", requestHeaders: [], responseHeaders: ["content-type"] }),
  configure(config) {
    [from, to] = ["from", "to"].map((key) => utf8(JSON.parse(config)[key] ?? ""));
    if (!from) throw [{ code: "/from", message: "a text is needed" }];
    to = Uint8Array.from(to, (char) => char.charCodeAt(0));
  },
};

const joined = (parts) => {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
};

const rewritten = (bytes) => {
  let [text, parts, done] = ["", [], 0];
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode.apply(null, bytes.subarray(at, at + 4096));
  for (const { 0: tag, index } of text.matchAll(/<[^>]*>?/g)) {
    for (let at = tag.indexOf(from); at >= 0; at = tag.indexOf(from, at + from.length)) {
      parts.push(bytes.subarray(done, index + at), to);
      done = index + at + from.length;
    }
  }
  return joined([...parts, bytes.subarray(done)]);
};

export const responseStreamFilter = {
  beginResponse({ headers }) {
    held = new Uint8Array();
    const isPage = headers[0]?.[1].startsWith("text/html");
    return isPage ? { tag: "rewrite", val: { headers: [] } } : { tag: "next" };
  },

  onResponsePiece(piece) {
    held = joined([held, piece]);
    const open = held.lastIndexOf(60); // <
    // What is longer than any tag is none.
    const isOpen = open > held.lastIndexOf(62) && held.length - open < 1 << 16;
    const ready = held.subarray(0, isOpen ? open : held.length);
    held = held.subarray(ready.length);
    return rewritten(ready);
  },

  endResponse: () => ({ rest: rewritten(held), trailers: [] }),
};
