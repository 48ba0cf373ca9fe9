"""The cases by which implementations of gRPC prove that they understand each other (grpc/doc/
interop-test-descriptions.md), made from that description with the messages as plain bytes.

    interop.py serve [CERT KEY]   a server on a free port of this machine, which it prints; with PEM files over TLS
    interop.py ask ADDRESS NAME   every case against it, called by that name
"""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "grpc.testing.TestService"
LARGE_ASKED, LARGE_ANSWER = 271828, 314159
SIZES_ASKED, SIZES_ANSWER = [27182, 8, 1828, 45904], [31415, 9, 2653, 58979]
ODD_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
LIMIT = 20


# A server.


def echo(context):
    """Gives back what came in the metadata."""
    asked = dict(context.invocation_metadata())
    if INITIAL in asked:
        context.send_initial_metadata([(INITIAL, asked[INITIAL])])
    if TRAILING in asked:
        context.set_trailing_metadata([(TRAILING, asked[TRAILING])])


def unary(request, context):
    echo(context)
    if request.startswith(b"status "):
        code, _, message = request[len(b"status "):].partition(b" ")
        context.abort(next(c for c in grpc.StatusCode if c.value[0] == int(code)), message.decode())
    if request.startswith(b"sleep"):
        ended = threading.Event()
        context.add_callback(ended.set)
        CANCELLED.release() if ended.wait(LIMIT) else None
        return b""
    if request == b"cancelled?":
        return b"yes" if CANCELLED.acquire(timeout=LIMIT) else b"no"
    return bytes(int(request or b"0"))


def client_stream(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def hanging_stream(requests, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    try:
        for _ in requests:
            pass
    finally:
        if ended.wait(LIMIT):
            CANCELLED.release()
    return b""


def server_stream(request, context):
    for size in request.split():
        yield bytes(int(size))


def both_streams(requests, context):
    echo(context)
    ended = threading.Event()
    context.add_callback(ended.set)
    must_be_cancelled = False
    try:
        for request in requests:
            must_be_cancelled = must_be_cancelled or request.endswith(b" hold")
            if request.startswith(b"status "):
                code, _, message = request[len(b"status "):].partition(b" ")
                context.abort(next(c for c in grpc.StatusCode if c.value[0] == int(code)), message.decode())
            yield bytes(int(request.split(b" ", 1)[0]))
    finally:
        if must_be_cancelled and ended.wait(LIMIT):
            CANCELLED.release()


CANCELLED = threading.Semaphore(0)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def serve(certificate=None, key=None):
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([
        grpc.method_handlers_generic_handler(SERVICE, {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
            "HangingStream": grpc.stream_unary_rpc_method_handler(hanging_stream),
            "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
            "BothStreams": grpc.stream_stream_rpc_method_handler(both_streams),
        })
    ])
    if certificate:
        pair = grpc.ssl_server_credentials([(read(key), read(certificate))])
        port = server.add_secure_port("127.0.0.1:0", pair)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("port", port, flush=True)
    # Ends with whoever started it.
    sys.stdin.read()
    server.stop(0)


# A client.


def expect(seen, wanted):
    assert seen == wanted, f"{seen!r} instead of {wanted!r}"


class Failed:
    """A call that must fail so."""

    def __init__(self, code, details=None):
        self.code, self.details = code, details

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        assert isinstance(error, grpc.RpcError), f"no failure but {error!r}"
        expect(error.code(), self.code)
        if self.details is not None:
            expect(error.details(), self.details)
        return True


class Stub:
    def __init__(self, channel):
        self.channel = channel
        self.unary = channel.unary_unary(f"/{SERVICE}/Unary")
        self.client_stream = channel.stream_unary(f"/{SERVICE}/ClientStream")
        self.hanging_stream = channel.stream_unary(f"/{SERVICE}/HangingStream")
        self.server_stream = channel.unary_stream(f"/{SERVICE}/ServerStream")
        self.both_streams = channel.stream_stream(f"/{SERVICE}/BothStreams")


def was_cancelled(stub):
    expect(stub.unary(b"cancelled?", timeout=LIMIT), b"yes")


def empty_unary(stub):
    expect(stub.unary(b"", timeout=LIMIT), b"")


def large_unary(stub):
    request = str(LARGE_ANSWER).encode() + b" " * (LARGE_ASKED - 6)
    expect(len(stub.unary(request, timeout=LIMIT)), LARGE_ANSWER)


def client_streaming(stub):
    total = stub.client_stream((bytes(size) for size in SIZES_ASKED), timeout=LIMIT)
    expect(int(total), sum(SIZES_ASKED))


def server_streaming(stub):
    request = " ".join(str(size) for size in SIZES_ANSWER).encode()
    expect([len(answer) for answer in stub.server_stream(request, timeout=LIMIT)], SIZES_ANSWER)


def ping_pong(stub):
    turn = threading.Semaphore(0)

    def asked():
        for asked, answered in zip(SIZES_ASKED, SIZES_ANSWER):
            yield str(answered).encode().ljust(asked)
            # The next one does not exist before the answer to this one.
            assert turn.acquire(timeout=LIMIT)

    sizes = []
    for answer in stub.both_streams(asked(), timeout=LIMIT):
        sizes.append(len(answer))
        turn.release()
    expect(sizes, SIZES_ANSWER)


def empty_stream(stub):
    expect(list(stub.both_streams(iter(()), timeout=LIMIT)), [])


def custom_metadata(stub):
    metadata = [(INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab")]
    answer, call = stub.unary.with_call(b"1", metadata=metadata, timeout=LIMIT)
    expect(answer, bytes(1))
    expect(dict(call.initial_metadata())[INITIAL], metadata[0][1])
    expect(dict(call.trailing_metadata())[TRAILING], metadata[1][1])
    call = stub.both_streams(iter([b"2"]), metadata=metadata, timeout=LIMIT)
    expect(list(call), [bytes(2)])
    expect(dict(call.initial_metadata())[INITIAL], metadata[0][1])
    expect(dict(call.trailing_metadata())[TRAILING], metadata[1][1])


def status_code_and_message(stub):
    with Failed(grpc.StatusCode.UNKNOWN, "test status message"):
        stub.unary(b"status 2 test status message", timeout=LIMIT)
    with Failed(grpc.StatusCode.UNKNOWN, "test status message"):
        list(stub.both_streams(iter([b"status 2 test status message"]), timeout=LIMIT))


def every_status(stub):
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            with Failed(code, "as asked"):
                stub.unary(b"status %d as asked" % code.value[0], timeout=LIMIT)


def special_status_message(stub):
    with Failed(grpc.StatusCode.UNKNOWN, ODD_MESSAGE):
        stub.unary(b"status 2 " + ODD_MESSAGE.encode(), timeout=LIMIT)


def unimplemented_method(stub):
    with Failed(grpc.StatusCode.UNIMPLEMENTED):
        stub.channel.unary_unary(f"/{SERVICE}/Nothing")(b"", timeout=LIMIT)


def unimplemented_service(stub):
    with Failed(grpc.StatusCode.UNIMPLEMENTED):
        stub.channel.unary_unary("/grpc.testing.NoService/Unary")(b"", timeout=LIMIT)


def cancel_after_begin(stub):
    begun = threading.Event()

    def asked():
        yield b"x"
        begun.set()
        threading.Event().wait(LIMIT)

    call = stub.hanging_stream.future(asked())
    assert begun.wait(LIMIT)
    # Somewhere on its way, at the latest at the server.
    time.sleep(0.3)
    call.cancel()
    expect(call.code(), grpc.StatusCode.CANCELLED)
    was_cancelled(stub)


def cancel_after_first_response(stub):
    turn = threading.Event()

    def asked():
        yield b"31415 hold"
        turn.wait(LIMIT)

    call = stub.both_streams(asked())
    expect(len(next(call)), 31415)
    call.cancel()
    with Failed(grpc.StatusCode.CANCELLED):
        next(call)
    turn.set()
    was_cancelled(stub)


def timeout_on_sleeping_server(stub):
    began = time.monotonic()
    with Failed(grpc.StatusCode.DEADLINE_EXCEEDED):
        stub.unary(b"sleep", timeout=1)
    assert time.monotonic() - began < LIMIT
    was_cancelled(stub)


def many_at_once(stub):
    calls = [stub.unary.future(str(size).encode(), timeout=LIMIT) for size in range(100)]
    expect([len(call.result()) for call in calls], list(range(100)))


CASES = [
    empty_unary, large_unary, client_streaming, server_streaming, ping_pong, empty_stream, custom_metadata,
    status_code_and_message, every_status, special_status_message, unimplemented_method, unimplemented_service,
    cancel_after_begin, cancel_after_first_response, timeout_on_sleeping_server, many_at_once,
]


def ask(address, name):
    failed = []
    with grpc.insecure_channel(address, options=[("grpc.default_authority", name)]) as channel:
        stub = Stub(channel)
        for case in CASES:
            try:
                case(stub)
                print("ok", case.__name__, flush=True)
            except (AssertionError, grpc.RpcError, StopIteration) as error:
                failed.append(case.__name__)
                print("FAILED", case.__name__, error, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    serve(*sys.argv[2:4]) if sys.argv[1] == "serve" else ask(*sys.argv[2:4])
