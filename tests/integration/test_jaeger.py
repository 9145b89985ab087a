"""Jaeger by each of its doors: unmodified jaeger-clients (Python over UDP compact, Node over UDP
binary and over HTTP), PostSpans by grpcio, and datagrams that are none."""

import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys

import grpc
import pytest
import requests
import yaml

import otlp
import tempo
from mill import GOLDEN, ROOT, Mill, free_port, wait_for

CLIENTS = os.path.join(ROOT, "tests", "clients")
NODE_MODULES = os.path.join(ROOT, "build", "node")
LOST = "spanmill_jaeger_udp_lost_packets"


def udp_port():
    while True:
        port = free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def with_jaeger(**keys):
    """An overlay and the ports: all four doors; keys go to the compact one."""
    ports = {"compact": udp_port(), "binary": udp_port(), "http": free_port(), "grpc": free_port()}
    at = {name: {"endpoint": f"127.0.0.1:{port}"} for name, port in ports.items()}
    protocols = {
        "thrift_compact": {**at["compact"], **keys},
        "thrift_binary": at["binary"],
        "thrift_http": at["http"],
        "grpc": at["grpc"],
    }
    overlay = {
        "receivers": {"jaeger": {"protocols": protocols}},
        "service": {"pipelines": {"traces": {"receivers": ["otlp", "jaeger"]}}},
    }
    return overlay, ports


@pytest.fixture
def make_jaeger(make_mill):
    def make(**keys):
        overlay, ports = with_jaeger(**keys)
        mill = make_mill(overlay=overlay)
        mill.jaeger = ports
        return mill

    return make


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    overlay, ports = with_jaeger()
    mill = Mill(tmp_path_factory.mktemp("jaeger"), overlay=overlay)
    mill.jaeger = ports
    try:
        mill.start()
        yield mill
        mill.stop()
    finally:
        mill.kill()


def golden(name):
    path = os.path.join(GOLDEN, "jaeger", "derived", name)
    if not os.path.exists(path):
        pytest.skip(f"no golden data ({path})")
    with open(path, "rb") as f:
        return f.read()


def send(port, *datagrams):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for datagram in datagrams:
            s.sendto(datagram, ("127.0.0.1", port))


def post(mill, body, content_type="application/x-thrift", query="?format=jaeger.thrift", **headers):
    return requests.post(
        f"http://127.0.0.1:{mill.jaeger['http']}/api/traces{query}",
        data=body,
        headers={"Content-Type": content_type, **headers},
        timeout=30,
    )


def post_spans(mill, message, metadata=()):
    with grpc.insecure_channel(f"127.0.0.1:{mill.jaeger['grpc']}") as channel:
        call = channel.unary_unary(
            "/jaeger.api_v2.CollectorService/PostSpans",
            request_serializer=lambda b: b,
            response_deserializer=lambda b: b,
        )
        return call(message, timeout=30, metadata=metadata)


# -- messages by hand ----------------------------------------------------------------------------


def field(number, data):
    size = len(data)
    out = bytes([number << 3 | 2])
    while size > 127:
        out += bytes([size & 127 | 128])
        size >>= 7
    return out + bytes([size]) + data


def batch(*spans, service=b"hand"):
    """A PostSpansRequest of spans (their fields)."""
    return field(1, b"".join(field(1, s) for s in spans) + field(2, field(1, service)))


def pb_span(trace_id, span_id, name=b"op"):
    return field(1, trace_id) + field(2, span_id) + field(3, name)


def compact_batch(trace_id, *span_ids, method=b"emitBatch"):
    """A datagram of spans with 64-bit ids."""

    def zigzag(n):
        n = n << 1 if n < 1 << 63 else ((1 << 64) - n << 1) - 1
        out = b""
        while n > 127:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n])

    one = [
        b"\x16" + zigzag(trace_id) + b"\x26" + zigzag(i) + b"\x28\x02op" + b"\x25\x02\0"
        for i in span_ids
    ]
    spans = bytes([0x19, len(one) << 4 | 12]) + b"".join(one)
    process = b"\x1c" + b"\x18\x04hand\0"
    return b"\x82\x81\0" + bytes([len(method)]) + method + b"\x1c" + process + spans + b"\0\0"


def one_trace(mill, trace_id, n):
    """The trace once n of its spans are there."""

    def whole():
        found = tempo.get(mill, trace_id)
        return found if found is not None and len(list(otlp.spans_of(found))) >= n else None

    return wait_for(f"{n} spans of {trace_id}", whole)


# -- unmodified clients --------------------------------------------------------------------------


def value_of(v):
    name = v.WhichOneof("value")
    return getattr(v, name) if name else None


def attributes(message):
    return {kv.key: value_of(kv.value) for kv in message.attributes}


def check_span(sp, want):
    have = attributes(sp)
    assert sp.name == want["name"]
    assert (sp.parent_span_id.hex() or None) == want["parent"]
    assert sp.kind == want.get("kind", 0)
    assert sp.flags == 1
    assert sp.end_time_unix_nano >= sp.start_time_unix_nano > 1.6e18
    assert sp.status.code == (2 if want.get("error") else 0)
    assert "span.kind" not in have and "error" not in have
    for key, value in want.get("tags", {}).items():
        assert (type(have[key]), have[key]) == (type(value), value)
    if "event" in want:
        assert sp.events[0].name == want["event"]
        assert attributes(sp.events[0]) == {"percent": 50}
    if "link" in want:
        assert sp.links[0].span_id.hex() == want["link"]
        assert attributes(sp.links[0]) == {"opentracing.ref_type": "follows_from"}


def check_client(mill, command, service, env=None):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0, done.stderr
    sent = [json.loads(line) for line in done.stdout.splitlines()]
    assert sent
    traces = {}
    for want in sent:
        traces.setdefault(want["trace"], []).append(want)
    for trace_id, wanted in traces.items():
        got = one_trace(mill, trace_id, len(wanted))
        resource = attributes(got.resource_spans[0].resource)
        assert resource["service.name"] == service and resource["team"] == "shop"
        assert resource["host.name"] and resource["ip"]
        assert resource["opencensus.exporterversion"].startswith("Jaeger-")
        spans = {sp.span_id.hex(): sp for sp in otlp.spans_of(got)}
        assert set(spans) == {want["id"] for want in wanted}
        for want in wanted:
            check_span(spans[want["id"]], want)


def test_python_client_over_udp(shared):
    port = str(shared.jaeger["compact"])
    program = os.path.join(CLIENTS, "python", "jaeger_send.py")
    check_client(shared, [sys.executable, program, "127.0.0.1", port, "20"], "py-jaeger")


@pytest.mark.parametrize("way, door", [("udp", "binary"), ("http", "http")])
def test_node_client(shared, way, door):
    if shutil.which("node") is None or not os.path.isdir(NODE_MODULES):
        pytest.skip("no node, or its packages are not installed")
    program = os.path.join(CLIENTS, "node", "jaeger_send.js")
    command = ["node", program, way, f"127.0.0.1:{shared.jaeger[door]}", "20"]
    check_client(shared, command, "node-jaeger", {"NODE_MODULES": NODE_MODULES})


# -- the same spans by every door ----------------------------------------------------------------


def test_every_door_gives_the_same(make_jaeger):
    """One trace, sent by each door to a process of its own tenant's: equal, field by field."""
    mill = make_jaeger()
    trace_id = "000000000000000052969a8955571a3f"
    send(mill.jaeger["compact"], golden("conv_batch_01.udp-compact-oneway.bin"))
    first = one_trace(mill, trace_id, 1)
    answer = post(mill, golden("conv_batch_01.http-binary.bin"), **{"X-Scope-OrgID": "h"})
    assert answer.status_code == 202
    assert post_spans(mill, golden("domain_01.postspans.pb"), [("x-scope-orgid", "g")]) == b""
    for tenant in "hg":
        otlp.assert_same(tempo.get(mill, trace_id, tenant=tenant), first)
    span = next(otlp.spans_of(first))
    assert span.name == "get" and len(span.attributes) == 6 and len(span.events) == 2


# -- answers -------------------------------------------------------------------------------------


def test_http_answers(shared):
    body = golden("thrift_batch_01.http-binary.bin")
    gzipped = golden("thrift_batch_01.http-binary.gz")
    assert post(shared, gzipped, **{"Content-Encoding": "gzip"}).status_code == 202
    assert post(shared, body, "application/vnd.apache.thrift.binary", query="").status_code == 202
    assert post(shared, b"").status_code == 202
    answer = post(shared, body, "application/json")
    assert answer.status_code == 415 and "application/x-thrift" in answer.text
    answer = post(shared, body[:100])
    assert answer.status_code == 400 and "thrift: byte" in answer.text
    answer = post(shared, body, **{"X-Scope-OrgID": "no/name"})
    assert answer.status_code == 400 and "X-Scope-OrgID" in answer.text
    url = f"http://127.0.0.1:{shared.jaeger['http']}/api/"
    assert requests.get(url + "traces", timeout=30).status_code == 405
    assert requests.post(url + "other", timeout=30).status_code == 404


def test_a_bad_span_rejects_itself_and_is_named(make_jaeger):
    mill = make_jaeger()
    trace_id = otlp.new_id(16)
    good, other = otlp.new_id(8), otlp.new_id(8)
    bad = [pb_span(trace_id, b""), pb_span(b"\0" * 16, other), pb_span(trace_id, other, b"\xff")]
    assert post_spans(mill, batch(bad[0], pb_span(trace_id, good), *bad[1:])) == b""
    found = one_trace(mill, trace_id, 1)
    assert [sp.span_id for sp in otlp.spans_of(found)] == [good]
    assert 'spans=3 first="spans[0].span_id: 0 bytes, not 8"' in mill.stderr()
    assert mill.metric("otelcol_receiver_accepted_spans", transport="grpc", receiver="jaeger") == 1
    assert mill.metric("spanmill_receiver_rejected_spans", receiver="jaeger") == 3
    assert mill.metric("spanmill_jaeger_bad_spans") == 2  # text that is none is the index's
    for spans, text in (([bad[0]], "span_id: 0 bytes"), ([bad[2]], "UTF-8")):
        with pytest.raises(grpc.RpcError) as failed:
            post_spans(mill, batch(*spans))
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert text in failed.value.details(), failed.value.details()
    assert post_spans(mill, b"") == b""


def test_the_next_hop_decides_the_answer(make_mill, next_hop):
    """No durable place for the spans: UNAVAILABLE and 503, not the Collector's UNKNOWN and 500."""
    overlay, ports = with_jaeger()
    overlay["exporters"] = {
        "blocks": None,
        "otlp": {
            "endpoint": f"127.0.0.1:{free_port()}",
            "tls": {"insecure": True},
            "retry_on_failure": {"enabled": False},
        },
    }
    del overlay["exporters"]["blocks"]
    overlay["service"]["pipelines"]["traces"].update(exporters=["otlp"])
    mill = make_mill(overlay=overlay)
    mill.jaeger = ports
    with pytest.raises(grpc.RpcError) as failed:
        post_spans(mill, batch(pb_span(otlp.new_id(16), otlp.new_id(8))))
    assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
    answer = post(mill, golden("thrift_batch_01.http-binary.bin"))
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
    assert mill.metric("otelcol_receiver_refused_spans", receiver="jaeger") == 2


# -- datagrams -----------------------------------------------------------------------------------


def test_datagrams_that_are_none(make_jaeger):
    """Each is counted by its reason, and what is good in between is taken."""
    mill = make_jaeger(max_packet_size=2000)
    rng = random.Random(7)
    trace_id = rng.getrandbits(63) | 1
    good = [compact_batch(trace_id, i) for i in range(1, 31)]
    bad = {
        "damaged": [rng.randbytes(rng.randrange(1, 1500)) for _ in range(200)] + [b""],
        "too_large": [good[0].ljust(2001, b"\0")],
        "unknown_method": [compact_batch(trace_id, 99, method=b"emitOther")],
        "no_usable_span": [compact_batch(trace_id, 0), compact_batch(0, 5)],
    }
    # random bytes may not begin as the two protocols do
    bad["damaged"] = [b"\x01" + d[1:] if d[:1] in (b"\x80", b"\x82") else d for d in bad["damaged"]]
    mixed = good + [d for some in bad.values() for d in some]
    rng.shuffle(mixed)
    for start in range(0, len(mixed), 20):
        send(mill.jaeger["compact"], *mixed[start : start + 20])
        want = len(mixed[: start + 20])
        wait_for("datagrams", lambda w=want: mill.metric("spanmill_jaeger_udp_packets") == w)
    for reason, some in bad.items():
        assert mill.metric(LOST, reason=reason) == len(some), reason
    found = one_trace(mill, format(trace_id, "032x"), len(good))
    assert sorted(int(sp.span_id.hex(), 16) for sp in otlp.spans_of(found)) == list(range(1, 31))


def test_zipkin_spans_in_a_datagram(shared):
    """emitZipkinBatch, which is a list of Zipkin's v1 spans as the argument."""
    trace_id, span_id = 0x1234567812345678, 0x77
    span = b"\x0a" + struct.pack(">hq", 1, trace_id) + b"\x0b" + struct.pack(">hi", 3, 4) + b"zget"
    span += b"\x0a" + struct.pack(">hq", 4, span_id)
    span += b"\x0a" + struct.pack(">hq", 10, 1700000000000000)
    span += b"\x0a" + struct.pack(">hq", 11, 5000) + b"\0"
    call = b"\x80\x01\0\x04" + struct.pack(">i", 15) + b"emitZipkinBatch" + b"\0\0\0\0"
    call += b"\x0f" + struct.pack(">hBi", 1, 12, 1) + span + b"\0"
    send(shared.jaeger["binary"], call)
    found = next(otlp.spans_of(one_trace(shared, format(trace_id, "032x"), 1)))
    assert (found.name, found.span_id.hex()) == ("zget", format(span_id, "016x"))
    assert found.end_time_unix_nano - found.start_time_unix_nano == 5000000


def test_what_the_kernel_drops_is_counted(make_jaeger):
    """A stopped process, and more than its socket holds: every datagram is taken or counted."""
    mill = make_jaeger(socket_buffer_size=20000)
    datagrams = [compact_batch(7, i) for i in range(1, 1001)]
    mill.process.send_signal(signal.SIGSTOP)
    try:
        send(mill.jaeger["compact"], *datagrams)
    finally:
        mill.process.send_signal(signal.SIGCONT)

    def counted():
        taken = mill.metric("spanmill_jaeger_udp_packets", transport="udp_thrift_compact")
        return taken + mill.metric(LOST, reason="kernel") == len(datagrams)

    wait_for("all datagrams in the counters", counted)
    dropped = mill.metric(LOST, reason="kernel")
    assert 0 < dropped < len(datagrams)
    assert "the kernel dropped datagrams" in mill.stderr()
    taken = len(datagrams) - int(dropped)
    found = one_trace(mill, format(7, "032x"), taken)
    assert len(list(otlp.spans_of(found))) == taken


# -- the sample configuration --------------------------------------------------------------------


def sample(ports, target, queue):
    """configs/jaeger-agent.yaml on ports of our own."""
    with open(os.path.join(ROOT, "configs", "jaeger-agent.yaml"), encoding="utf-8") as f:
        config = yaml.safe_load(f)
    for protocol in config["receivers"]["jaeger"]["protocols"]:
        here = udp_port() if protocol.startswith("thrift_c") else free_port()
        config["receivers"]["jaeger"]["protocols"][protocol]["endpoint"] = f"127.0.0.1:{here}"
    for protocol in ("grpc", "http"):
        at = {"endpoint": f"127.0.0.1:{ports[protocol]}"}
        config["receivers"]["otlp"]["protocols"][protocol] = at
    config["exporters"]["otlp"]["endpoint"] = target
    config["extensions"]["file_storage"]["directory"] = queue
    config["extensions"]["health_check"] = {"endpoint": f"127.0.0.1:{ports['health']}"}
    config["service"]["telemetry"] = {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}}
    return config


def test_the_sample_agent(make_mill, next_hop, tmp_path):
    hop = next_hop()
    mill = make_mill(lambda ports: sample(ports, hop.target, str(tmp_path / "queue")))
    compact = mill.config["receivers"]["jaeger"]["protocols"]["thrift_compact"]["endpoint"]
    send(int(compact.rpartition(":")[2]), compact_batch(9, *range(1, 15)))
    wait_for("the spans", lambda: len(list(otlp.spans_of(hop.message()))) == 14)
    assert mill.stop() == {"accepted": 14, "delivered": 14, "dropped": 0, "held": 0}
