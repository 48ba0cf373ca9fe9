"""Greets at /hello, and says hello in a header everywhere else."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Manifest
from wit_world.exports.request_filter import RequestAction_Edit, RequestAction_Respond
from wit_world.exports.response_filter import ResponseAction_Edit
from wit_world.imports.types import Fault, HeaderOp_Set, Reply, RequestEdits, ResponseEdits

# An instance is configured once, before its first request.
text = "hello"


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Manifest("greeting", "0.1.0", request_headers=["x-name"], response_headers=[])

    def configure(self, config):
        """`config` is the `config` table of the host's document, as JSON."""
        global text
        faults = []
        for key, value in json.loads(config).items():
            if key != "text":
                faults.append(Fault(f"/{key}", "is not known"))
            elif not isinstance(value, str):
                faults.append(Fault("/text", "is not a string"))
            else:
                text = value
        if faults:
            raise Err(faults)


class RequestFilter(exports.RequestFilter):
    def on_request(self, head):
        if head.path_with_query.split("?")[0] == "/hello":
            name = head.headers[0][1] if head.headers else "world"
            headers = [("content-type", "text/plain; charset=utf-8")]
            return RequestAction_Respond(Reply(200, headers, f"{text}, {name}!\n".encode()))
        return RequestAction_Edit(RequestEdits(None, None, None, [set_header()], b""))


class ResponseFilter(exports.ResponseFilter):
    def on_response(self, head):
        return ResponseAction_Edit(ResponseEdits(None, [set_header()]))


def set_header():
    return HeaderOp_Set(("x-greeting", text))
