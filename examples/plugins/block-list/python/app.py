"""Keeps out the addresses of a list that it fetches again and again, one in each line."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Manifest
from wit_world.exports.request_filter import RequestAction_Next, RequestAction_Respond
from wit_world.imports import http_client, key_value
from wit_world.imports.types import Fault, Reply

url = ""


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Manifest("block-list", "0.1.0", request_headers=[], response_headers=[])

    def configure(self, config):
        global url
        url = json.loads(config).get("url")
        if not isinstance(url, str):
            raise Err([Fault("/url", "an address is needed")])


class Refresher(exports.Refresher):
    def on_refresh(self):
        """The first call must succeed before anything is served; later the list of before stays in use."""
        try:
            answer = http_client.send(http_client.Request("GET", url, [], b"", 5000, 0))
        except Err as error:
            raise Err(Fault("fetch", repr(error.value)))
        if answer.status != 200:
            raise Err(Fault("status", str(answer.status)))
        key_value.set("list", "addresses", answer.body, None)


class RequestFilter(exports.RequestFilter):
    def on_request(self, head):
        addresses = key_value.get("list", "addresses")
        if addresses is None:
            raise Err(Fault("list", "there is none"))
        if head.client_ip.encode() in addresses.split(b"\n"):
            return RequestAction_Respond(Reply(403, [], b""))
        return RequestAction_Next()
