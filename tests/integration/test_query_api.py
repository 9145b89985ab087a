"""The query API as Tempo answers it (and as Grafana's data source relies on)."""

import base64
import json

import grpc
import pytest
import requests
from google.protobuf import json_format

import otlp
import tempo

MISSING = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def stored(shared_mill):
    sent = otlp.kitchen_sink()
    otlp.send_grpc(shared_mill, sent)
    return sent


def trace_id_of(sent):
    return next(otlp.spans_of(sent)).trace_id


def test_echo_ready_buildinfo(shared_mill):
    echo = tempo.ask(shared_mill, "/api/echo")
    assert (echo.status_code, echo.text.strip()) == (200, "echo")
    assert echo.headers["Content-Type"].startswith("text/plain")
    ready = tempo.ask(shared_mill, "/ready")
    assert (ready.status_code, ready.text.strip()) == (200, "ready")
    info = tempo.ask(shared_mill, "/api/status/buildinfo")
    assert info.status_code == 200
    keys = {"version", "revision", "branch", "buildUser", "buildDate", "goVersion"}
    assert set(info.json()) >= keys
    major, minor = info.json()["version"].lstrip("v").split(".")[:2]
    assert (int(major), int(minor)) >= (2, 7), "older Grafana asks for 2.7.0 or later"


@pytest.mark.parametrize("form", tempo.FORMS)
def test_forms(shared_mill, stored, form):
    otlp.assert_same(tempo.get(shared_mill, trace_id_of(stored), form), stored)


def json_spans(resource_spans):
    for rs in resource_spans:
        for ss in rs["scopeSpans"]:
            yield from (sp for sp in ss["spans"] if "kind" in sp)


def test_v1_json_is_jsonpb(shared_mill, stored):
    answer = tempo.ask(shared_mill, "/api/traces/" + trace_id_of(stored).hex())
    assert answer.headers["Content-Type"].startswith("application/json")
    tree = answer.json()
    assert set(tree) == {"batches"}
    sp = next(sp for sp in json_spans(tree["batches"]) if sp["kind"] == "SPAN_KIND_SERVER")
    assert base64.b64decode(sp["traceId"]) == trace_id_of(stored)
    assert isinstance(sp["startTimeUnixNano"], str)
    assert sp["status"] == {"code": "STATUS_CODE_ERROR", "message": "why"}
    numbers = {a["key"]: a["value"] for a in sp["attributes"]}
    assert numbers["int.min"] == {"intValue": str(-(2**63))}
    assert numbers["double.nan"] == {"doubleValue": "NaN"}
    assert numbers["double.inf"] == {"doubleValue": "-Infinity"}


def without_empty_status(tree):
    """In protobuf a status is always there, for Grafana's sake; in JSON as it was sent."""
    if isinstance(tree, list):
        return [without_empty_status(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        k: without_empty_status(v) for k, v in tree.items() if not (k == "status" and v == {})
    }


def test_json_is_what_protobuf_says(shared_mill, stored):
    """Both JSON forms of Tempo against another implementation of the protobuf JSON mapping."""
    tid = trace_id_of(stored)
    want = json_format.MessageToDict(tempo.get(shared_mill, tid, "v1 protobuf"))
    v1 = otlp.load_json(tempo.ask(shared_mill, "/api/traces/" + tid.hex()).text)
    assert set(v1) == {"batches"}
    assert without_empty_status(v1["batches"]) == without_empty_status(want["resourceSpans"])
    v2 = otlp.load_json(tempo.ask(shared_mill, "/api/v2/traces/" + tid.hex()).text)
    assert set(v2) == {"trace", "metrics"}
    assert without_empty_status(v2["trace"]) == without_empty_status(want)
    assert set(v2["metrics"]) == {"inspectedBytes"}
    assert int(v2["metrics"]["inspectedBytes"]) > 0 and isinstance(
        v2["metrics"]["inspectedBytes"], str
    )


def test_v2_always_has_the_sub_messages(shared_mill):
    """Grafana dereferences resource, scope and status without a look."""
    sent = otlp.request()
    rs = sent.resource_spans[0]
    rs.ClearField("resource")
    rs.scope_spans[0].ClearField("scope")
    otlp.send_grpc(shared_mill, sent)
    tid = trace_id_of(sent).hex()
    answer = tempo.ask(shared_mill, "/api/v2/traces/" + tid, accept="application/protobuf")
    assert answer.headers["Content-Type"].startswith("application/protobuf")
    got, status, message = tempo.v2_message(answer.content)
    assert got.resource_spans[0].HasField("resource")
    assert got.resource_spans[0].scope_spans[0].HasField("scope")
    assert got.resource_spans[0].scope_spans[0].spans[0].HasField("status")
    assert (status, message) == (0, "")


def test_otlp_json_has_hex_ids(shared_mill, stored):
    tid = trace_id_of(stored).hex()
    answer = tempo.ask(shared_mill, "/api/traces/" + tid, format="otlp")
    tree = answer.json()
    sp = next(sp for sp in json_spans(tree["resourceSpans"]) if sp["kind"] == 2)
    assert sp["traceId"] == tid
    assert len(sp["spanId"]) == 16 and sp["spanId"] == sp["spanId"].lower()
    assert sp["status"]["code"] == 2
    assert len(sp["links"][0]["traceId"]) == 32


@pytest.mark.parametrize(
    "path, status",
    [
        ("/api/traces/" + MISSING, 404),
        ("/api/traces/1", 404),
        ("/api/traces/xyz", 400),
        ("/api/traces/" + "1" * 33, 400),
        ("/api/traces/", (400, 404)),
        ("/api/v2/traces/xyz", 400),
        ("/api/v2/traces/" + "1" * 33, 400),
        ("/api/traces/12%2034", 400),
        ("/api/traces/..%2f..%2fetc", (400, 404)),
        ("/nowhere", 404),
    ],
)
def test_statuses(shared_mill, path, status):
    answer = tempo.ask(shared_mill, path)
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    if answer.status_code == 400:
        assert answer.headers["Content-Type"].startswith("text/plain") and answer.text.strip()


@pytest.mark.parametrize(
    "path",
    [
        "/api/search?q={}",
        "/api/search/tags",
        "/api/v2/search/tags?limit=5000",
        "/api/v2/search/tag/resource.service.name/values",
        "/api/metrics/query_range?q={}%7Crate()",
        "/api/metrics/query?q={}",
    ],
)
def test_what_grafana_asks_for_beside_traces(shared_mill, path):
    """Told by name: "page not found" reads as a wrong address."""
    answer = tempo.ask(shared_mill, path)
    assert answer.status_code == 404 and "not supported: traces are found by id" in answer.text


def test_v2_not_found_is_an_empty_trace(shared_mill):
    answer = tempo.ask(shared_mill, "/api/v2/traces/" + MISSING)
    assert answer.status_code == 200
    assert json.loads(answer.text)["trace"] == {}
    answer = tempo.ask(shared_mill, "/api/v2/traces/" + MISSING, accept="application/protobuf")
    assert answer.status_code == 200
    assert tempo.v2_message(answer.content)[0].ByteSize() == 0


@pytest.mark.parametrize("params", [{"start": "100", "end": "50"}, {"start": "x", "end": "5"}])
def test_bad_ranges(shared_mill, params):
    assert tempo.ask(shared_mill, "/api/traces/" + MISSING, **params).status_code == 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods(shared_mill, method):
    allowed = {
        "/api/traces/" + MISSING: ("GET", "HEAD"),
        "/api/v2/traces/" + MISSING: ("GET", "HEAD"),
        "/api/echo": ("GET", "HEAD"),
        "/api/status/buildinfo": ("GET", "HEAD"),
        "/ready": ("GET", "HEAD"),
        "/flush": ("POST",),
    }
    for path, methods in allowed.items():
        answer = requests.request(method, shared_mill.url("query", path), timeout=30)
        if method in methods:
            assert answer.status_code in (200, 404), path
        else:
            assert answer.status_code == 405, path
            assert answer.headers["Allow"] == ", ".join(methods)


def test_head_is_get_without_the_body(shared_mill, stored):
    """Of every form, gzipped or not."""
    for path in ("/api/traces/", "/api/v2/traces/"):
        for accept in ("application/json", "application/protobuf"):
            for coding in ("gzip", "identity"):
                headers = {"Accept": accept, "Accept-Encoding": coding}
                url = shared_mill.url("query", path + trace_id_of(stored).hex())
                get = requests.get(url, headers=headers, timeout=30)
                head = requests.head(url, headers=headers, timeout=30)
                assert head.status_code == 200 and head.content == b""
                for name in ("Content-Type", "Content-Length", "Content-Encoding"):
                    assert head.headers.get(name) == get.headers.get(name), (path, accept, name)
                assert (get.headers.get("Content-Encoding") == "gzip") == (coding == "gzip")


def test_unknown_parameters_are_ignored(shared_mill, stored):
    assert (
        tempo.ask(
            shared_mill, "/api/traces/" + trace_id_of(stored).hex(), tag="x", foo="1"
        ).status_code
        == 200
    )


def test_short_ids_are_padded(shared_mill):
    sent = otlp.request()
    short = otlp.new_id(7)
    sent.resource_spans[0].scope_spans[0].spans[0].trace_id = short.rjust(16, b"\0")
    otlp.send_grpc(shared_mill, sent)
    text = short.hex()
    for spelling in (
        text,
        text.lstrip("0"),
        text.rjust(16, "0"),
        text.rjust(32, "0"),
        text.upper(),
    ):
        got = tempo.get(shared_mill, spelling)
        assert got is not None, spelling
        otlp.assert_same(got, sent)


def test_tenants_do_not_meet(shared_mill):
    ours, theirs = otlp.request(), otlp.request()
    tid = trace_id_of(ours)
    theirs.resource_spans[0].scope_spans[0].spans[0].trace_id = tid
    otlp.send_grpc(shared_mill, ours, tenant="team-a")
    assert otlp.send_http(shared_mill, theirs, tenant="team.b*'()!").status_code == 200
    otlp.assert_same(tempo.get(shared_mill, tid, tenant="team-a"), ours)
    otlp.assert_same(tempo.get(shared_mill, tid, tenant="team.b*'()!"), theirs)
    assert tempo.get(shared_mill, tid) is None
    assert tempo.get(shared_mill, tid, tenant="single-tenant") is None


def test_without_a_header_the_tenant_is_single_tenant(shared_mill, stored):
    otlp.assert_same(tempo.get(shared_mill, trace_id_of(stored), tenant="single-tenant"), stored)


@pytest.mark.parametrize(
    "tenant", ["..", ".", "_spanmill", "../x", "a/b", "a b", "x" * 151, "ą".encode(), "a\\b", "a:b"]
)
def test_bad_tenants(shared_mill, tenant):
    req = otlp.request()
    assert otlp.send_http(shared_mill, req, tenant=tenant).status_code == 400
    assert (
        otlp.send_http(shared_mill, req, tenant=tenant, kind="application/json").status_code == 400
    )
    answer = tempo.ask(shared_mill, "/api/traces/" + MISSING, tenant=tenant)
    assert answer.status_code == 400, answer.text
    if isinstance(tenant, str):
        with pytest.raises(grpc.RpcError) as e:
            otlp.send_grpc(shared_mill, req, tenant=tenant)
        assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert e.value.details()


def test_longest_tenant(shared_mill):
    sent = otlp.request()
    otlp.send_grpc(shared_mill, sent, tenant="t" * 150)
    otlp.assert_same(tempo.get(shared_mill, trace_id_of(sent), tenant="t" * 150), sent)


def test_conflicting_copies_are_both_kept(shared_mill):
    """Same span id and kind, other bytes: both are there (DESIGN.md section 6)."""
    first = otlp.request()
    second = type(first)()
    second.CopyFrom(first)
    second.resource_spans[0].scope_spans[0].spans[0].name = "another"
    otlp.send_grpc(shared_mill, first)
    otlp.send_grpc(shared_mill, second)
    names = sorted(sp.name for sp in otlp.spans_of(tempo.get(shared_mill, trace_id_of(first))))
    assert names == ["another", "op 0"]


def test_large_trace(shared_mill):
    """20,000 spans of one trace in many requests."""
    want = set()
    trace_id = otlp.new_id(16)
    client = otlp.Grpc(shared_mill.ports["grpc"])
    for _ in range(20):
        req = otlp.request(n_spans=1000, attributes=1)
        for sp in otlp.spans_of(req):
            sp.trace_id = trace_id
            want.add(sp.span_id)
        client.call(req, timeout=30)
    client.close()
    got = otlp.span_ids(tempo.get(shared_mill, trace_id))
    assert len(got) == len(want) and set(got) == want


def test_health_check(shared_mill):
    assert requests.get(shared_mill.url("health", "/"), timeout=30).status_code == 200
