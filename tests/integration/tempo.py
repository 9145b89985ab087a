"""Reading traces back by the query API in each of its forms."""

import requests
from google.protobuf import json_format
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

import otlp


def ask(mill, path, tenant=None, accept=None, **params):
    headers = {}
    if tenant is not None:
        headers["X-Scope-OrgID"] = tenant
    if accept:
        headers["Accept"] = accept
    return requests.get(mill.url("query", path), headers=headers, params=params, timeout=10)


def hex_id(trace_id):
    return trace_id.hex() if isinstance(trace_id, bytes) else trace_id


def parse_v1(text):
    tree = otlp.load_json(text)
    return json_format.ParseDict({"resourceSpans": tree.get("batches", [])}, trace.TracesData())


def parse_v2(text):
    return json_format.ParseDict(otlp.load_json(text)["trace"], trace.TracesData())


def v2_message(content):
    """(trace, status, message) of a protobuf tempopb.TraceByIDResponse: 1 trace, 2 metrics, 3
    status, 4 message."""
    found = {}
    at = 0
    while at < len(content):
        key, at = varint(content, at)
        if key & 7 == 0:
            value, at = varint(content, at)
        else:
            assert key & 7 == 2, f"wire type {key & 7}"
            size, at = varint(content, at)
            value, at = content[at : at + size], at + size
        found[key >> 3] = value
    assert 1 in found, "the trace sub-message must always be there"
    return trace.TracesData.FromString(found[1]), found.get(3, 0), found.get(4, b"").decode()


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


FORMS = ("v1 json", "v1 protobuf", "v2 json", "v2 protobuf", "otlp json")


def get(mill, trace_id, form="v1 protobuf", tenant=None):
    """The trace as TracesData, or None where this form's way of saying "not found" is the
    answer."""
    tid = hex_id(trace_id)
    accept = "application/protobuf" if form.endswith("protobuf") else "application/json"
    version = "/api/v2/traces/" if form.startswith("v2") else "/api/traces/"
    extra = {"format": "otlp"} if form == "otlp json" else {}
    answer = ask(mill, version + tid, tenant, accept, **extra)
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200, f"{form} {tid}: {answer.status_code} {answer.text[:500]}"
    if form == "v2 protobuf":
        out = v2_message(answer.content)[0]
    elif form == "v1 protobuf":
        out = trace.TracesData.FromString(answer.content)
    elif form == "v2 json":
        out = parse_v2(answer.text)
    elif form == "v1 json":
        out = parse_v1(answer.text)
    else:
        out = otlp.from_json(answer.text, trace.TracesData())
    return out if out.resource_spans else None
