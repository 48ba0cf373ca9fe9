// Lets requests pass whose body the owner of a secret has signed: `x-signature: sha256=HEX`.

import { verifyHmac } from "adit:plugin/keyed@0.1.0";

export const lifecycle = {
  describe: () => ({
    name: "body-signature",
    version: "0.1.0",
    requestHeaders: ["x-signature"],
    responseHeaders: [],
  }),
  configure() {},
};

export const requestBodyFilter = {
  requestBodyLimits: () => ({ most: 1 << 20, beyond: "refuse" }),

  onRequestBody(head, body) {
    const told = /^sha256=((?:[0-9a-f]{2})+)$/.exec(head.headers[0]?.[1] ?? "");
    const tag = Uint8Array.from(told?.[1].match(/../g) ?? [], (pair) => parseInt(pair, 16));
    if (verifyHmac("sha256", "webhook", body, tag)) return { tag: "next" };
    return { tag: "respond", val: { status: 401, headers: [], body: new Uint8Array() } };
  },
};
