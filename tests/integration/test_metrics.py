"""Self-telemetry under the Collector's names; the two ends balance whenever nothing is in
flight."""

import json

import requests

import otlp
from mill import forwarder, wait_for
from test_zipkin import span


def test_names_and_counts(make_mill):
    mill = make_mill()
    otlp.send_grpc(mill, otlp.request(n_spans=3))
    assert otlp.send_http(mill, otlp.request(n_spans=4)).status_code == 200
    requests.post(
        mill.url("zipkin", "/api/v2/spans"),
        data=json.dumps([span()]),
        timeout=30,
        headers={"Content-Type": "application/json"},
    )
    accepted = "otelcol_receiver_accepted_spans"
    assert mill.metric(accepted, receiver="otlp", transport="grpc") == 3
    assert mill.metric(accepted, receiver="otlp", transport="http") == 4
    assert mill.metric(accepted, receiver="zipkin") == 1
    wait_for("blocks", lambda: mill.metric("otelcol_exporter_sent_spans", exporter="blocks") == 8)
    names = {name for name, _, _ in mill.metrics()}
    for name in (
        "otelcol_process_uptime",
        "otelcol_process_memory_rss",
        "otelcol_process_cpu_seconds",
        "otelcol_receiver_refused_spans",
        "otelcol_exporter_send_failed_spans",
        "otelcol_processor_incoming_items",
        "otelcol_processor_outgoing_items",
        "spanmill_memory_bytes",
    ):
        assert name in names, f"no {name}"
    assert any(name.startswith("spanmill_blocks_") for name in names)


def test_exposition_is_well_formed(shared_mill):
    check_exposition(shared_mill)


def check_exposition(mill):
    answer = requests.get(mill.url("metrics", "/metrics"), timeout=30)
    assert answer.headers["Content-Type"].startswith("text/plain")
    typed = set()
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in typed, f"{name} has two TYPE lines"
            typed.add(name)
    for name, _, _ in mill.metrics():
        base = name
        for tail in ("_bucket", "_sum", "_count"):
            if name.endswith(tail) and name[: -len(tail)] in typed:
                base = name[: -len(tail)]
        assert base in typed, f"{name} has no TYPE line"
    series = [(n, tuple(sorted(labels.items()))) for n, labels, _ in mill.metrics()]
    assert len(series) == len(set(series)), "a series is there twice"


def test_refused_are_counted(make_mill):
    mill = make_mill()
    req = otlp.request(n_spans=3)
    list(otlp.spans_of(req))[1].span_id = bytes(8)
    otlp.send_grpc(mill, req)
    assert mill.metric("otelcol_receiver_accepted_spans", receiver="otlp") == 2
    assert mill.metric("spanmill_receiver_rejected_spans", receiver="otlp") == 1


def test_sampled_out_are_dropped_by_reason(make_mill, next_hop):
    """accepted = delivered + dropped, at the metrics and on the last line; the kept ones are those
    with R >= T."""
    hop = next_hop()

    def config(ports):
        out = forwarder(ports, hop.target)
        out["processors"] = {"probabilistic_sampler": {"sampling_percentage": 25}}
        out["service"]["pipelines"]["traces"]["processors"] = ["probabilistic_sampler"]
        return out

    mill = make_mill(config)
    sent = otlp.request(n_traces=400)
    response = otlp.send_grpc(mill, sent)
    assert response.partial_success.rejected_spans == 0, "a sampling decision is no refusal"
    kept = {
        sp.span_id
        for sp in otlp.spans_of(sent)
        if int.from_bytes(sp.trace_id[9:], "big") >= 0xC0 << 48
    }
    assert set(hop.span_counts()) == kept
    assert all("th:c" in sp.trace_state for sp in otlp.spans_of(hop.message()))
    assert mill.metric("otelcol_exporter_sent_spans", exporter="otlp") == len(kept)
    assert mill.metric("spanmill_dropped_spans") == 400 - len(kept)
    assert all(
        labels.get("reason")
        for name, labels, _ in mill.metrics()
        if name == "spanmill_dropped_spans"
    )
    assert mill.stop() == {
        "accepted": 400,
        "delivered": len(kept),
        "dropped": 400 - len(kept),
        "held": 0,
    }


def test_two_exporters_count_each_span_once(make_mill, next_hop):
    hop = next_hop()

    def config(ports):
        out = forwarder(ports, hop.target)
        out["exporters"]["debug"] = {"verbosity": "basic"}
        out["service"]["pipelines"]["traces"]["exporters"] = ["otlp", "debug"]
        return out

    mill = make_mill(config)
    otlp.send_grpc(mill, otlp.request(n_spans=6))
    assert mill.stop() == {"accepted": 6, "delivered": 6, "dropped": 0, "held": 0}


def test_memory_limiter_refuses_retryably(make_mill):
    """A small budget: what an empty budget could hold is told to come again, what it could never
    hold 413."""
    mill = make_mill(overlay={"processors": {"memory_limiter": {"limit_mib": 8}}})
    big = otlp.request(n_spans=1000, attributes=10, size=1500)
    assert big.ByteSize() > 12 * 2**20
    assert otlp.send_http(mill, big).status_code == 413
    assert otlp.send_http(mill, otlp.request()).status_code == 200


def test_two_of_a_kind_share_one_head(make_mill, next_hop):
    """Two samplers and two exporters: one TYPE line per metric, a series for each."""
    hop = next_hop()

    def config(ports):
        out = forwarder(ports, hop.target)
        out["processors"] = {
            "probabilistic_sampler/a": {"sampling_percentage": 99},
            "probabilistic_sampler/b": {"sampling_percentage": 98},
        }
        out["exporters"]["otlp/two"] = out["exporters"]["otlp"]
        traces = out["service"]["pipelines"]["traces"]
        traces["processors"] = ["probabilistic_sampler/a", "probabilistic_sampler/b"]
        traces["exporters"] = ["otlp", "otlp/two"]
        return out

    mill = make_mill(config)
    otlp.send_grpc(mill, otlp.request(n_traces=50))
    check_exposition(mill)
    sent = {
        labels["exporter"]
        for name, labels, _ in mill.metrics()
        if name == "otelcol_exporter_sent_spans"
    }
    assert sent == {"otlp", "otlp/two"}
