// Fetches a text every now and then, and puts it into a header of each request.

import { send } from "adit:plugin/http-client@0.1.0";
import { get, set } from "adit:plugin/key-value@0.1.0";
import { write } from "adit:plugin/log@0.1.0";

// An instance is configured once, before its first call.
let url;

const fault = (code, message) => ({ code, message: String(message) });

export const lifecycle = {
  describe: () => ({ name: "heartbeat", version: "0.1.0", requestHeaders: [], responseHeaders: [] }),

  // `config` is the `config` table of the host's document, as JSON.
  configure(config) {
    ({ url } = JSON.parse(config));
    // What is thrown is the error of the function's `result`.
    if (typeof url !== "string") throw [fault("/url", "an address is needed")];
  },
};

export const refresher = {
  // Called before anything is served, and then every `tick` of the host's document.
  onRefresh() {
    let answer;
    try {
      answer = send({ method: "GET", url, headers: [], body: new Uint8Array(), timeoutMs: 5000, redirects: 0 });
    } catch (error) {
      throw fault("fetch", JSON.stringify(error.payload ?? error));
    }
    if (answer.status !== 200) throw fault("status", answer.status);
    write("debug", "fetched");
    set("state", "heartbeat", answer.body, undefined);
  },
};

export const requestFilter = {
  onRequest() {
    const value = get("state", "heartbeat") ?? new Uint8Array();
    const text = decodeURIComponent(escape(String.fromCharCode(...value)));
    return { tag: "edit", val: { headers: [{ tag: "set", val: ["x-heartbeat", text] }], carry: new Uint8Array() } };
  },
};
