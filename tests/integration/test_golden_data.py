"""Recorded payloads and blocks that other programs made (shared golden data; skipped where it is
not there)."""

import csv
import glob
import json
import os
import shutil

import pytest
import requests
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

import otlp
import tempo
from mill import GOLDEN, query_node

OTLP_PB = [
    "trace",
    "kitchen-sink",
    "neg-unknown-field",
    "fluentbit-test_traces_002.in",
    "jaeger-cassandra-otel_traces_01",
    "jaeger-integration-example_trace",
    "jaeger-integration-scope_attributes_trace",
    "jaeger-memory-otel_traces_01",
    "jaeger-otlp2jaeger-in",
]


def golden(*parts):
    path = os.path.join(GOLDEN, *parts)
    if not os.path.exists(path):
        pytest.skip("no golden data")
    return path


def read(*parts):
    with open(golden(*parts), "rb") as f:
        return f.read()


def usable(req):
    """The request without the spans that have no usable ids."""
    for rs in req.resource_spans:
        for ss in rs.scope_spans:
            for sp in list(ss.spans):
                if (
                    len(sp.trace_id) != 16
                    or len(sp.span_id) != 8
                    or not any(sp.trace_id)
                    or not any(sp.span_id)
                ):
                    ss.spans.remove(sp)
    return req


def check_back(mill, sent, tenant):
    for trace_id in {sp.trace_id for sp in otlp.spans_of(sent)}:
        otlp.assert_same(tempo.get(mill, trace_id, tenant=tenant), sent, trace_id)


@pytest.mark.parametrize("name", OTLP_PB)
def test_otlp_protobuf(shared_mill, name):
    body = read("otlp", "derived", name + ".pb")
    tenant = "pb-" + name.replace("_", "-")
    answer = otlp.send_http(shared_mill, body, tenant=tenant)
    assert answer.status_code == 200, answer.text
    check_back(shared_mill, usable(service.ExportTraceServiceRequest.FromString(body)), tenant)


@pytest.mark.parametrize(
    "name",
    [
        "trace.json",
        "derived/kitchen-sink.json",
        "fluentbit-test_traces_002.in.json",
        "jaeger-cassandra-otel_traces_01.json",
        "jaeger-integration-example_trace.json",
        "jaeger-integration-log_tags_trace.json",
        "jaeger-integration-process_tags_trace.json",
        "jaeger-integration-scope_attributes_trace.json",
        "jaeger-integration-span_tags_trace.json",
        "jaeger-memory-otel_traces_01.json",
        "jaeger-otlp2jaeger-in.json",
    ],
)
def test_otlp_json(shared_mill, name):
    text = read("otlp", name).decode()
    tenant = "json-" + os.path.basename(name).replace("_", "-")
    answer = otlp.send_http(shared_mill, text, kind="application/json", tenant=tenant)
    assert answer.status_code == 200, answer.text
    twin = os.path.join(
        GOLDEN, "otlp", "derived", os.path.basename(name).removesuffix(".json") + ".pb"
    )
    if not os.path.exists(twin):
        assert otlp.response_of(answer).partial_success.rejected_spans == 0
        return
    with open(twin, "rb") as f:
        check_back(
            shared_mill, usable(service.ExportTraceServiceRequest.FromString(f.read())), tenant
        )


@pytest.mark.parametrize(
    "name", ["deprecated-field1000.pb", "deprecated-instrumentationLibrarySpans.json"]
)
def test_old_spellings(shared_mill, name):
    kind = "application/json" if name.endswith("json") else otlp.PROTOBUF
    answer = otlp.send_http(shared_mill, read("otlp", "derived", name), kind=kind)
    assert (
        answer.status_code == 200 and otlp.response_of(answer).partial_success.rejected_spans == 0
    )
    assert (
        shared_mill.metric("otelcol_receiver_accepted_spans", receiver="otlp", transport="http") > 0
    )


def test_zipkin_v2_files(shared_mill):
    """Every recorded v2 JSON list is taken."""
    golden("zipkin")
    taken = 0
    for path in sorted(glob.glob(os.path.join(GOLDEN, "zipkin", "**", "*.json"), recursive=True)):
        with open(path, encoding="utf-8") as f:
            try:
                tree = json.load(f)
            except ValueError:
                continue
        if (
            not isinstance(tree, list)
            or not tree
            or not isinstance(tree[0], dict)
            or not isinstance(tree[0].get("id"), str)
        ):
            continue
        if "binaryAnnotations" in tree[0] or any(
            "endpoint" in a for a in tree[0].get("annotations") or []
        ):
            continue
        answer = requests.post(
            shared_mill.url("zipkin", "/api/v2/spans"),
            data=json.dumps(tree),
            timeout=30,
            headers={"Content-Type": "application/json", "X-Scope-OrgID": f"zipkin-{taken}"},
        )
        assert answer.status_code == 202, f"{path}: {answer.text}"
        taken += 1
    assert taken > 0


def manifest():
    """The blocks of the manifest that have all their files: (folder, encoding, first id, last id,
    number of traces)."""
    path = os.path.join(GOLDEN, "tempo-v2", "MANIFEST.tsv")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    return [
        (r["#block_dir"], r["encoding"], r["first_id"], r["last_id"], int(r["objects"]))
        for r in rows
        if r["#block_dir"].startswith(
            ("generated-2.10.8/blocks", "generated-2.10.8/compacted", "tempo-cli")
        )
    ]


@pytest.mark.parametrize(
    "folder, encoding, first, last, objects", manifest() or [("absent", "", "", "", 0)]
)
def test_blocks_that_tempo_wrote(make_mill, tmp_path, folder, encoding, first, last, objects):
    """A block of a real Tempo in the data directory is read, in every compression."""
    source = golden("tempo-v2", folder)
    data = str(tmp_path / "blocks")
    mill = make_mill(lambda ports: query_node(ports, data), start=False)
    with open(os.path.join(source, "meta.json"), encoding="utf-8") as f:
        meta = json.load(f)
    block = os.path.join(data, meta["tenantID"], meta["blockID"])
    shutil.copytree(source, block)
    for name in os.listdir(block):
        if name.endswith("-copy"):
            os.rename(os.path.join(block, name), os.path.join(block, name.removesuffix("-copy")))
    mill.start()
    for trace_id in (first, last):
        got = tempo.get(mill, trace_id, tenant=meta["tenantID"])
        assert got is not None, (
            f"{trace_id} is in this block ({objects} traces, {encoding}) and was not found"
        )
        assert otlp.span_ids(got)
    assert tempo.get(mill, "f" * 32, tenant=meta["tenantID"]) is None
