"""Unmodified clients that speak Zipkin: the Zipkin reporter for Node (v2 and v1 JSON) and
OpenTelemetry's Zipkin exporters of Python (JSON, protobuf) and Node. Every span they say they sent is
found by id, as they say it is."""

import json
import os
import shutil
import subprocess

import pytest

import otlp
import tempo
from mill import ROOT

CLIENTS = os.path.join(ROOT, "tests", "clients")
PYTHON = os.path.join(ROOT, "build", "zipkin-venv", "bin", "python")
NODE_MODULES = os.path.join(ROOT, "build", "node")
KINDS = {
    "INTERNAL": (0, 1),  # what Zipkin has no word for is left out
    "SERVER": (2,),
    "CLIENT": (3,),
    "PRODUCER": (4,),
    "CONSUMER": (5,),
}


def run_client(*command, env=None):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0 and "rror" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def found(mill, want):
    """(span, service.name) for a span as a client describes it: by id and kind."""
    message = tempo.get(mill, want["trace_id"])
    assert message is not None, f"{want['trace_id']} is not there"
    for rs in message.resource_spans:
        for ss in rs.scope_spans:
            for sp in ss.spans:
                if sp.span_id.hex() == want["span_id"] and sp.kind in KINDS[want["kind"]]:
                    attributes = {kv.key: kv.value.string_value for kv in rs.resource.attributes}
                    return sp, attributes.get("service.name")
    raise AssertionError(f"{want} is not among {message}")


def assert_as_said(mill, want):
    sp, name = found(mill, want)
    have = {kv.key: kv.value.string_value for kv in sp.attributes}
    assert sp.name == want["name"]
    assert {k: have.get(k) for k in want["attributes"]} == want["attributes"]
    if "service" in want:
        assert name == want["service"]
    if "status" in want:
        assert [sp.status.code, sp.status.message] == want["status"]
    if "parent_id" in want:
        assert sp.parent_span_id.hex() == want["parent_id"]
    if "start_us" in want:
        assert abs(sp.start_time_unix_nano - want["start_us"] * 1000) <= 1000
        assert abs(sp.end_time_unix_nano - want["end_us"] * 1000) <= 1000
    names = [e if isinstance(e, str) else e[0] for e in want.get("events", [])]
    assert [e.name for e in sp.events] == names
    return sp


@pytest.mark.parametrize("form", ["json", "proto"])
def test_python_opentelemetry(shared_mill, form):
    if not os.path.exists(PYTHON):
        pytest.skip("OpenTelemetry's Zipkin exporters are not installed")
    script = os.path.join(CLIENTS, "python", "send_zipkin.py")
    spans = run_client(PYTHON, script, form, shared_mill.url("zipkin", "/api/v2/spans"))
    assert len(spans) == 7
    for want in spans:
        sp = assert_as_said(shared_mill, want)
        if want["name"] == "root":
            event = sp.events[0]
            assert [(kv.key, kv.value.int_value) for kv in event.attributes] == [("n", 1)]


@pytest.mark.parametrize(
    "form, path",
    [("v2", "/api/v2/spans"), ("v1", "/api/v1/spans"), ("otel", "/api/v2/spans")],
)
def test_node(shared_mill, form, path):
    if shutil.which("node") is None or not os.path.isdir(NODE_MODULES):
        pytest.skip("no node, or its packages are not installed")
    spans = run_client(
        "node",
        os.path.join(CLIENTS, "node", "send_zipkin.js"),
        form,
        shared_mill.url("zipkin", path),
        env={"NODE_MODULES": NODE_MODULES},
    )
    assert len(spans) == (1 if form == "otel" else 2)
    for want in spans:
        assert_as_said(shared_mill, want)
    if form != "otel":  # both halves of one id
        assert len(list(otlp.spans_of(tempo.get(shared_mill, spans[0]["trace_id"])))) == 2
