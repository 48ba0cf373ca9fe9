"""A service with one page."""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.wasi_http_types import Fields, OutgoingBody, OutgoingResponse, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        path, _, name = (request.path_with_query() or "/").partition("?")
        if path == "/":
            answer(response_out, 200, f"welcome, {name or 'stranger'}\n")
        else:
            answer(response_out, 404, "nothing is here\n")


def answer(out, status, text):
    headers = Fields.from_list([("content-type", b"text/plain; charset=utf-8")])
    response = OutgoingResponse(headers)
    response.set_status_code(status)
    body = response.body()
    # The head goes out here; what is written after it streams.
    ResponseOutparam.set(out, Ok(response))
    data = text.encode()
    with body.write() as stream:
        for at in range(0, len(data), 4096):
            stream.blocking_write_and_flush(data[at : at + 4096])
    OutgoingBody.finish(body, None)
