"""Fetches a text every now and then, and puts it into a header of each request."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Manifest
from wit_world.exports.request_filter import RequestAction_Edit
from wit_world.imports import http_client, key_value, log
from wit_world.imports.types import Fault, HeaderOp_Set, RequestEdits

# An instance is configured once, before its first call.
url = ""


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Manifest("heartbeat", "0.1.0", request_headers=[], response_headers=[])

    def configure(self, config):
        """`config` is the `config` table of the host's document, as JSON."""
        global url
        url = json.loads(config).get("url")
        if not isinstance(url, str):
            raise Err([Fault("/url", "an address is needed")])


class Refresher(exports.Refresher):
    def on_refresh(self):
        """Called before anything is served, and then every `tick` of the host's document."""
        try:
            answer = http_client.send(http_client.Request("GET", url, [], b"", 5000, 0))
        except Err as error:
            raise Err(Fault("fetch", repr(error.value)))
        if answer.status != 200:
            raise Err(Fault("status", str(answer.status)))
        log.write(log.Level.DEBUG, "fetched")
        key_value.set("state", "heartbeat", answer.body, None)


class RequestFilter(exports.RequestFilter):
    def on_request(self, head):
        text = (key_value.get("state", "heartbeat") or b"").decode(errors="replace")
        return RequestAction_Edit(RequestEdits(None, None, None, [HeaderOp_Set(("x-heartbeat", text))], b""))
