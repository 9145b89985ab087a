"""Input that means harm (or is merely broken) gets a clear answer and hurts nothing else: a healthy
client goes on, the process lives, and its memory stays within the budget."""

import gzip
import io
import os
import random
import resource
import socket
import struct
import threading
import time
import zlib

import grpc
import pytest
import requests

import otlp
import tempo
from ledger import Client, check
from mill import GOLDEN, SANITIZED, wait_for

LIMIT_MIB = 96
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    from mill import Mill

    overlay = {"processors": {"memory_limiter": {"check_interval": "1s", "limit_mib": LIMIT_MIB}}}
    mill = Mill(tmp_path_factory.mktemp("hostile"), overlay=overlay)
    try:
        mill.start()
        yield mill
        mill.stop()
    finally:
        mill.kill()


@pytest.fixture
def under_watch(target):
    """Two healthy clients during the test; afterwards all they sent is there, the peak was within
    the budget, and what was charged is given back."""
    with open(f"/proc/{target.process.pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")  # the peak of this test alone
    clients = [Client(target, pause=0.02), Client(target, by_http=True, pause=0.02)]
    for c in clients:
        c.start()
    yield target
    for c in clients:
        c.finish(30)
    for c in clients:
        assert not c.wrong, c.wrong[:5]
        assert c.late == 0, f"{c.late} requests of a healthy client got no answer"
        check(target, dict(list(c.acked.items())[-50:]))
    peak = target.proc_status("VmHWM")
    assert SANITIZED or peak <= LIMIT_MIB * 2**20 * 1.1, (
        f"peak {peak / 2**20:.1f} MiB with a budget of {LIMIT_MIB} MiB"
    )
    # what stays are connections that are being closed
    # and the index of what is in no block yet
    wait_for("the budget to be given back", lambda: used(target) < 4 * 2**20, 60)


def used(mill):
    return mill.metric("spanmill_memory_bytes", what="used")


def grpc_code(mill, body, **keys):
    try:
        otlp.send_grpc(mill, body, timeout=30, **keys)
        return grpc.StatusCode.OK
    except grpc.RpcError as e:
        assert e.code() != grpc.StatusCode.DEADLINE_EXCEEDED
        return e.code()


def nested(depth, kind=5):
    """A request whose one attribute is an array (5) or map (6) nested depth deep; lengths are
    written from inside out."""
    value = b""
    for _ in range(depth):
        if kind == 6:
            value = field(1, field(1, b"k") + field(2, value))
        else:
            value = field(1, value)
        value = field(kind, value)
    req = otlp.request()
    span = next(otlp.spans_of(req))
    span_bytes = span.SerializeToString() + field(9, field(1, b"deep") + field(2, value))
    return field(1, field(2, field(2, span_bytes)))


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def test_truncated(under_watch):
    whole = otlp.kitchen_sink().SerializeToString()
    rng = random.Random(1)
    for cut in [1, 2, 3, len(whole) - 1] + [rng.randrange(4, len(whole)) for _ in range(40)]:
        answer = otlp.send_http(under_watch, whole[:cut])
        assert answer.status_code == 400, f"cut at {cut}: {answer.status_code}"
        assert answer.headers["Content-Type"].startswith(otlp.PROTOBUF)
    assert grpc_code(under_watch, whole[:-1]) == INVALID


def test_bit_flips(under_watch):
    """Any answer but silence and 5xx: a flip may still be a good request."""
    whole = otlp.kitchen_sink().SerializeToString()
    rng = random.Random(2)
    session = requests.Session()
    for _ in range(300):
        body = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 5])):
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        answer = session.post(
            under_watch.url("http", "/v1/traces"),
            data=bytes(body),
            timeout=30,
            headers={"Content-Type": otlp.PROTOBUF},
        )
        assert answer.status_code in (200, 400, 503), answer.status_code
    text = otlp.to_json(otlp.kitchen_sink()).encode()
    for _ in range(100):
        body = bytearray(text)
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        answer = session.post(
            under_watch.url("http", "/v1/traces"),
            data=bytes(body),
            timeout=30,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code in (200, 400, 503), answer.status_code


@pytest.mark.parametrize("kind", [5, 6])
def test_nesting_10000(under_watch, kind):
    body = nested(10000, kind)
    assert otlp.send_http(under_watch, body).status_code == 400
    assert grpc_code(under_watch, body) == INVALID
    name = "arrayValue" if kind == 5 else "kvlistValue"
    opened = '{"%s":{"values":[%s' % (name, '{"key":"k","value":' if kind == 6 else "")
    closed = ("}" if kind == 6 else "") + "]}}"
    text = (
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"%s","spanId":"%s","attributes":[{"key":"deep","value":%s{}%s}]}]}]}]}'
        % (otlp.new_id(16).hex(), otlp.new_id(8).hex(), opened * 10000, closed * 10000)
    )
    assert otlp.send_http(under_watch, text, kind="application/json").status_code == 400
    assert otlp.send_http(under_watch, "[" * 100000, kind="application/json").status_code == 400


def test_reasonable_nesting_is_taken(under_watch):
    assert otlp.send_http(under_watch, nested(10)).status_code == 200


def gzip_bomb(megabytes):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as f:
        for _ in range(megabytes):
            f.write(bytes(2**20))
    return out.getvalue()


@pytest.mark.parametrize("kind", [otlp.PROTOBUF, "application/json"])
def test_gzip_bomb(under_watch, kind):
    bomb = gzip_bomb(256)
    threads = [
        threading.Thread(
            target=otlp.send_http,
            args=(under_watch, bomb),
            kwargs={"kind": kind, "headers": {"Content-Encoding": "gzip"}},
        )
        for _ in range(4)
    ]
    for t in threads:
        t.start()
    answer = otlp.send_http(under_watch, bomb, kind=kind, headers={"Content-Encoding": "gzip"})
    for t in threads:
        t.join()
    assert answer.status_code in (413, 503)
    answer = wait_taken(
        lambda: otlp.send_http(under_watch, bomb, kind=kind, headers={"Content-Encoding": "gzip"})
    )
    assert answer.status_code == 413, answer.text
    zipkin = requests.post(
        under_watch.url("zipkin", "/api/v2/spans"),
        data=bomb,
        timeout=30,
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    assert zipkin.status_code == 413


def test_a_body_that_inflates_out_of_proportion(make_mill):
    """max_decompression_ratio: what is far below max_request_body_size is refused for what it grows
    to, on both transports and in each coding; the same spans uncompressed, and ordinary ones
    compressed, are taken."""
    limit = {"max_decompression_ratio": 20}
    mill = make_mill(overlay={"receivers": {"otlp": {"protocols": {"grpc": limit, "http": limit}}}})
    request = otlp.request(n_spans=1)
    request.resource_spans[0].scope_spans[0].spans[0].name = "x" * 2**20
    plain = request.SerializeToString()
    for coding, body in (("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain))):
        answer = otlp.send_http(mill, body, headers={"Content-Encoding": coding})
        assert answer.status_code == 413, answer.text
        assert "max_decompression_ratio" in answer.text
    assert grpc_code(mill, plain, compression=grpc.Compression.Gzip) == EXHAUSTED
    assert grpc_code(mill, plain) == grpc.StatusCode.OK
    usual = otlp.request(n_spans=50).SerializeToString()
    answer = otlp.send_http(mill, gzip.compress(usual), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    assert grpc_code(mill, usual, compression=grpc.Compression.Gzip) == grpc.StatusCode.OK


def wait_taken(send):
    """Repeat what is answered 503 (the budget is spent for the moment) until it gets another
    answer."""
    deadline = time.monotonic() + 60
    while True:
        answer = send()
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.05)


def test_gzip_bomb_over_grpc(under_watch):
    """grpcio compresses for us: 64 MiB of zeros is a small frame and inflates past the limit."""
    assert grpc_code(under_watch, bytes(64 * 2**20), compression=grpc.Compression.Gzip) == EXHAUSTED


def test_empty_resource_spans(under_watch):
    """16 MiB of `0a 00`: eight million empty ResourceSpans. Nothing may be allocated ahead of the
    bytes that back it."""
    body = b"\x0a\x00" * (8 * 2**20)
    for _ in range(3):
        answer = wait_taken(lambda: otlp.send_http(under_watch, body))
        assert answer.status_code in (200, 400, 413), answer.status_code
        assert grpc_code(under_watch, body) in (
            grpc.StatusCode.OK,
            INVALID,
            EXHAUSTED,
            grpc.StatusCode.UNAVAILABLE,
        )
    spans = b"\x0a\x00" + field(1, field(2, b"\x12\x00" * (6 * 2**20)))
    answer = wait_taken(lambda: otlp.send_http(under_watch, spans))
    assert answer.status_code in (200, 400, 413), answer.status_code


def test_bad_ids_reject_their_span_only(under_watch):
    bad = [
        {"trace_id": b""},
        {"trace_id": bytes(16)},
        {"trace_id": b"short"},
        {"span_id": b""},
        {"span_id": bytes(8)},
        {"span_id": b"123456789"},
    ]
    req = otlp.request(n_spans=len(bad) + 2)
    spans = list(otlp.spans_of(req))
    trace_id = spans[0].trace_id
    for sp, change in zip(spans[1:], bad):
        for name, value in change.items():
            setattr(sp, name, value)
    response = otlp.send_grpc(under_watch, req)
    assert response.partial_success.rejected_spans == len(bad)
    assert response.partial_success.error_message
    answer = otlp.send_http(under_watch, req)
    assert answer.status_code == 200
    assert otlp.response_of(answer).partial_success.rejected_spans == len(bad)
    assert sorted(otlp.span_ids(tempo.get(under_watch, trace_id))) == sorted(
        [spans[0].span_id, spans[-1].span_id]
    )


def test_bad_utf8_rejects_what_it_touches(under_watch):
    good, bad = otlp.request(), otlp.request()
    damaged = bad.SerializeToString().replace(b"op 0", b"op\xff0")
    answer = otlp.send_http(under_watch, good.SerializeToString() + damaged)
    assert answer.status_code == 200
    assert otlp.response_of(answer).partial_success.rejected_spans == 1
    assert tempo.get(under_watch, next(otlp.spans_of(good)).trace_id) is not None
    assert tempo.get(under_watch, next(otlp.spans_of(bad)).trace_id) is None


def test_wrong_types_methods_paths(under_watch):
    body = otlp.request().SerializeToString()
    url = under_watch.url("http", "/v1/traces")
    post = lambda **h: requests.post(url, data=body, headers=h, timeout=30)
    assert post(**{"Content-Type": "text/plain"}).status_code == 415
    assert requests.post(url, data=body, headers={"Content-Type": ""}, timeout=30).status_code == 415
    assert post(**{"Content-Type": otlp.PROTOBUF, "Content-Encoding": "br"}).status_code == 415
    assert post(**{"Content-Type": "Application/X-Protobuf; charset=x"}).status_code == 200
    for method in ("GET", "PUT", "DELETE"):
        assert requests.request(method, url, timeout=30).status_code == 405
    assert (
        requests.post(under_watch.url("http", "/v2/nothing"), data=body, timeout=30).status_code
        == 404
    )
    # the answers say it in the request's own type
    wrong = otlp.send_http(under_watch, b"\xff\xff", kind="application/json")
    assert wrong.status_code == 400 and "message" in wrong.json()


def test_damaged_gzip(under_watch):
    body = gzip.compress(otlp.request().SerializeToString())
    for damaged in (body[:-5], body[:10], b"not gzip at all", body[:20] + bytes(5) + body[25:]):
        answer = otlp.send_http(under_watch, damaged, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 400, answer.status_code


def test_deflate(under_watch):
    for wrap in (15, -15):
        packer = zlib.compressobj(wbits=wrap)
        sent = otlp.request()
        body = packer.compress(sent.SerializeToString()) + packer.flush()
        answer = otlp.send_http(under_watch, body, headers={"Content-Encoding": "deflate"})
        assert answer.status_code == 200, answer.text
        otlp.assert_same(tempo.get(under_watch, next(otlp.spans_of(sent)).trace_id), sent)


def test_unknown_grpc_method_and_service(under_watch):
    for path in ("/opentelemetry.proto.collector.trace.v1.TraceService/Nope", "/x.Y/Z"):
        assert grpc_code(under_watch, b"", path=path) == grpc.StatusCode.UNIMPLEMENTED


def test_oversize(under_watch):
    """20 MiB is the default limit, counted inflated; told at once where Content-Length tells."""
    big = bytes(21 * 2**20)
    assert grpc_code(under_watch, big) == EXHAUSTED
    with socket.create_connection(("127.0.0.1", under_watch.ports["http"]), timeout=30) as s:
        s.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Length: 22020096\r\n\r\n"
        )
        assert b" 413 " in s.recv(100).split(b"\r\n")[0], "no 413 before the body was sent"
    try:  # a chunked body: 413 or a closed connection
        answer = requests.post(
            under_watch.url("http", "/v1/traces"),
            headers={"Content-Type": otlp.PROTOBUF},
            data=(big[: 2**16] for _ in range(400)),
            timeout=30,
        )
        assert answer.status_code == 413
    except requests.ConnectionError:
        pass


def test_sizes_that_lie(under_watch):
    """A frame or a header that promises much and sends nothing takes no memory."""
    before = under_watch.proc_status("VmRSS")
    open_ones = []
    for _ in range(200):
        s = socket.create_connection(("127.0.0.1", under_watch.ports["http"]))
        s.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Length: 20000000\r\n\r\n"
        )
        open_ones.append(s)
    assert under_watch.proc_status("VmRSS") < before + 32 * 2**20
    for s in open_ones:
        s.close()


def test_rubbish_on_every_port(under_watch):
    rng = random.Random(3)
    for name in ("grpc", "http", "zipkin", "query", "health", "metrics"):
        for body in (
            b"\0" * 1000,
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01" + os.urandom(200),
            rng.randbytes(5000),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(500),
            b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000,
        ):
            with socket.create_connection(("127.0.0.1", under_watch.ports[name]), timeout=30) as s:
                s.settimeout(0.3)  # some wait for more
                try:
                    s.sendall(body)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(65536):
                        pass
                except OSError:
                    pass


def test_http2_floods(under_watch):
    """Streams opened and reset, settings and pings without end: the connection may go, the process
    not."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    def frame(kind, flags, stream, payload=b""):
        return (
            struct.pack(">I", len(payload))[1:]
            + bytes([kind, flags])
            + struct.pack(">I", stream)
            + payload
        )

    headers = bytes([0x83, 0x86, 0x84, 0x41, 1]) + b"x"  # POST http / authority x
    floods = [
        b"".join(
            frame(1, 4, 2 * i + 1, headers) + frame(3, 0, 2 * i + 1, b"\0\0\0\x08")
            for i in range(20000)
        ),
        frame(4, 0, 0) * 20000,
        frame(6, 0, 0, bytes(8)) * 20000,
        frame(1, 0, 1, headers) + frame(9, 0, 1, b"\x40\x01a\x01b" * 100) * 5000,
    ]
    for flood in floods:
        with socket.create_connection(("127.0.0.1", under_watch.ports["grpc"]), timeout=30) as s:
            try:
                s.sendall(preface + frame(4, 0, 0) + flood)
            except OSError:
                pass


def test_slow_clients_and_1000_idle_connections(under_watch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("not enough file descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    idle = [
        socket.create_connection(("127.0.0.1", under_watch.ports[name]), timeout=30)
        for name in ("grpc", "http")
        for _ in range(500)
    ]
    slow = [
        socket.create_connection(("127.0.0.1", under_watch.ports["http"]), timeout=30)
        for _ in range(50)
    ]
    for s in slow:
        s.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 100000\r\n\r\n"
        )
    half = [
        socket.create_connection(("127.0.0.1", under_watch.ports["grpc"]), timeout=30)
        for _ in range(50)
    ]
    for s in half:
        s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    for _ in range(10):
        for s in slow:
            try:
                s.sendall(b"\x0a")
            except OSError:
                pass
        sent = otlp.request()
        # connections cost budget: "come again" is an answer, silence or loss is none
        wait_for(
            "a request to be taken",
            lambda: grpc_code(under_watch, sent) == grpc.StatusCode.OK,
            30,
        )
        otlp.assert_same(tempo.get(under_watch, next(otlp.spans_of(sent)).trace_id), sent)
        answer = wait_taken(lambda: otlp.send_http(under_watch, otlp.request()))
        assert answer.status_code == 200
    for s in idle + slow + half:
        s.close()


@pytest.mark.parametrize(
    "name, status", [("neg-deep10000.pb", 400), ("neg-truncated.pb", 400), ("bomb-256MiB.gz", 413)]
)
def test_golden_negatives(under_watch, name, status):
    path = os.path.join(GOLDEN, "otlp", "derived", name)
    if not os.path.exists(path):
        pytest.skip("no golden data")
    with open(path, "rb") as f:
        body = f.read()
    headers = {"Content-Encoding": "gzip"} if name.endswith(".gz") else None
    assert (
        wait_taken(lambda: otlp.send_http(under_watch, body, headers=headers)).status_code == status
    )


def test_many_at_once_never_pass_the_budget(under_watch):
    """40 clients with 8 MiB each against a budget of 96 MiB: some are told to come again, none is
    lost, memory holds."""
    body = otlp.request(n_traces=8, n_spans=1000, attributes=10, size=80).SerializeToString()
    answers = []

    def send():
        answers.append(
            wait_taken(lambda: otlp.send_http(under_watch, body, timeout=120)).status_code
        )

    threads = [threading.Thread(target=send) for _ in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(answers) <= {200, 503}, answers
    assert 200 in answers
