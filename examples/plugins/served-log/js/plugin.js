// Counts what was served and what failed, and says what was slow.

import { write } from "adit:plugin/log@0.1.0";
import { add } from "adit:plugin/metrics@0.1.0";

// An instance is configured once, before its first call. Milliseconds.
let slow = Infinity;

export const lifecycle = {
  describe: () => ({ name: "served-log", version: "0.1.0", requestHeaders: [], responseHeaders: [] }),

  // `config` is the `config` table of the host's document, as JSON.
  configure(config) {
    slow = JSON.parse(config)["slow-ms"] ?? Infinity;
    // What is thrown is the error of the function's `result`.
    if (typeof slow !== "number") throw [{ code: "/slow-ms", message: "milliseconds are needed" }];
  },
};

export const accessLog = {
  onLog(entries) {
    add("served", entries.length);
    for (const { rule, method, pathWithQuery, status, doneAfter } of entries) {
      if (status >= 500) add("errors", 1);
      // Microseconds.
      const took = Math.floor(Number(doneAfter) / 1000);
      if (took > slow) {
        add("slow", 1);
        write("warn", `${rule} ${method} ${pathWithQuery} took ${took} ms`);
      }
    }
  },
};
