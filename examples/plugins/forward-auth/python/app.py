"""Asks another service about each request before it goes on."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Manifest
from wit_world.exports.request_filter import RequestAction_Edit, RequestAction_Respond
from wit_world.imports import http_client
from wit_world.imports.types import Fault, HeaderOp_Remove, HeaderOp_Set, Reply, RequestEdits

url = ""
SHOWN = ("content-type", "location", "set-cookie", "www-authenticate")


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Manifest("forward-auth", "0.1.0", request_headers=["authorization", "cookie"], response_headers=[])

    def configure(self, config):
        global url
        url = json.loads(config).get("url")
        if not isinstance(url, str):
            raise Err([Fault("/url", "an address is needed")])


class RequestFilter(exports.RequestFilter):
    def on_request(self, head):
        about = [
            ("x-forwarded-method", head.method),
            ("x-forwarded-proto", head.scheme),
            ("x-forwarded-host", head.authority),
            ("x-forwarded-uri", head.path_with_query),
        ]
        try:
            answer = http_client.send(http_client.Request("GET", url, about + head.headers, b"", 5000, 0))
        except Err:
            return RequestAction_Respond(Reply(503, [], b""))
        if answer.status < 300:
            user = [HeaderOp_Set(header) for header in answer.headers if header[0] == "x-user"]
            return RequestAction_Edit(RequestEdits(None, None, None, user or [HeaderOp_Remove("x-user")], b""))
        if answer.status >= 500:
            return RequestAction_Respond(Reply(503, [], b""))
        shown = [header for header in answer.headers if header[0] in SHOWN]
        return RequestAction_Respond(Reply(answer.status, shown, answer.body))
