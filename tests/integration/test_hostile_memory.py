"""Memory is what attackers can take: idle connections, promises that are not kept, streams and
answers without end, bodies that decode to much. Under a limit of 64 MiB the process stays below it,
gives everything back at once, and healthy clients are served, not refused."""

import contextlib
import json
import resource
import socket
import struct
import threading
import time

import grpc
import pytest
import requests

import otlp
import tempo
from ledger import Client, check
from mill import SANITIZED, Mill, wait_for

MIB = 2**20
LIMIT_MIB = 64
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, DATA = 1, 3, 4, 6, 0
END_STREAM, END_HEADERS = 1, 4


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8192:
        pytest.skip("not enough file descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 8192), hard))
    overlay = {
        "processors": {"memory_limiter": {"check_interval": "1s", "limit_mib": LIMIT_MIB}},
        "exporters": {"blocks": {"max_block_age": "30s"}},
    }
    mill = Mill(tmp_path_factory.mktemp("memory"), overlay=overlay)
    try:
        mill.start()
        mill.base = mill.proc_status("VmRSS")
        yield mill
        mill.stop()
    finally:
        mill.kill()


@pytest.fixture
def attacked(target):
    """The process, two healthy clients at work. Afterwards: what they sent is there, the peak held,
    memory and budget are as before."""
    wait_for("quiet", lambda: used(target) < 2 * MIB, 30)
    with open(f"/proc/{target.process.pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")  # the peak of this test alone
    clients = [Client(target, pause=0.02), Client(target, by_http=True, pause=0.02)]
    for c in clients:
        c.start()
    target.clients = clients
    yield target
    for c in clients:
        c.finish(30)
        assert not c.wrong, c.wrong[:5]
        assert c.late == 0, f"{c.late} requests of a healthy client got no answer"
    wait_for("the budget to be given back", lambda: used(target) < 2 * MIB, 30)
    for c in clients:
        check(target, dict(list(c.acked.items())[-20:]))
    peak = target.proc_status("VmHWM")
    assert SANITIZED or peak <= LIMIT_MIB * MIB * 1.1, f"peak {peak / MIB:.1f} MiB"
    if not SANITIZED:
        wait_for(
            "memory to go back to the system",
            lambda: target.proc_status("VmRSS") < target.base + 16 * MIB,
            30,
        )


def used(mill):
    """What is granted, less what the query keeps of blocks on purpose."""
    kept = mill.metric("spanmill_blocks_cache_bytes")
    return mill.metric("spanmill_memory_bytes", what="used") - kept


def refused(mill):
    return sum(c.refused for c in mill.clients)


def frame(kind, flags, stream, payload=b""):
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def literal(name, value):
    """An HPACK field without indexing."""
    size = bytes([len(value)]) if len(value) < 127 else b"\x7f" + hpack_int(len(value) - 127)
    return b"\x00" + bytes([len(name)]) + name + size + value


def hpack_int(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def call_headers(*extra):
    return (
        b"\x83\x86"  # POST, http
        + literal(b":path", otlp.EXPORT.encode())
        + literal(b":authority", b"x")
        + literal(b"content-type", b"application/grpc")
        + b"".join(literal(*e) for e in extra)
    )


@contextlib.contextmanager
def connections(mill, port, n, greeting=b""):
    """n connections that say no more than this; what the server thinks of it is not looked at."""
    open_ones = []

    def connect():
        try:
            s = socket.create_connection(("127.0.0.1", mill.ports[port]), timeout=30)
            open_ones.append(s)
            s.sendall(greeting)
        except OSError:
            pass

    if len(greeting) < 65536:
        for _ in range(n):
            connect()
    else:
        threads = [threading.Thread(target=connect) for _ in range(n)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    try:
        yield open_ones
    finally:
        for s in open_ones:
            s.close()


def served(mill, n=20, timeout=20):
    """Both healthy clients get n more successes."""
    for c in mill.clients:
        want = len(c.acked) + n
        wait_for(f"{n} requests to be taken", lambda c=c, want=want: len(c.acked) >= want, timeout)


def test_1000_idle_connections_on_every_port(attacked):
    """They are charged what they hold, which is little, and make room for those who speak."""
    with contextlib.ExitStack() as stack:
        for port in ("grpc", "http", "zipkin", "query"):
            stack.enter_context(connections(attacked, port, 1000))
        served(attacked)
        with connections(attacked, "http", 1):  # a new one comes in, too
            assert otlp.send_http(attacked, otlp.request()).status_code == 200
        otlp.send_grpc(attacked, otlp.request())
    assert refused(attacked) == 0


def test_requests_that_never_finish_their_head(attacked):
    half = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 20000
    with connections(attacked, "http", 500, half):
        served(attacked)
    assert refused(attacked) == 0


def test_promises_that_are_not_kept(attacked):
    """Who announces 8 MiB and sends a byte gives them back when somebody else needs them."""
    post = (
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 8388608\r\n\r\n\x0a"
    )
    call = (
        PREFACE
        + frame(SETTINGS, 0, 0)
        + frame(HEADERS, END_HEADERS, 1, call_headers())
        + frame(DATA, 0, 1, b"\0" + struct.pack(">I", 8 * MIB) + b"\x0a")
    )
    large = otlp.request(n_traces=4, n_spans=1200, attributes=10, size=80)
    with connections(attacked, "http", 20, post), connections(attacked, "grpc", 20, call):
        served(attacked)
        begin = time.monotonic()
        wait_for(
            "a request of 5 MB to be taken",
            lambda: otlp.send_http(attacked, large).status_code == 200,
            10,
            0.1,
        )
        assert time.monotonic() - begin < 25, "that was the idle time of those who promised"
    assert refused(attacked) == 0


def test_headers_of_streams_that_stay_open(attacked):
    """A stream may have 16 KiB of headers, a connection 256 streams: memory like any other."""
    streams = b"".join(
        frame(
            HEADERS,
            END_HEADERS,
            2 * i + 1,
            call_headers(*[(b"x-%d" % k, b"%d" % i + b"v" * 1000) for k in range(14)]),
        )
        for i in range(200)
    )
    with connections(attacked, "grpc", 40, PREFACE + frame(SETTINGS, 0, 0) + streams):
        served(attacked)


@pytest.mark.parametrize("end", [0, END_STREAM])
def test_streams_over_the_limit_that_nobody_reads_about(attacked, end):
    """Each is refused by RST_STREAM or an answer, and they would pile up."""
    streams = b"".join(
        frame(HEADERS, END_HEADERS | end, 2 * i + 1, call_headers()) for i in range(20000)
    )
    with connections(attacked, "grpc", 100, PREFACE + frame(SETTINGS, 0, 0) + streams):
        served(attacked)


def json_of(spans, mib):
    return b"[" + b",".join(spans(i) for i in range(int(mib * MIB) // len(spans(100000)))) + b"]"


def test_8_mib_of_json_are_taken(attacked):
    """They need 8 MiB and what they decode to, and are granted that."""
    sent = otlp.request(n_traces=8, n_spans=650, attributes=10, size=80)
    text = otlp.to_json(sent)
    assert 7 * MIB < len(text)
    wait_for(
        "the JSON to be taken",
        lambda: otlp.send_http(attacked, text, kind="application/json").status_code == 200,
        10,
        0.1,
    )
    trace_id = next(otlp.spans_of(sent)).trace_id
    otlp.assert_same(tempo.get(attacked, trace_id), sent, trace_id)
    zipkin = json.dumps(
        [
            {
                "traceId": otlp.new_id(16).hex(),
                "id": otlp.new_id(8).hex(),
                "name": "op",
                "timestamp": 1700000000000000,
                "tags": {f"key.{k}": "v" * 80 for k in range(10)},
            }
            for _ in range(7000)
        ]
    )
    wait_for("the Zipkin JSON to be taken", lambda: post_zipkin(attacked, zipkin) == 202, 10, 0.1)


def post_zipkin(mill, body):
    return requests.post(
        mill.url("zipkin", "/api/v2/spans"),
        data=body,
        headers={"Content-Type": "application/json"},
        timeout=30,
    ).status_code


HOSTILE = {
    "least spans": lambda i: b'{"traceId":"1","id":"1"}',
    "a service each": lambda i: b'{"traceId":"1","id":"1","localEndpoint":{"serviceName":"%x"}}' % i,
    "escapes": lambda i: b'{"traceId":"1","id":"1","tags":{%s}}'
    % b",".join([b'"\\n":"\\n"'] * 10000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_little_text_that_becomes_much(attacked, name):
    body = json_of(HOSTILE[name], 3)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(post_zipkin(attacked, body)))
        for _ in range(8)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(answers) <= {202, 413, 503}, answers


@pytest.mark.parametrize("way", ["grpc", "http", "chunked"])
def test_bursts_of_large_requests(attacked, way):
    """40 requests of 8 MiB at once: some are taken, the others told to come again."""
    body = otlp.request(n_traces=8, n_spans=1000, attributes=10, size=80).SerializeToString()
    answers = []

    def send():
        if way == "grpc":
            try:
                otlp.send_grpc(attacked, body, timeout=120)
                answers.append("taken")
            except grpc.RpcError as e:
                has_info = any(k == "grpc-status-details-bin" for k, _ in e.trailing_metadata())
                answers.append((e.code().name, has_info))
        else:
            answer = otlp.send_http(attacked, body, timeout=120, chunked=way == "chunked")
            answers.append(
                "taken"
                if answer.status_code == 200
                else (answer.status_code, "Retry-After" in answer.headers)
            )

    threads = [threading.Thread(target=send) for _ in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert "taken" in answers
    assert set(answers) <= {"taken", ("UNAVAILABLE", True), (503, True)}, answers
