"""Unmodified OpenTelemetry SDKs. Each program sends its spans twice: to spanmill and, by a second
exporter, to a plain recording server; what spanmill returns by id must be what the recording shows,
field by field."""

import os
import shutil
import subprocess
import sys

import pytest

import otlp
import tempo
from mill import ROOT, forwarder, wait_for

NODE_MODULES = os.path.join(ROOT, "build", "node")


def send(mill, hop, command, kind, env=None):
    port = mill.ports["grpc" if kind == "grpc" else "http"]
    done = subprocess.run(
        [*command, kind, f"127.0.0.1:{port}", hop.target],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr, done.stderr
    ids = done.stdout.split()
    assert len(ids) == 2
    sent = hop.message()
    assert {i.hex() for i in (sp.trace_id for sp in otlp.spans_of(sent))} == set(ids)
    for trace_id in ids:
        for form in tempo.FORMS:
            got = tempo.get(mill, trace_id, form)
            assert got is not None, f"{trace_id} not found by {form}"
            otlp.assert_same(got, sent, bytes.fromhex(trace_id))


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_python_sdk(make_mill, next_hop, kind):
    mill = make_mill()
    send(
        mill,
        next_hop(),
        [sys.executable, os.path.join(ROOT, "tests", "clients", "python", "send.py")],
        kind,
    )


@pytest.mark.parametrize("kind", ["grpc", "http-proto", "http-json"])
def test_node_sdk(make_mill, next_hop, kind):
    if shutil.which("node") is None or not os.path.isdir(NODE_MODULES):
        pytest.skip("no node, or its packages are not installed")
    mill = make_mill()
    send(
        mill,
        next_hop(),
        ["node", os.path.join(ROOT, "tests", "clients", "node", "send.js")],
        kind,
        {"NODE_MODULES": NODE_MODULES},
    )


@pytest.mark.parametrize("kind", ["grpc", "http-proto"])
def test_java_sdk(make_mill, next_hop, kind):
    subprocess.run([os.path.join(ROOT, "tests", "tools", "install-otel-java")], check=True)
    with open(os.path.join(ROOT, "build", "otel-java", "classpath"), encoding="utf-8") as f:
        classes = f.read().strip()
    source = os.path.join(ROOT, "tests", "clients", "java", "Send.java")
    # its text has characters that are not ASCII, whatever the locale
    java = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8", "-cp", classes, source]
    send(make_mill(), next_hop(), java, kind)


def send_signals(make_mill, next_hop, tmp_path, command, kind, env=None):
    """Logs and metrics of an SDK through an agent with a disk queue and a gateway arrive at a hop as
    the SDK sent them to the recording one."""
    hop, copy = next_hop(), next_hop()

    def all_signals(config, signals=("traces", "logs", "metrics")):
        pipelines = config["service"]["pipelines"]
        for signal in signals:
            pipelines[signal] = pipelines["traces"]
        return config

    gateway = make_mill(lambda ports: all_signals(forwarder(ports, hop.target)))
    agent = make_mill(
        lambda ports: all_signals(
            forwarder(ports, f"127.0.0.1:{gateway.ports['grpc']}", storage=str(tmp_path / "queue"))
        )
    )
    port = agent.ports["grpc" if kind == "grpc" else "http"]
    done = subprocess.run(
        [*command, kind, f"127.0.0.1:{port}", copy.target],
        capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr, done.stderr
    for signal in ("logs", "metrics"):
        sent = copy.joined(signal)
        assert sent.ByteSize() > 400
        wait_for(signal, lambda s=signal, n=sent.ByteSize(): hop.joined(s).ByteSize() >= n)
        got = hop.joined(signal)
        same = got.SerializeToString(deterministic=True) == sent.SerializeToString(
            deterministic=True
        )
        assert same, f"sent {sent}\n\ngot {got}"


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_python_sdk_logs_and_metrics(make_mill, next_hop, tmp_path, kind):
    client = os.path.join(ROOT, "tests", "clients", "python", "signals.py")
    send_signals(make_mill, next_hop, tmp_path, [sys.executable, client], kind)


@pytest.mark.parametrize("kind", ["grpc", "http-proto", "http-json"])
def test_node_sdk_logs_and_metrics(make_mill, next_hop, tmp_path, kind):
    if shutil.which("node") is None or not os.path.isdir(NODE_MODULES):
        pytest.skip("no node, or its packages are not installed")
    client = os.path.join(ROOT, "tests", "clients", "node", "signals.js")
    send_signals(
        make_mill, next_hop, tmp_path, ["node", client], kind, {"NODE_MODULES": NODE_MODULES}
    )


@pytest.mark.parametrize(
    "way", ["grpc", "grpc gzip", "http", "http gzip", "http chunked", "json", "json gzip chunked"]
)
def test_every_field_comes_back(shared_mill, way):
    sent = otlp.kitchen_sink()
    if way.startswith("grpc"):
        compression = otlp.grpc.Compression.Gzip if "gzip" in way else None
        response = otlp.send_grpc(shared_mill, sent, compression=compression)
    else:
        answer = otlp.send_http(
            shared_mill,
            sent,
            kind="application/json" if "json" in way else otlp.PROTOBUF,
            compress="gzip" in way,
            chunked="chunked" in way,
        )
        assert answer.status_code == 200, answer.text
        response = otlp.response_of(answer)
    assert response.partial_success.rejected_spans == 0, response
    trace_id = next(otlp.spans_of(sent)).trace_id
    for form in tempo.FORMS:
        otlp.assert_same(tempo.get(shared_mill, trace_id, form), sent)


def test_unknown_fields_survive(shared_mill):
    """A field of a later OTLP is kept byte for byte, at every level."""
    sent = otlp.request()
    extra = b"\xfa\x3f\x05later"  # field 1023, length-delimited

    def grown(message):
        out = type(message)()
        out.ParseFromString(message.SerializeToString() + extra)
        return out

    rs = sent.resource_spans[0]
    ss = rs.scope_spans[0]
    span = grown(ss.spans[0])
    span.attributes[0].CopyFrom(grown(span.attributes[0]))
    ss.spans[0].CopyFrom(span)
    rs.resource.CopyFrom(grown(rs.resource))
    ss.scope.CopyFrom(grown(ss.scope))
    otlp.send_grpc(shared_mill, sent)
    got = tempo.get(shared_mill, span.trace_id)
    assert got.SerializeToString().count(extra) == 4
    otlp.assert_same(got, sent)


def test_a_trace_in_pieces_is_one(shared_mill):
    """Requests of one trace by different doors and at different times come back as one trace."""
    sent = otlp.kitchen_sink()
    trace_id = next(otlp.spans_of(sent)).trace_id
    for i, rs in enumerate(sent.resource_spans):
        part = type(sent)(resource_spans=[rs])
        if i % 2:
            assert otlp.send_http(shared_mill, part).status_code == 200
        else:
            otlp.send_grpc(shared_mill, part)
    otlp.assert_same(tempo.get(shared_mill, trace_id), sent)


def test_the_same_request_twice_is_one_trace(shared_mill):
    """A client that did not hear the answer sends again: equal bytes are one span."""
    sent = otlp.request(n_spans=4)
    otlp.send_grpc(shared_mill, sent)
    otlp.send_grpc(shared_mill, sent)
    otlp.assert_same(tempo.get(shared_mill, next(otlp.spans_of(sent)).trace_id), sent)


def test_from_blocks_after_restart(make_mill):
    """The same from blocks on disk: flushed by POST /flush, read by a process that never saw the
    spans."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "1h"}}})
    sent = otlp.kitchen_sink()
    trace_id = next(otlp.spans_of(sent)).trace_id
    otlp.send_grpc(mill, sent)
    answer = otlp.requests.post(mill.url("query", "/flush"), timeout=30)
    assert answer.status_code in (200, 204), answer.text
    tenant = os.path.join(mill.data, "single-tenant")
    blocks = [b for b in os.listdir(tenant) if os.path.exists(os.path.join(tenant, b, "meta.json"))]
    assert blocks, "POST /flush returned and no block is visible"
    otlp.assert_same(tempo.get(mill, trace_id), sent)
    mill.stop()
    mill.start()
    for form in tempo.FORMS:
        otlp.assert_same(tempo.get(mill, trace_id, form), sent)
