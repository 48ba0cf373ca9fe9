"""Counts what was served and what failed, and says what was slow."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Manifest
from wit_world.imports import log, metrics
from wit_world.imports.types import Fault

# An instance is configured once, before its first call. Milliseconds.
slow = float("inf")


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Manifest("served-log", "0.1.0", request_headers=[], response_headers=[])

    def configure(self, config):
        """`config` is the `config` table of the host's document, as JSON."""
        global slow
        slow = json.loads(config).get("slow-ms", slow)
        if not isinstance(slow, (int, float)):
            raise Err([Fault("/slow-ms", "milliseconds are needed")])


class AccessLog(exports.AccessLog):
    def on_log(self, entries, dropped):
        metrics.add("served", len(entries))
        for entry in entries:
            if entry.status >= 500:
                metrics.add("errors", 1)
            took = entry.done_after // 1000
            if took > slow:
                metrics.add("slow", 1)
                line = f"{entry.rule} {entry.method} {entry.path_with_query} took {took} ms"
                log.write(log.Level.WARN, line)
