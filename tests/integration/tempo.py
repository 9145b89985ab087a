"""Reading traces back by the query API in each of its forms."""

import time

import requests
from google.protobuf import json_format
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

import otlp
from mill import PATIENCE


def ask(mill, path, tenant=None, accept=None, **params):
    headers = {}
    if tenant is not None:
        headers["X-Scope-OrgID"] = tenant
    if accept:
        headers["Accept"] = accept
    return requests.get(mill.url("query", path), headers=headers, params=params, timeout=30)


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


def is_complete(form, answer):
    """Whether an answer with spans, or one that says there are none, speaks for every place there is."""
    if answer.status_code != 200 or not form.startswith("v2"):
        return answer.status_code in (200, 404)
    if form == "v2 json":
        return answer.json().get("status") != "PARTIAL"
    return v2_message(answer.content)[1] == 0


def words(form, trace_id, answer):
    """An answer as a failed test shows it."""
    return f"{form} {hex_id(trace_id)}: {answer.status_code} {answer.content[:500]}"


def get(mill, trace_id, form="v1 protobuf", tenant=None):
    """The trace as TracesData, or None where this form's way of saying "not found" is the answer.
    One question: an incomplete answer is a failure. For a process that holds all itself, where what
    was acknowledged must be there at once; else settled() or whole()."""
    answer = ask_form(mill, trace_id, form, tenant)
    assert is_complete(form, answer), words(form, trace_id, answer)
    return None if answer.status_code == 404 else parse(form, answer)


def settled(mill, trace_id, form="v1 protobuf", tenant=None, timeout=PATIENCE):
    """As get(), but incomplete answers (206, 503, PARTIAL: a peer is slow, starts, or has just taken
    a partition) are asked again. None, too, is final: a trace that was seen must not be missing from a
    complete answer."""
    deadline = time.monotonic() + timeout
    while True:
        answer = ask_form(mill, trace_id, form, tenant)
        if is_complete(form, answer):
            return None if answer.status_code == 404 else parse(form, answer)
        text = words(form, trace_id, answer)
        assert answer.status_code in (200, 206, 503), text
        assert time.monotonic() < deadline, f"still incomplete after {timeout} s: {text}"
        time.sleep(0.02)


def whole(mill, trace_id, form="v1 protobuf", tenant=None, n_spans=1, timeout=PATIENCE):
    """The trace as soon as it is found in a complete answer, with n_spans spans or more: for what is
    on its way, or seen only after a poll. Not found, and incomplete, mean: not yet."""
    deadline = time.monotonic() + timeout
    while True:
        answer = ask_form(mill, trace_id, form, tenant)
        text = words(form, trace_id, answer)
        assert answer.status_code in (200, 206, 404, 503), text
        if answer.status_code == 200 and is_complete(form, answer):
            got = parse(form, answer)
            if got is not None and len(otlp.span_ids(got)) >= n_spans:
                return got
        assert time.monotonic() < deadline, f"not found whole in {timeout} s; the last answer: {text}"
        time.sleep(0.05)


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
