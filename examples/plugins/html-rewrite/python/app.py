"""Has the links of pages lead elsewhere, as they pass by: in tags `from` becomes `to`, whatever the pieces they come in."""

import json
import re

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Manifest
from wit_world.exports.response_stream_filter import ResponseStreamAction_Next, ResponseStreamAction_Rewrite
from wit_world.imports.body_streams import End
from wit_world.imports.types import Fault, ResponseEdits

links = [b"", b""]
# Of a tag that has not ended yet.
held = b""


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Manifest("html-rewrite", "0.1.0", request_headers=[], response_headers=["content-type"])

    def configure(self, config):
        global links
        links = [json.loads(config).get(key, "").encode() for key in ("from", "to")]
        if not links[0]:
            raise Err([Fault("/from", "a text is needed")])


def rewritten(text):
    return re.sub(rb"<[^>]*>?", lambda tag: tag[0].replace(*links), text)


class ResponseStreamFilter(exports.ResponseStreamFilter):
    def begin_response(self, head):
        global held
        held = b""
        if not (head.headers and head.headers[0][1].startswith("text/html")):
            return ResponseStreamAction_Next()
        return ResponseStreamAction_Rewrite(ResponseEdits(None, []))

    def on_response_piece(self, piece):
        global held
        held += piece
        opened = held.rfind(b"<")
        # What is longer than any tag is none.
        is_open = opened > held.rfind(b">") and len(held) - opened < 1 << 16
        end = opened if is_open else len(held)
        ready, held = held[:end], held[end:]
        return rewritten(ready)

    def end_response(self, trailers):
        return End(rewritten(held), [])
