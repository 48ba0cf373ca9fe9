// Greets at /hello, and says hello in a header everywhere else.

import type { Fault, HeaderOp, Lifecycle, RequestFilter, ResponseFilter } from "./adit-plugin";

// An instance is configured once, before its first request.
let text = "hello";

export const lifecycle: Lifecycle = {
  describe: () => ({
    name: "greeting",
    version: "0.1.0",
    requestHeaders: ["x-name"],
    responseHeaders: [],
  }),

  // `config` is the `config` table of the host's document, as JSON.
  configure(config) {
    const faults: Fault[] = [];
    for (const [key, value] of Object.entries<unknown>(JSON.parse(config))) {
      if (key !== "text") faults.push({ code: `/${key}`, message: "is not known" });
      else if (typeof value !== "string") faults.push({ code: "/text", message: "is not a string" });
      else text = value;
    }
    if (faults.length > 0) throw faults;
  },
};

export const requestFilter: RequestFilter = {
  onRequest(head) {
    if (head.pathWithQuery.split("?")[0] === "/hello") {
      const name = head.headers.length > 0 ? head.headers[0][1] : "world";
      return {
        tag: "respond",
        val: {
          status: 200,
          headers: [["content-type", "text/plain; charset=utf-8"]],
          body: utf8(`${text}, ${name}!\n`),
        },
      };
    }
    return { tag: "edit", val: { headers: [setHeader()], carry: new Uint8Array() } };
  },
};

export const responseFilter: ResponseFilter = {
  onResponse: () => ({ tag: "edit", val: { headers: [setHeader()] } }),
};

const setHeader = (): HeaderOp => ({ tag: "set", val: ["x-greeting", text] });

// QuickJS has no TextEncoder.
const utf8 = (string: string) =>
  Uint8Array.from(unescape(encodeURIComponent(string)), (c) => c.charCodeAt(0));
