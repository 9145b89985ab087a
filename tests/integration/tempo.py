"""Reading traces back by the query API in each of its forms."""

import time

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


def ask_form(mill, trace_id, form, tenant=None):
    """The answer of one form, as it came."""
    accept = "application/protobuf" if form.endswith("protobuf") else "application/json"
    version = "/api/v2/traces/" if form.startswith("v2") else "/api/traces/"
    extra = {"format": "otlp"} if form == "otlp json" else {}
    return ask(mill, version + hex_id(trace_id), tenant, accept, **extra)


def parse(form, answer):
    """The trace in an answer, or None when it has no spans."""
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


def get(mill, trace_id, form="v1 protobuf", tenant=None, tries=1):
    """The trace as TracesData, or None where this form's way of saying "not found" is the
    answer. What is incomplete is asked again, 20 ms later, until `tries` are used up."""
    answer = ask_form(mill, trace_id, form, tenant)
    while answer.status_code in (206, 503) and (tries := tries - 1) > 0:
        time.sleep(0.02)
        answer = ask_form(mill, trace_id, form, tenant)
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200, (
        f"{form} {hex_id(trace_id)}: {answer.status_code} {answer.text[:500]}"
    )
    return parse(form, answer)


def get_partial(mill, trace_id, form="v1 protobuf", tenant=None):
    """(trace or None, is it complete, message) of an answer that may be incomplete."""
    answer = ask_form(mill, trace_id, form, tenant)
    assert answer.status_code in ((200,) if form.startswith("v2") else (200, 206)), answer.text
    complete, message = answer.status_code == 200, ""
    if form == "v2 json":
        tree = answer.json()
        complete, message = tree.get("status") != "PARTIAL", tree.get("message", "")
        assert complete == ("status" not in tree)
    elif form == "v2 protobuf":
        _, status, message = v2_message(answer.content)
        assert status in (0, 1)
        complete = status == 0
    return parse(form, answer), complete, message
