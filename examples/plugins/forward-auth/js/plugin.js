// Asks another service about each request before it goes on.

import { send } from "adit:plugin/http-client@0.1.0";

let url;

export const lifecycle = {
  describe: () => ({
    name: "forward-auth",
    version: "0.1.0",
    requestHeaders: ["authorization", "cookie"],
    responseHeaders: [],
  }),
  configure(config) {
    ({ url } = JSON.parse(config));
    if (typeof url !== "string") throw [{ code: "/url", message: "an address is needed" }];
  },
};

const respond = (status, headers, body) => ({ tag: "respond", val: { status, headers, body } });
const SHOWN = ["content-type", "location", "set-cookie", "www-authenticate"];

export const requestFilter = {
  onRequest({ method, scheme, authority, pathWithQuery, headers }) {
    const about = [
      ["x-forwarded-method", method],
      ["x-forwarded-proto", scheme],
      ["x-forwarded-host", authority],
      ["x-forwarded-uri", pathWithQuery],
    ];
    let answer;
    try {
      answer = send({ method: "GET", url, headers: [...about, ...headers], body: new Uint8Array(), timeoutMs: 5000, redirects: 0 });
    } catch {
      return respond(503, [], new Uint8Array());
    }
    if (answer.status < 300) {
      const user = answer.headers.find(([name]) => name === "x-user");
      const op = user ? { tag: "set", val: user } : { tag: "remove", val: "x-user" };
      return { tag: "edit", val: { headers: [op], carry: new Uint8Array() } };
    }
    if (answer.status >= 500) return respond(503, [], new Uint8Array());
    return respond(answer.status, answer.headers.filter(([name]) => SHOWN.includes(name)), answer.body);
  },
};
