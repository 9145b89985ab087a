"""The prober of exposed exemplars: what it says when all is well, when a trace is not there, and when
nobody answers."""

import http.server
import threading

import pytest

import otlp
from mill import free_port, merged, wait_for


def counting(ports, probe=None, **exemplars):
    """otlp in; blocks and spanmetrics out; metrics to debug."""
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    return {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": at["http"]}}}},
        "connectors": {
            "spanmetrics": {
                "metrics_flush_interval": "200ms",
                "exemplars": {"enabled": True, "probe": merged({"rate": 1000, "wait": "1s"}, probe)},
            }
        },
        "exporters": {"blocks": {"max_block_age": "200ms"}, "debug": None},
        "extensions": {
            "trace_store": {"local": {"path": "data"}},
            "query": {"endpoint": at["query"]},
            "health_check": {"endpoint": at["health"]},
        },
        "service": {
            "extensions": ["trace_store", "query", "health_check"],
            "telemetry": {"metrics": {"address": at["metrics"]}},
            "pipelines": {
                "traces": {"receivers": ["otlp"], "exporters": ["spanmetrics", "blocks"]},
                "metrics": {"receivers": ["spanmetrics"], "exporters": ["debug"]},
            },
        },
    }


def results(mill):
    return {r: mill.metric("exemplar_probe_total", result=r) for r in ("ok", "partial", "missing")}


def send(mill, tenant=None):
    answer = otlp.send_http(mill, otlp.request(n_spans=2), tenant=tenant)
    assert answer.status_code == 200, answer.text


def wait_for_result(mill, **want):
    have = {"ok": 0, "partial": 0, "missing": 0, **want}
    wait_for(f"the prober to find {want}", lambda: results(mill) == have, 60, 0.1)
    wait_for("none that waits", lambda: mill.metric("exemplar_probe_waiting") == 0)


@pytest.fixture
def query_api():
    """What a test makes of it: answers each look-up with server.status; notes the tenant."""
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append((self.path, self.headers.get("X-Scope-OrgID")))
            self.send_response(self.server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.status, server.asked = 503, []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_shown_exemplars_are_found_in_the_same_process(make_mill):
    """Each once, in its own tenant, however often it is shown."""
    mill = make_mill(counting)
    send(mill)
    wait_for_result(mill, ok=2)
    send(mill, tenant="acme")
    wait_for_result(mill, ok=4)
    assert mill.metric("exemplar_probe_late_total") == 0


def test_a_trace_that_is_not_there_is_missing_and_no_answer_says_nothing(make_mill, query_api):
    url = f"http://127.0.0.1:{query_api.server_port}/"
    mill = make_mill(lambda ports: counting(ports, {"endpoint": url, "wait": "300ms"}))
    send(mill, tenant="acme")
    wait_for("look-ups without an answer",
             lambda: mill.metric("exemplar_probe_unanswered_total") >= 2, 60, 0.1)  # fmt: skip
    assert set(results(mill).values()) == {0}
    query_api.status = 404
    wait_for_result(mill, missing=2)
    assert {tenant for _, tenant in query_api.asked} == {"acme"}
    assert mill.stderr().count("the trace of an exposed exemplar is not found") == 2


def test_an_api_that_is_away_costs_nothing_but_a_count(make_mill):
    endpoint = f"127.0.0.1:{free_port()}"
    mill = make_mill(lambda ports: counting(ports, {"endpoint": endpoint}))
    send(mill)
    wait_for("a look-up", lambda: mill.metric("exemplar_probe_unanswered_total") >= 1, 60, 0.1)
    send(mill)
    assert set(results(mill).values()) == {0}
    assert "an exposed exemplar cannot be looked up" in mill.stderr()
