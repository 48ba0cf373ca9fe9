// Keeps out the addresses of a list that it fetches again and again, one in each line.

import { send } from "adit:plugin/http-client@0.1.0";
import { get, set } from "adit:plugin/key-value@0.1.0";

let url;

const fault = (code, message) => ({ code, message: String(message) });

export const lifecycle = {
  describe: () => ({ name: "block-list", version: "0.1.0", requestHeaders: [], responseHeaders: [] }),
  configure(config) {
    ({ url } = JSON.parse(config));
    if (typeof url !== "string") throw [fault("/url", "an address is needed")];
  },
};

export const refresher = {
  // The first call must succeed before anything is served; later the list of before stays in use.
  onRefresh() {
    const request = { method: "GET", url, headers: [], body: new Uint8Array(), timeoutMs: 5000, redirects: 0 };
    let answer;
    try {
      answer = send(request);
    } catch (error) {
      throw fault("fetch", JSON.stringify(error.payload ?? error));
    }
    if (answer.status !== 200) throw fault("status", answer.status);
    set("list", "addresses", answer.body, undefined);
  },
};

export const requestFilter = {
  onRequest({ clientIp }) {
    const list = get("list", "addresses");
    if (!list) throw fault("list", "there is none");
    let text = "\n";
    for (const byte of list) text += String.fromCharCode(byte);
    if (!`${text}\n`.includes(`\n${clientIp}\n`)) return { tag: "next" };
    return { tag: "respond", val: { status: 403, headers: [], body: new Uint8Array() } };
  },
};
