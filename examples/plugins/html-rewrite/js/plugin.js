// Has the links of pages lead elsewhere, as they pass by: in tags `from` becomes `to`, whatever the pieces they come in.

let from, to;
// Of a tag that has not ended yet: text with a character for each byte, as `from` and `to`.
let held = "";

const utf8 = (text) => unescape(encodeURIComponent(text));

export const lifecycle = {
  describe: () => ({ name: "html-rewrite", version: "0.1.0", requestHeaders: [], responseHeaders: ["content-type"] }),
  configure(config) {
    [from, to] = ["from", "to"].map((key) => utf8(JSON.parse(config)[key] ?? ""));
    if (!from) throw [{ code: "/from", message: "a text is needed" }];
  },
};

const rewritten = (text) => {
  const changed = text.replace(/<[^>]*>?/g, (tag) => tag.replaceAll(from, to));
  const bytes = new Uint8Array(changed.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = changed.charCodeAt(at);
  return bytes;
};

export const responseStreamFilter = {
  beginResponse({ headers }) {
    held = "";
    const isPage = headers[0]?.[1].startsWith("text/html");
    return isPage ? { tag: "rewrite", val: { headers: [] } } : { tag: "next" };
  },

  onResponsePiece(piece) {
    for (let at = 0; at < piece.length; at += 4096) {
      held += String.fromCharCode(...piece.subarray(at, at + 4096));
    }
    const open = held.lastIndexOf("<");
    // What is longer than any tag is none.
    const isOpen = open > held.lastIndexOf(">") && held.length - open < 1 << 16;
    const end = isOpen ? open : held.length;
    const ready = held.slice(0, end);
    held = held.slice(end);
    return rewritten(ready);
  },

  endResponse: () => ({ rest: rewritten(held), trailers: [] }),
};
