"""Zipkin as reporters post it: v2 JSON and protobuf, v1 JSON and thrift."""

import gzip
import json
import struct
import zlib
import shutil
import subprocess

import pytest
import requests

import otlp
import tempo


def span(trace_id=None, **keys):
    out = {
        "traceId": trace_id or otlp.new_id(16).hex(),
        "id": otlp.new_id(8).hex(),
        "name": "get /",
        "kind": "SERVER",
        "timestamp": 1700000000000000,
        "duration": 1500,
        "localEndpoint": {"serviceName": "front", "ipv4": "10.0.0.1", "port": 80},
        "tags": {"http.method": "GET"},
    }
    out.update(keys)
    return {k: v for k, v in out.items() if v is not None}


def post(mill, spans, **keys):
    body = spans if isinstance(spans, (str, bytes)) else json.dumps(spans)
    headers = {"Content-Type": "application/json", **keys.pop("headers", {})}
    return requests.post(
        mill.url("zipkin", "/api/v2/spans"), data=body, headers=headers, timeout=10
    )


def one(mill, trace_id):
    found = list(otlp.spans_of(tempo.get(mill, trace_id)))
    assert len(found) == 1
    return found[0]


def attributes(sp):
    out = {}
    for kv in sp.attributes:
        field = kv.value.WhichOneof("value")
        out[kv.key] = getattr(kv.value, field) if field else None
    return out


def test_post_by_curl(shared_mill):
    """The README's way: a v2 POST by curl is answered 202 and the trace is whole."""
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    trace_id = otlp.new_id(16).hex()
    root = span(
        trace_id,
        annotations=[{"timestamp": 1700000000000500, "value": "half way"}],
        debug=True,
        shared=True,
        remoteEndpoint={"serviceName": "db", "ipv4": "10.0.0.2", "port": 5432},
    )
    child = span(
        trace_id, parentId=root["id"], kind="CLIENT", name="select", tags={"error": "no such table"}
    )
    done = subprocess.run(
        [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            "Content-Type: application/json",
            "-d",
            json.dumps([root, child]),
            shared_mill.url("zipkin", "/api/v2/spans"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "202"
    got = {sp.span_id.hex(): sp for sp in otlp.spans_of(tempo.get(shared_mill, trace_id))}
    assert set(got) == {root["id"], child["id"]}
    sp = got[root["id"]]
    assert (sp.name, sp.kind) == ("get /", 2)
    assert sp.start_time_unix_nano == 1700000000000000000
    assert sp.end_time_unix_nano == 1700000000001500000
    assert sp.events[0].name == "half way"
    have = attributes(sp)
    assert have["http.method"] == "GET"
    assert have["zipkin.debug"] is True and have["zipkin.shared"] is True
    assert got[child["id"]].parent_span_id.hex() == root["id"]
    assert (got[child["id"]].kind, got[child["id"]].status.code) == (3, 2)
    names = {
        kv.value.string_value
        for rs in tempo.get(shared_mill, trace_id).resource_spans
        for kv in rs.resource.attributes
        if kv.key == "service.name"
    }
    assert names == {"front"}


@pytest.mark.parametrize(
    "kind, want",
    [
        ("CLIENT", 3),
        ("SERVER", 2),
        ("PRODUCER", 4),
        ("CONSUMER", 5),
        (None, (0, 1)),
        ("SIDEWAYS", (0, 1)),
    ],
)
def test_kinds(shared_mill, kind, want):
    sp = span(kind=kind)
    assert post(shared_mill, [sp]).status_code == 202
    got = one(shared_mill, sp["traceId"]).kind
    assert got in (want if isinstance(want, tuple) else (want,))


@pytest.mark.parametrize("body", ["[]", ""])
def test_nothing_to_do_is_accepted(shared_mill, body):
    """Reporters check the health of a server by posting an empty list."""
    assert post(shared_mill, body).status_code == 202


def test_bad_among_good(shared_mill):
    good, bad = span(), span(id="not hex")
    assert post(shared_mill, [bad, good]).status_code == 202
    assert one(shared_mill, good["traceId"]).span_id.hex() == good["id"]
    assert tempo.get(shared_mill, bad["traceId"]) is None


@pytest.mark.parametrize(
    "field, value",
    [
        ("id", "not hex"),
        ("id", "0000000000000000"),
        ("id", "11112222333344445"),
        ("id", None),
        ("traceId", "xyz"),
        ("traceId", "0" * 32),
        ("traceId", "1" * 33),
    ],
)
def test_none_usable_names_the_first(shared_mill, field, value):
    bad = span()
    bad[field] = value
    answer = post(shared_mill, [bad, {**bad, "name": "second"}])
    assert answer.status_code == 400
    assert f"[0].{field}" in answer.text, answer.text
    if value is not None:
        assert f'[0].{field}: "{value}"' in answer.text, answer.text


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[{",
        "[1]",
        "null",
        '{"traceId":"1"}',
        '[{"traceId": "1", "id": }]',
        "\xff\xfe",
        "[" * 10000,
    ],
)
def test_damaged_json_is_400(shared_mill, body):
    answer = post(shared_mill, body.encode("latin-1"))
    assert answer.status_code == 400, answer.text
    assert answer.text.strip()


@pytest.mark.parametrize(
    "timestamp, duration, start, end",
    [
        ("1700000000000000", "1500", 1700000000000000000, 1700000000001500000),
        (1700000000000000, None, 1700000000000000000, 1700000000000000000),
        (-5, -1, 0, 0),
    ],
)
def test_numbers_as_reporters_write_them(shared_mill, timestamp, duration, start, end):
    sp = span(timestamp=timestamp, duration=duration)
    assert post(shared_mill, [sp]).status_code == 202
    got = one(shared_mill, sp["traceId"])
    assert (got.start_time_unix_nano, got.end_time_unix_nano) == (start, end)


def test_numbers_as_floats(shared_mill):
    text = (
        json.dumps([span("5" * 32)]).replace("1700000000000000", "1.7e15").replace("1500", "1500.0")
    )
    assert post(shared_mill, text).status_code == 202
    got = one(shared_mill, "5" * 32)
    assert got.start_time_unix_nano == 1700000000000000000
    assert got.end_time_unix_nano == 1700000000001500000


def test_ids_of_64_bits_and_in_capitals(shared_mill):
    low = otlp.new_id(8).hex()
    sp = span(low, id=otlp.new_id(8).hex().upper())
    assert post(shared_mill, [sp]).status_code == 202
    assert one(shared_mill, low).trace_id.hex() == low.rjust(32, "0")
    assert one(shared_mill, low.rjust(32, "0")).span_id.hex() == sp["id"].lower()


def test_parent_of_zeros_or_itself_is_none(shared_mill):
    for parent in ("0000000000000000", "self"):
        sp = span()
        sp["parentId"] = sp["id"] if parent == "self" else parent
        assert post(shared_mill, [sp]).status_code == 202
        assert one(shared_mill, sp["traceId"]).parent_span_id == b""


@pytest.mark.parametrize("value, code", [("true", 2), ("", 2), ("boom", 2), ("false", 0)])
def test_error_tag(shared_mill, value, code):
    sp = span(tags={"error": value})
    assert post(shared_mill, [sp]).status_code == 202
    assert one(shared_mill, sp["traceId"]).status.code == code


def test_gzip_and_chunks(shared_mill):
    for chunked in (False, True):
        sp = span()
        body = gzip.compress(json.dumps([sp]).encode())
        answer = requests.post(
            shared_mill.url("zipkin", "/api/v2/spans"),
            data=iter([body[:20], body[20:]]) if chunked else body,
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
            timeout=30,
        )
        assert answer.status_code == 202, answer.text
        assert one(shared_mill, sp["traceId"])


def test_other_methods_and_paths(shared_mill):
    assert requests.get(shared_mill.url("zipkin", "/api/v2/spans"), timeout=30).status_code == 405
    assert (
        requests.post(shared_mill.url("zipkin", "/nowhere"), data="[]", timeout=30).status_code
        == 404
    )


def test_tenant(shared_mill):
    sp = span()
    assert post(shared_mill, [sp], headers={"X-Scope-OrgID": "zip"}).status_code == 202
    assert tempo.get(shared_mill, sp["traceId"]) is None
    assert tempo.get(shared_mill, sp["traceId"], tenant="zip") is not None
    assert post(shared_mill, [sp], headers={"X-Scope-OrgID": "../x"}).status_code == 400


# ---- the other forms ----


def pb_field(number, value):
    """One protobuf field: bytes or text as LEN, an int as varint."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def as_proto(trace_id, span_id):
    sp = pb_field(1, trace_id) + pb_field(3, span_id) + pb_field(4, 2) + pb_field(5, "get /")
    sp += b"\x31" + struct.pack("<Q", 1700000000000000) + pb_field(7, 1500)
    sp += pb_field(8, pb_field(1, "front")) + pb_field(11, pb_field(1, "k") + pb_field(2, "7"))
    return pb_field(1, sp)


def thrift_field(kind, number, value):
    return struct.pack(">Bh", kind, number) + value


def thrift_text(text):
    return struct.pack(">i", len(text)) + text.encode()


def as_thrift(trace_id, span_id):
    host = thrift_field(12, 3, thrift_field(11, 3, thrift_text("front")) + b"\0")
    notes = [
        thrift_field(10, 1, struct.pack(">q", at)) + thrift_field(11, 2, thrift_text(v)) + host
        for at, v in ((1700000000000000, "sr"), (1700000000001500, "ss"))
    ]
    tag = thrift_field(11, 1, thrift_text("k")) + thrift_field(11, 2, thrift_text("7"))
    tag += thrift_field(8, 3, struct.pack(">i", 6))
    high, low = struct.unpack(">qq", trace_id)
    return (
        struct.pack(">Bi", 12, 1)
        + thrift_field(10, 1, struct.pack(">q", low))
        + thrift_field(10, 12, struct.pack(">q", high))
        + thrift_field(11, 3, thrift_text("get /"))
        + thrift_field(10, 4, span_id)
        + thrift_field(15, 6, struct.pack(">Bi", 12, 2) + b"".join(n + b"\0" for n in notes))
        + thrift_field(15, 8, struct.pack(">Bi", 12, 1) + tag + b"\0")
        + b"\0"
    )


def as_v1_json(trace_id, span_id):
    host = {"serviceName": "front"}
    sp = {
        "traceId": trace_id.hex(),
        "id": span_id.hex(),
        "name": "get /",
        "annotations": [
            {"timestamp": 1700000000000000, "value": "sr", "endpoint": host},
            {"timestamp": 1700000000001500, "value": "ss", "endpoint": host},
        ],
        "binaryAnnotations": [{"key": "k", "value": "7", "endpoint": host}],
    }
    return json.dumps([sp]).encode()


def as_v2_json(trace_id, span_id):
    sp = span(trace_id.hex(), id=span_id.hex(), tags={"k": "7"})
    return json.dumps([sp]).encode()


FORMS = {
    "v2_json": ("/api/v2/spans", "application/json", as_v2_json),
    "v2_json_no_type": ("/api/v2/spans", None, as_v2_json),
    "v2_proto": ("/api/v2/spans", "application/x-protobuf", as_proto),
    "v2_proto_params": ("/api/v2/spans", "application/x-protobuf; charset=utf-8", as_proto),
    "v1_json": ("/api/v1/spans", "application/json", as_v1_json),
    "v1_thrift": ("/api/v1/spans", "application/x-thrift", as_thrift),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_every_form(shared_mill, form, coding):
    """By path and content type, in every coding: the same span."""
    path, kind, encode = FORMS[form]
    trace_id, span_id = otlp.new_id(16), otlp.new_id(8)
    body = encode(trace_id, span_id)
    headers = {"Content-Type": kind} if kind else {}
    if coding:
        headers["Content-Encoding"] = coding
        body = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    answer = requests.post(
        shared_mill.url("zipkin", path), data=body, headers=headers, timeout=10
    )
    assert (answer.status_code, answer.content) == (202, b""), answer.text
    sp = one(shared_mill, trace_id.hex())
    assert (sp.span_id, sp.name, sp.kind) == (span_id, "get /", 2)
    assert sp.start_time_unix_nano == 1700000000000000000
    assert sp.end_time_unix_nano == 1700000000001500000
    assert attributes(sp)["k"] == "7"
    resource = tempo.get(shared_mill, trace_id.hex()).resource_spans[0].resource
    assert [(kv.key, kv.value.string_value) for kv in resource.attributes] == [
        ("service.name", "front")
    ]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_bad_and_empty(shared_mill, form):
    path, kind, encode = FORMS[form]
    headers = {"Content-Type": kind} if kind else {}
    url = shared_mill.url("zipkin", path)
    assert requests.post(url, data=b"", headers=headers, timeout=30).status_code == 202
    none_usable = encode(bytes(16), otlp.new_id(8))
    answer = requests.post(url, data=none_usable, headers=headers, timeout=30)
    assert answer.status_code == 400 and "[0].trace" in answer.text, answer.text
    cut = encode(otlp.new_id(16), otlp.new_id(8))[:-3]
    answer = requests.post(url, data=cut, headers=headers, timeout=30)
    assert answer.status_code == 400 and answer.text.strip()


def test_both_halves_of_a_shared_span(shared_mill):
    """A client and a server with one span id: both are kept and told apart by kind."""
    trace_id, span_id = otlp.new_id(16).hex(), otlp.new_id(8).hex()
    halves = [
        span(trace_id, id=span_id, kind="CLIENT", localEndpoint={"serviceName": "caller"}),
        span(trace_id, id=span_id, kind="SERVER", shared=True),
    ]
    for half in halves:
        assert post(shared_mill, [half]).status_code == 202
    got = sorted(otlp.spans_of(tempo.get(shared_mill, trace_id)), key=lambda sp: sp.kind)
    assert [(sp.kind, sp.span_id.hex()) for sp in got] == [(2, span_id), (3, span_id)]
    assert attributes(got[0])["zipkin.shared"] is True
    assert "zipkin.shared" not in attributes(got[1])


def test_a_v1_span_of_both_ends_is_two(shared_mill):
    trace_id = otlp.new_id(16).hex()
    ends = [("cs", "a", 1), ("sr", "b", 3), ("ss", "b", 7), ("cr", "a", 9)]
    sp = {
        "traceId": trace_id,
        "id": "0000000000000007",
        "annotations": [
            {"timestamp": 10**15 + at, "value": v, "endpoint": {"serviceName": host}}
            for v, host, at in ends
        ],
        "binaryAnnotations": [{"key": "sa", "value": True, "endpoint": {"serviceName": "b"}}],
    }
    answer = requests.post(shared_mill.url("zipkin", "/api/v1/spans"), json=[sp], timeout=30)
    assert answer.status_code == 202, answer.text
    got = sorted(otlp.spans_of(tempo.get(shared_mill, trace_id)), key=lambda sp: sp.kind)
    assert [
        (s.kind, s.start_time_unix_nano // 1000 - 10**15, s.end_time_unix_nano // 1000 - 10**15)
        for s in got
    ] == [(2, 3, 7), (3, 1, 9)]
    assert attributes(got[1])["peer.service"] == "b"
