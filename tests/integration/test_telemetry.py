"""service.telemetry: the page in full, resource, logs; counters exact against what was sent."""

import json
import os
import time

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

import otlp
from mill import forwarder, run, wait_for

GAUGES_AND_COUNTERS = """
otelcol_receiver_accepted_spans otelcol_receiver_refused_spans
otelcol_exporter_sent_spans otelcol_exporter_send_failed_spans otelcol_exporter_enqueue_failed_spans
otelcol_exporter_queue_size otelcol_exporter_queue_capacity otelcol_exporter_in_flight_requests
otelcol_processor_incoming_items otelcol_processor_outgoing_items
otelcol_connector_consumed_items otelcol_connector_produced_items
otelcol_processor_batch_batch_size_trigger_send otelcol_processor_batch_timeout_trigger_send
otelcol_processor_batch_metadata_cardinality otelcol_processor_batch_batch_send_size
otelcol_processor_memory_limiter_accepted_spans otelcol_processor_memory_limiter_refused_spans
otelcol_processor_probabilistic_sampler_count_traces_sampled
otelcol_process_uptime otelcol_process_cpu_seconds otelcol_process_memory_rss
otelcol_process_runtime_heap_alloc_bytes otelcol_process_runtime_total_sys_memory_bytes
spanmill_accepted_spans spanmill_delivered_spans spanmill_dropped_spans spanmill_held_spans
spanmill_memory_bytes target_info
""".split()


def everything(ports, hop):
    """Two pipelines with the same processors."""
    out = forwarder(ports, hop.target)
    out["processors"] = {
        "memory_limiter": {"check_interval": "1s", "limit_mib": 256},
        "probabilistic_sampler": {"sampling_percentage": 50},
        "batch": None,
    }
    out["exporters"]["debug"] = None
    names = ["memory_limiter", "probabilistic_sampler", "batch"]
    out["service"]["pipelines"]["traces"]["processors"] = names
    out["service"]["pipelines"]["traces/look"] = {
        "receivers": ["otlp"],
        "processors": names,
        "exporters": ["debug"],
    }
    return out


def page(mill):
    answer = requests.get(mill.url("metrics", "/metrics"), timeout=30)
    assert answer.status_code == 200
    return answer.text


def families(mill):
    """The page as Prometheus' own client reads it; a family may be there once only, and a series
    too."""
    text = page(mill)
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.name not in found, f"{family.name} is there twice"
        assert family.documentation, f"{family.name} has no HELP"
        series = [(s.name, tuple(sorted(s.labels.items()))) for s in family.samples]
        assert len(series) == len(set(series)), f"a series of {family.name} is there twice"
        found[family.name] = family
    # the parser gathers what stands apart; the format wants it together
    heads = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))
    current = None
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            current = line.split()[2]
        elif not line.startswith("#"):
            assert line.startswith(current), f"{line} stands under {current}"
    return found


def test_the_page_is_prometheus_text(make_mill, next_hop):
    hop = next_hop()
    mill = make_mill(lambda ports: everything(ports, hop))
    otlp.send_grpc(mill, otlp.request(n_traces=100))
    found = families(mill)
    for name in GAUGES_AND_COUNTERS:
        assert name in found or name.removesuffix("_total") in found, f"no {name}"
    assert found["otelcol_receiver_accepted_spans"].type == "counter"
    assert found["otelcol_exporter_queue_size"].type == "gauge"
    assert found["otelcol_processor_batch_batch_send_size"].type == "histogram"


def test_counters_are_exact(make_mill, next_hop):
    """By receiver and transport, processor and pipeline, exporter; against the spans of the
    clients."""
    hop = next_hop()
    mill = make_mill(lambda ports: everything(ports, hop))
    sent = [otlp.request(n_traces=40, n_spans=5) for _ in range(5)]
    for i, request in enumerate(sent):
        if i % 2:
            otlp.send_grpc(mill, request)
        else:
            assert otlp.send_http(mill, request).status_code == 200
    kept = sum(
        int.from_bytes(sp.trace_id[9:], "big") >= 1 << 55
        for request in sent
        for sp in otlp.spans_of(request)
    )
    metric = mill.metric
    assert metric("otelcol_receiver_accepted_spans", receiver="otlp", transport="grpc") == 400
    assert metric("otelcol_receiver_accepted_spans", receiver="otlp", transport="http") == 600
    assert metric("otelcol_receiver_refused_spans") == 0
    for pipeline in ("traces", "traces/look"):
        where = {"pipeline": pipeline, "otel_signal": "traces"}
        for name, incoming, outgoing in (
            ("memory_limiter", 1000, 1000),
            ("probabilistic_sampler", 1000, kept),
            ("batch", kept, kept),
        ):
            assert metric("otelcol_processor_incoming_items", processor=name, **where) == incoming
            assert metric("otelcol_processor_outgoing_items", processor=name, **where) == outgoing
    sampled = "otelcol_processor_probabilistic_sampler_count_traces_sampled"
    assert metric(sampled, pipeline="traces", sampled="true") == kept
    assert metric(sampled, pipeline="traces", sampled="false") == 1000 - kept
    sizes = "otelcol_processor_batch_batch_send_size"
    assert metric(sizes + "_sum", pipeline="traces") == kept
    assert metric(sizes + "_count", pipeline="traces") == metric(
        sizes + "_bucket", pipeline="traces", le="+Inf"
    )
    for exporter in ("otlp", "debug"):
        assert metric("otelcol_exporter_sent_spans", exporter=exporter) == kept
    assert metric("spanmill_dropped_spans", reason="sampled") == 1000 - kept
    assert mill.stop() == {
        "accepted": 1000,
        "delivered": kept,
        "dropped": 1000 - kept,
        "held": 0,
    }


def test_failures_are_counted(make_mill, next_hop):
    """A full queue, a request that is given up, one that is refused for good."""
    import grpc

    from nexthop import refuse

    hop = next_hop(
        behave=lambda request, context, hop: refuse(
            context, grpc.StatusCode.INVALID_ARGUMENT, "no"
        )
    )
    mill = make_mill(lambda ports: forwarder(ports, hop.target))
    answer = otlp.send_grpc(mill, otlp.request(n_spans=4))
    assert answer.partial_success.rejected_spans == 4
    assert mill.metric("otelcol_exporter_send_failed_spans", exporter="otlp") == 4
    assert mill.metric("spanmill_dropped_spans", reason="permanent_error") == 4
    assert mill.metric("otelcol_exporter_sent_spans", exporter="otlp") == 0
    assert mill.stop() == {"accepted": 4, "delivered": 0, "dropped": 4, "held": 0}


def test_total_is_added_to_every_counter(make_mill, next_hop):
    hop = next_hop()

    def config(ports):
        out = everything(ports, hop)
        prometheus = {
            "host": "127.0.0.1",
            "port": ports["metrics"],
            "without_type_suffix": False,
        }
        out["service"]["telemetry"]["metrics"] = {
            "readers": [{"pull": {"exporter": {"prometheus": prometheus}}}]
        }
        return out

    mill = make_mill(config)
    otlp.send_grpc(mill, otlp.request(n_spans=3))
    assert mill.metric("otelcol_receiver_accepted_spans_total", transport="grpc") == 3
    families(mill)
    for line in page(mill).splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name.endswith("_total") == (kind == "counter"), line


def test_resource_is_in_target_info(make_mill):
    telemetry = {"resource": {"service.version": None, "deployment.environment": 'te"st'}}
    mill = make_mill(overlay={"service": {"telemetry": telemetry}})
    (labels,) = [labels for name, labels, _ in mill.metrics() if name == "target_info"]
    assert labels["service_name"] == "spanmill"
    assert len(labels["service_instance_id"]) == 36
    assert labels["deployment_environment"] == 'te\\"st'
    assert "service_version" not in labels


@pytest.mark.parametrize("metrics", [{"level": "none"}, {"readers": []}])
def test_the_page_can_be_closed(make_mill, metrics):
    mill = make_mill(overlay={"service": {"telemetry": {"metrics": {"address": None, **metrics}}}})
    with pytest.raises(requests.ConnectionError):
        requests.get("http://127.0.0.1:8888/metrics", timeout=30)
        requests.get(mill.url("metrics", "/metrics"), timeout=30)


# ---- logs


def test_lines_that_tooling_greps_for(mill):
    text = mill.stderr()
    for words in (
        "Starting spanmill...",
        "Starting extensions...",
        "Starting GRPC server",
        "Starting HTTP server",
        "Everything is ready. Begin running and processing data.",
    ):
        assert words in text, words
    mill.stop()
    text = mill.stderr()
    assert "Starting shutdown..." in text and "Shutdown complete." in text


def test_json_lines(make_mill, next_hop):
    """Every line is one object with the fields that were asked for; the last line is the balance."""
    logs = {"encoding": "json", "initial_fields": {"cluster": "a b", "shard": 7}}
    hop = next_hop(start=False)
    mill = make_mill(
        lambda ports: forwarder(ports, hop.target),
        {
            "receivers": {"otlp": {"ack_timeout": "200ms"}},
            "service": {"telemetry": {"logs": logs, "resource": {"team": "ü"}}},
        },
    )
    assert otlp.send_http(mill, otlp.request()).status_code == 503
    mill.stop()
    *lines, last = mill.stderr().splitlines()
    assert last.startswith("spanmill stopped accepted=")
    records = [json.loads(line) for line in lines]
    assert {"ts", "level", "msg", "cluster", "shard", "resource"} <= set(records[0])
    assert all(r["cluster"] == "a b" and r["shard"] == 7 for r in records)
    assert all(r["resource"]["team"] == "ü" for r in records)
    assert any(r["msg"].startswith("Exporting failed.") and r["error"] for r in records)


def test_output_paths(make_mill, tmp_path):
    """To a file and to stdout, and the balance always to stderr; a file that cannot be is status 2."""
    path = str(tmp_path / "log")
    mill = make_mill(
        overlay={"service": {"telemetry": {"logs": {"output_paths": [path, "stdout"]}}}}
    )
    mill.stop()
    with open(path, encoding="utf-8") as f:
        text = f.read()
    assert "Everything is ready" in text and "Shutdown complete." in text
    with open(os.path.join(mill.tmp, "stdout"), encoding="utf-8") as f:
        assert f.read() == text
    assert mill.stderr().count("\n") == 1
    status, _, err = run(
        "--config",
        mill.config_path,
        "--set",
        "service.telemetry.logs.output_paths=[/nonexistent/log]",
    )
    assert status == 2 and "/nonexistent/log" in err


def test_level_and_sampling(make_mill, next_hop):
    """error: no info lines; of a place in the program `initial` lines a tick, then one in
    `thereafter`."""
    hop = next_hop(start=False)

    def make(logs):
        mill = make_mill(
            lambda ports: forwarder(ports, hop.target, {"retry_on_failure": {"enabled": False}}),
            {"service": {"telemetry": {"logs": logs}}},
        )
        for _ in range(25):
            assert otlp.send_http(mill, otlp.request()).status_code == 503
        mill.stop()
        return mill.stderr()

    assert make({"level": "error"}).count("\n") == 1
    sampling = {"tick": "1h", "initial": 3, "thereafter": 10}
    text = make({"sampling": sampling})
    assert text.count("Exporting failed. Rejecting data.") == 5  # 3, then the 13th and the 23rd
    assert text.count("suppressed=9") == 2
    assert make({"sampling": {"enabled": False}}).count("Exporting failed. Rejecting data.") == 25


def test_hostile_text_forges_no_line(make_mill):
    """What clients send is one field of one line, whatever it holds."""
    mill = make_mill()
    answer = requests.post(
        mill.url("zipkin", "/api/v2/spans"),
        data=json.dumps(
            [{"traceId": "1", "id": "2"}, {"traceId": "x\nfake error line\x1b[31m", "id": "1"}]
        ),
        headers={"Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code == 202
    wait_for("the line", lambda: "spans refused" in mill.stderr())
    for line in mill.stderr().splitlines():
        assert not line.startswith("fake") and "\x1b" not in line


def test_uptime_counts(mill):
    first = mill.metric("otelcol_process_uptime")
    time.sleep(0.05)
    assert 0 < first < mill.metric("otelcol_process_uptime") < 60
