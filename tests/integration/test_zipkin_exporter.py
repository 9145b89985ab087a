"""The zipkin exporter: what a Zipkin server is posted, and that nothing is lost on the way through
two of us. What it shares with otlp_http (queue, statuses, Retry-After) is tested there."""

import collections
import gzip
import http.server
import ipaddress
import json
import os
import threading

import pytest
import requests

import otlp
import tempo
from mill import GOLDEN, wait_for

GOLDEN_LISTS = [
    "lens-ascend",
    "lens-envoy",
    "lens-messaging",
    "lens-messaging-kafka",
    "lens-simple-db-p6",
    "lens-skew",
    "lens-smartthings-mobile-web-install",
    "lens-smartthings-oauth-authorization",
    "sample1",
    "sample2",
    "contrib-sample3",
    "jaeger-zipkin_v2_01",
    "jaeger-zipkin_v2_03",
    "zipkin_v2_single",
]


class Server:
    """Stands for a Zipkin server: keeps what it is posted, answers 202 (or what `answers` says next)."""

    def __init__(self):
        self.posts = []
        self.answers = collections.deque()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.answers.popleft() if outer.answers else 202
                if status < 300:
                    outer.posts.append((self.path, dict(self.headers), body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/api/v2/spans"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def spans(self):
        return [sp for _, _, body in list(self.posts) for sp in json.loads(body)]

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    s = Server()
    yield s
    s.close()


def bridge(ports, url, exporter=None):
    """Zipkin and OTLP in, Zipkin out."""
    out = {"endpoint": url, "retry_on_failure": {"initial_interval": "50ms"}, **(exporter or {})}
    return {
        "receivers": {
            "zipkin": {"endpoint": f"127.0.0.1:{ports['zipkin']}"},
            "otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{ports['grpc']}"}}},
        },
        "exporters": {"zipkin": out},
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{ports['health']}"}},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}},
            "pipelines": {"traces": {"receivers": ["zipkin", "otlp"], "exporters": ["zipkin"]}},
        },
    }


def endpoint(ep):
    """Without what says nothing; addresses in their one form, what is none left out as Zipkin does."""
    out = {k: v for k, v in (ep or {}).items() if v}
    for key in ("ipv4", "ipv6"):
        try:
            out[key] = str(ipaddress.ip_address(out.get(key, "")))
        except ValueError:
            out.pop(key, None)
    return out


def normal(sp):
    """A span as Zipkin's own rules make it: ids padded, what is empty or false left out."""
    out = dict(sp)
    out["traceId"] = sp["traceId"].lower().rjust(16, "0").rjust(32, "0")
    out["id"] = sp["id"].lower().rjust(16, "0")
    parent = (sp.get("parentId") or "").lower().rjust(16, "0")
    out["parentId"] = parent if parent != out["id"] and parent.strip("0") else None
    out["localEndpoint"] = endpoint(sp.get("localEndpoint"))
    out["remoteEndpoint"] = endpoint(sp.get("remoteEndpoint"))
    out["annotations"] = [(a["timestamp"], a["value"]) for a in sp.get("annotations", [])]
    return {k: v for k, v in out.items() if v}


def golden(name):
    path = os.path.join(GOLDEN, "zipkin", name + ".json")
    if not os.path.exists(path):
        pytest.skip(f"no golden data ({path})")
    with open(path, "rb") as f:
        return f.read()


def by_key(spans):
    """In an order of their own: by id and kind, which is what tells the halves of one apart."""
    return sorted(spans, key=lambda sp: json.dumps(sp, sort_keys=True))


@pytest.fixture(scope="module")
def module_server():
    s = Server()
    yield s
    s.close()


@pytest.fixture(scope="module")
def module_bridge(module_server, tmp_path_factory):
    from mill import Mill

    mill = Mill(
        tmp_path_factory.mktemp("bridge"), lambda ports: bridge(ports, module_server.url)
    ).start()
    yield mill
    mill.stop()


@pytest.mark.parametrize("name", GOLDEN_LISTS)
def test_zipkin_to_otlp_to_zipkin(module_bridge, module_server, name):
    """What comes out is what went in, but for the status code that says error=true in OTLP's words."""
    sent = golden(name)
    module_server.posts.clear()
    answer = requests.post(
        module_bridge.url("zipkin", "/api/v2/spans"), data=sent, timeout=20
    )
    assert answer.status_code == 202, answer.text
    got = [normal(sp) for sp in module_server.spans()]
    want = [normal(sp) for sp in json.loads(sent)]
    for sp in got + want:
        tags = sp.get("tags", {})
        if tags.get("otel.status_code") == "ERROR" and "error" in tags:
            tags.pop("otel.status_code")
        if name == "contrib-sample3":  # says its error in the specification's two tags
            for key in ("otel.status_code", "otel.status_description", "error"):
                tags.pop(key, None)
    assert by_key(got) == by_key(want)


@pytest.mark.parametrize("form", ["json", "proto"])
def test_through_two_of_us(make_mill, form):
    """Every span is back by id, field by field, behind a second process."""
    last = make_mill()
    first = make_mill(
        lambda ports: bridge(ports, last.url("zipkin", "/api/v2/spans"), {"format": form})
    )
    direct, over = otlp.new_id(16).hex(), otlp.new_id(16).hex()
    span = {
        "id": "00000000000000aa",
        "parentId": "00000000000000bb",
        "kind": "CLIENT",
        "name": "Get",
        "timestamp": 1700000000000001,
        "duration": 7,
        "localEndpoint": {"serviceName": "s", "ipv4": "10.0.0.1", "port": 80},
        "remoteEndpoint": {"serviceName": "db", "ipv6": "2001:db8::1", "port": 5432},
        "annotations": [{"timestamp": 1700000000000002, "value": "a|b"}],
        "tags": {"k": "é", "host.name": "h", "error": "boom"},
        "shared": True,
        "debug": True,
    }
    for mill, trace_id in ((last, direct), (first, over)):
        answer = requests.post(
            mill.url("zipkin", "/api/v2/spans"), json=[{**span, "traceId": trace_id}], timeout=10
        )
        assert answer.status_code == 202, answer.text
    want, got = tempo.get(last, direct), tempo.get(last, over)
    for message in (want, got):
        for sp in otlp.spans_of(message):
            sp.trace_id = b""
            sp.attributes.sort(key=lambda kv: kv.key)
    assert got == want


def test_otlp_in_zipkin_out_and_back(make_mill):
    """The OTLP of an SDK: names, times, kinds, status, events and links survive; types become text."""
    last = make_mill()
    first = make_mill(lambda ports: bridge(ports, last.url("zipkin", "/api/v2/spans")))
    sent = otlp.request(n_spans=20)
    otlp.send_grpc(first, sent)
    spans = list(otlp.spans_of(sent))
    got = {
        sp.span_id: sp
        for trace_id in {sp.trace_id for sp in spans}
        for sp in otlp.spans_of(tempo.get(last, trace_id))
    }
    assert set(got) == {sp.span_id for sp in spans}
    for sp in spans:
        back = got[sp.span_id]
        assert (back.name, back.kind or 1, back.status.code, back.status.message) == (
            sp.name,
            sp.kind or 1,
            sp.status.code,
            sp.status.message,
        )
        assert back.parent_span_id == sp.parent_span_id
        assert back.start_time_unix_nano == sp.start_time_unix_nano // 1000 * 1000
        assert [e.name for e in back.events] == [e.name for e in sp.events]
        assert [(ln.trace_id, ln.span_id) for ln in back.links] == [
            (ln.trace_id, ln.span_id) for ln in sp.links
        ]
        keys = {kv.key for kv in back.attributes}
        assert {kv.key for kv in sp.attributes} <= keys


def test_retries_gzip_headers_and_balance(make_mill, server):
    """503 is tried again; the body is gzip when asked; configured headers go along."""
    server.answers.extend([503, 503])
    mill = make_mill(
        lambda ports: bridge(
            ports, server.url, {"compression": "gzip", "headers": {"X-Api-Key": "k"}}
        )
    )
    otlp.send_grpc(mill, otlp.request(n_spans=3), timeout=30)
    assert len(server.posts) == 1
    path, headers, body = server.posts[0]
    assert path == "/api/v2/spans" and headers["Content-Type"] == "application/json"
    assert headers["X-Api-Key"] == "k"
    assert len(json.loads(gzip.decompress(body))) == 3
    balance = mill.stop()
    assert (balance["accepted"], balance["delivered"], balance["dropped"]) == (3, 3, 0)


def test_default_service_name(make_mill, server):
    mill = make_mill(lambda ports: bridge(ports, server.url, {"default_service_name": "nobody"}))
    span = {"traceId": "1", "id": "2"}
    for sp in (span, {**span, "localEndpoint": {"serviceName": "s"}}):
        requests.post(mill.url("zipkin", "/api/v2/spans"), json=[sp], timeout=30)
    wait_for("two posts", lambda: len(server.posts) == 2)
    assert [sp["localEndpoint"]["serviceName"] for sp in server.spans()] == ["nobody", "s"]
