"""Lets requests pass whose body the owner of a secret has signed: `x-signature: sha256=HEX`."""

from wit_world import exports
from wit_world.exports.lifecycle import Manifest
from wit_world.exports.request_body_filter import RequestBodyAction_Next, RequestBodyAction_Respond
from wit_world.imports import keyed
from wit_world.imports.bodies import Beyond, Limits
from wit_world.imports.crypto import Hash
from wit_world.imports.types import Reply


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Manifest("body-signature", "0.1.0", request_headers=["x-signature"], response_headers=[])

    def configure(self, config):
        pass


class RequestBodyFilter(exports.RequestBodyFilter):
    def request_body_limits(self):
        return Limits(1 << 20, Beyond.REFUSE)

    def on_request_body(self, head, body):
        told = head.headers[0][1].removeprefix("sha256=") if head.headers else ""
        try:
            tag = bytes.fromhex(told)
        except ValueError:
            tag = b""
        if keyed.verify_hmac(Hash.SHA256, "webhook", body, tag):
            return RequestBodyAction_Next()
        return RequestBodyAction_Respond(Reply(401, [], b""))
