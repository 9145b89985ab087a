"""The prometheusremotewrite exporter: what a real Prometheus stores and gives back, and every answer
that a next hop may give."""

import math
import re
import threading
import time

import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service

import otlp
import prompb
import tempo
from mill import all_in_one, merged, wait_for

DELTA, CUMULATIVE = 1, 2
TRACE, SPAN = bytes(range(16)), bytes(range(8))


def config(ports, url, exporter=None, storage=None):
    out = merged(
        {
            "endpoint": url,
            "tls": {"insecure": True},
            "timeout": "30s",
            "retry_on_failure": {"initial_interval": "50ms", "max_interval": "200ms"},
        },
        exporter,
    )
    at = {name: f"127.0.0.1:{ports[name]}" for name in ports}
    whole = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": at["http"]}}, "ack_timeout": "60s"}},
        "exporters": {"prometheusremotewrite": out},
        "extensions": {"health_check": {"endpoint": at["health"]}},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"address": at["metrics"]}},
            "pipelines": {
                "metrics": {"receivers": ["otlp"], "exporters": ["prometheusremotewrite"]}
            },
        },
    }
    if storage:
        whole["extensions"]["file_storage"] = {"directory": storage, "create_directory": True}
        whole["service"]["extensions"].append("file_storage")
        out["sending_queue"] = merged(out.get("sending_queue", {}), {"storage": "file_storage"})
    return whole


@pytest.fixture
def writer(make_mill):
    def make(url, exporter=None, **keys):
        return make_mill(lambda ports: config(ports, url, exporter, **keys))

    return make


@pytest.fixture
def hop():
    made = []

    def make(behave=None, **keys):
        made.append(prompb.RemoteWriteHop(behave, **keys))
        return made[-1].start()

    yield make
    for h in made:
        h.stop()


# ---- requests ----


def request(service_name="shop", instance="i-1", **attributes):
    """A request of one resource and scope, and its list of metrics."""
    req = service.ExportMetricsServiceRequest()
    res = req.resource_metrics.add()
    res.resource.attributes.append(otlp.string("service.name", service_name))
    res.resource.attributes.append(otlp.string("service.instance.id", instance))
    for key, value in attributes.items():
        res.resource.attributes.append(otlp.string(key.replace("__", "."), value))
    scope = res.scope_metrics.add()
    scope.scope.name, scope.scope.version = "lib", "1.2"
    return req, scope.metrics


def point_of(data, now, **keys):
    p = data.data_points.add(start_time_unix_nano=now - 10**9, time_unix_nano=now, **keys)
    p.attributes.append(otlp.string("http.route", "/cart"))
    return p


def number(out, name, value, now, unit="", kind="gauge", monotonic=False, temporality=CUMULATIVE):
    m = out.add(name=name, unit=unit, description=f"what {name} is")
    data = getattr(m, kind)
    if kind == "sum":
        data.aggregation_temporality, data.is_monotonic = temporality, monotonic
    p = point_of(data, now)
    if isinstance(value, int):
        p.as_int = value
    else:
        p.as_double = value
    return p


def histogram(out, name, bounds, counts, total, now, unit="s", temporality=CUMULATIVE):
    m = out.add(name=name, unit=unit)
    m.histogram.aggregation_temporality = temporality
    p = point_of(m.histogram, now, count=sum(counts), sum=total)
    p.explicit_bounds.extend(bounds)
    p.bucket_counts.extend(counts)
    return p


def exemplar(p, value, at, trace=TRACE, span=SPAN):
    p.exemplars.add(as_double=value, time_unix_nano=at, trace_id=trace, span_id=span)


def send(mill, req, timeout=60):
    answer = otlp.send_http(mill, req, path="/v1/metrics", timeout=timeout)
    assert answer.status_code == 200, answer.text
    return service.ExportMetricsServiceResponse.FromString(answer.content).partial_success


def stop(mill):
    """Stop it: (delivered, dropped, held) of the metrics."""
    mill.stop()
    found = re.findall(r"metrics accepted=\d+ delivered=(\d+) dropped=(\d+) held=(\d+)", mill.stderr())
    return tuple(map(int, found[-1]))


def dropped(mill, reason):
    return mill.metric("spanmill_remote_write_dropped_points", reason=reason)


# ---- a real Prometheus ----

SERIES = {
    "http_route": "/cart",
    "instance": "i-1",
    "job": "shop",
    "otel_scope_name": "lib",
    "otel_scope_version": "1.2",
}


def one(prometheus, expr):
    """The one series of an expression: (labels without the name, value)."""
    found = prometheus.query(expr)
    assert len(found) == 1, f"{expr}: {found}"
    labels, value = found[0]
    labels.pop("__name__", None)
    return labels, value


def test_prometheus_gives_values_and_exemplars_back(writer, make_prometheus):
    prometheus = make_prometheus()
    mill = writer(prometheus.remote_write_url, {"external_labels": {"cluster": "eu", "job": "no"}})
    now = time.time_ns() // 10**6 * 10**6
    req, out = request(host__name="h1")
    number(out, "temperature", -1.5, now, "Cel")
    number(out, "memory.use", 2**53, now, "By")
    number(out, "queue.size", -7, now, "1", "sum")
    calls = number(out, "calls", 1234, now, "1", "sum", monotonic=True)
    exemplar(calls, 1.0, now - 5 * 10**6, b"\x01" * 16, b"\x02" * 8)
    durations = histogram(out, "call.duration", [0.005, 0.5, 10], [3, 2, 1, 4], 77.25, now)
    exemplar(durations, 0.25, now - 3 * 10**6, b"\x03" * 16, b"\x04" * 8)
    exemplar(durations, 60.0, now - 2 * 10**6, b"\x05" * 16, b"\x06" * 8)
    exemplar(durations, 0.005, now - 1 * 10**6, b"\x07" * 16, b"\x08" * 8)
    assert send(mill, req).rejected_data_points == 0

    want = {**SERIES, "cluster": "eu"}
    at = now // 10**6 / 1000
    for name, value in [
        ("temperature_celsius", -1.5),
        ("memory_use_bytes", 2**53),
        ("queue_size", -7),
        ("calls_total", 1234),
        ("call_duration_seconds_count", 10),
        ("call_duration_seconds_sum", 77.25),
    ]:
        assert one(prometheus, name) == (want, value)
        assert prometheus.value(f"timestamp({name})") == at
    buckets = {
        labels["le"]: value for labels, value in prometheus.query("call_duration_seconds_bucket")
    }
    assert buckets == {"0.005": 3, "0.5": 5, "10": 6, "+Inf": 10}
    assert one(prometheus, "target_info") == (
        {"cluster": "eu", "host_name": "h1", "instance": "i-1", "job": "shop"},
        1,
    )

    got = [
        (dict(e.series).get("le"), e.trace_id, e.span_id, e.value, round(e.timestamp * 1000))
        for name in ("calls_total", "call_duration_seconds_bucket")
        for e in prometheus.exemplars(name)
    ]
    ms = now // 10**6
    assert sorted(got, key=str) == sorted(
        [
            (None, "01" * 16, "02" * 8, 1.0, ms - 5),
            ("0.5", "03" * 16, "04" * 8, 0.25, ms - 3),
            ("+Inf", "05" * 16, "06" * 8, 60.0, ms - 2),
            ("0.005", "07" * 16, "08" * 8, 0.005, ms - 1),
        ],
        key=str,
    )
    assert not prometheus.complaints()


def native_buckets(value):
    """[(upper bound, count)] of a native histogram as the API gives it, without zeros."""
    return [(float(b[2]), float(b[3])) for b in value["buckets"] if float(b[3])]


def exponential(out, name, scale, offset, counts, now, **keys):
    m = out.add(name=name)
    m.exponential_histogram.aggregation_temporality = CUMULATIVE
    p = point_of(m.exponential_histogram, now, scale=scale, **keys)
    p.positive.offset = offset
    p.positive.bucket_counts.extend(counts)
    return p


@pytest.mark.parametrize(
    "scale, offset, counts",
    [
        (0, 0, [1]),
        (0, -3, [1, 0, 2, 0, 0, 0, 0, 5]),
        (3, 16, [2] * 9),
        (8, -300, [0, 1, 0, 7]),
        (10, -7, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (20, 5, [3, 0, 4]),
        (-4, -1, [1, 2]),
        (1, 0, []),
    ],
)
def test_native_histograms_have_the_same_buckets(writer, make_prometheus, scale, offset, counts):
    """What Prometheus says of bounds and counts is what OTLP's definition says, with buckets finer
    than schema 8 merged."""
    prometheus = make_prometheus()
    mill = writer(prometheus.remote_write_url)
    now = time.time_ns()
    total = sum(counts) + 2
    for i in range(2):  # Prometheus 2.42 has no place for an exemplar before its series
        at = now + i * 10**6
        req, out = request()
        p = exponential(out, "e", scale, offset, counts, at, count=total, zero_count=2, sum=9.5)
        exemplar(p, 1.5, at)
        assert send(mill, req).rejected_data_points == 0
    want = {}
    for i, n in enumerate(counts):
        merge = max(scale - 8, 0)
        upper = 2 ** ((((offset + i) >> merge) + 1) * 2.0 ** -min(scale, 8))
        want[upper] = want.get(upper, 0) + n
    labels, got = one(prometheus, "e")
    assert (float(got["count"]), float(got["sum"])) == (total, 9.5)
    buckets = native_buckets(got)
    assert buckets[0] == (pytest.approx(1e-128), 2)
    found = [(pytest.approx(b, rel=1e-9), n) for b, n in sorted(want.items()) if n]
    assert buckets[1:] == found
    assert [(e.trace_id, e.value) for e in prometheus.exemplars("e")] == [(TRACE.hex(), 1.5)]
    assert not prometheus.complaints()


def test_a_series_that_ends_is_stale_at_once(writer, make_prometheus):
    prometheus = make_prometheus()
    mill = writer(prometheus.remote_write_url)
    now = time.time_ns() - 10**9
    req, out = request()
    number(out, "g", 1.0, now)
    histogram(out, "h", [1], [1, 1], 2, now)
    exponential(out, "e", 0, 0, [1], now, count=1)
    send(mill, req)
    assert prometheus.value("count({job='shop'})") == 6
    req, out = request()
    for name, kind in (("g", "gauge"), ("h", "histogram"), ("e", "exponential_histogram")):
        data = getattr(out.add(name=name, unit="s" if name == "h" else ""), kind)
        if name != "g":
            data.aggregation_temporality = CUMULATIVE
        p = point_of(data, now + 5 * 10**8, flags=1)
        if name == "h":
            p.explicit_bounds.extend([1])
            p.bucket_counts.extend([0, 0])
            p.sum = 0
    send(mill, req)
    assert prometheus.value("count({job='shop'})") is None
    assert not prometheus.complaints()


def test_a_dead_prometheus_misses_nothing(writer, make_prometheus, tmp_path):
    """It dies while samples come, our process is killed with them on disk; when both are back every
    sample is there once, at its time."""
    prometheus = make_prometheus()
    mill = writer(prometheus.remote_write_url, storage=str(tmp_path / "queue"))
    start = time.time_ns() // 10**6 * 10**6 - 10**11
    n = 0

    def write(count):
        nonlocal n
        for _ in range(count):
            req, out = request()
            number(out, "n", n, start + n * 10**8, kind="sum", monotonic=True)
            histogram(out, "h", [1], [n, n], n, start + n * 10**8)
            send(mill, req)
            n += 1

    write(20)
    wait_for("samples", lambda: prometheus.value("n_total") is not None, 30)
    prometheus.stop()
    write(40)
    mill.kill()
    mill.start()
    write(40)
    prometheus.start()

    def stored():
        data = prometheus.api("query", query="n_total[1h]")["result"]
        return [(round(t * 1000), float(v)) for t, v in data[0]["values"]] if data else []

    want = [((start + i * 10**8) // 10**6, i) for i in range(n)]
    wait_for("every sample", lambda: stored() == want, 60, 0.1)
    assert prometheus.value("count_over_time(h_seconds_count[1h])") == n
    assert stop(mill)[1:] == (0, 0)


def test_one_late_sample_takes_nothing_with_it(writer, make_prometheus):
    """Prometheus refuses a whole request for it: what else is in the request is written all the
    same, the late sample is counted."""
    prometheus = make_prometheus()
    mill = writer(prometheus.remote_write_url)
    now = time.time_ns()
    req, out = request()
    number(out, "s", 1.0, now)
    send(mill, req)
    req, out = request()
    for i in range(100):
        number(out, f"before{i}", float(i), now)
    number(out, "s", 2.0, now - 10**9)
    for i in range(100):
        number(out, f"behind{i}", float(i), now)
    said = send(mill, req)
    assert said.rejected_data_points > 0 and "out of order" in said.error_message
    assert prometheus.value("count({job='shop'})") == 201
    assert one(prometheus, "s")[1] == 1.0
    assert dropped(mill, "out_of_order") == 1
    assert mill.metric("otelcol_exporter_send_failed_metric_points") == 1
    assert mill.metric("otelcol_exporter_sent_metric_points") == 201


# ---- a next hop that answers as it is told ----


def numbers(n, now, names=1):
    """n points of each of some gauges, a series each."""
    req, out = request()
    for k in range(names):
        data = out.add(name=f"g{k}").gauge
        for i in range(n):
            p = data.data_points.add(time_unix_nano=now + i, as_int=i)
            p.attributes.append(otlp.string("i", str(i)))
    return req


def test_what_goes_over_the_wire(writer, hop):
    """Headers of remote write; labels sorted; the tenant; metadata when it is wanted."""
    h = hop()
    mill = writer(h.target, {"send_metadata": True, "namespace": "ns", "headers": {"X-Mine": "1"}})
    now = time.time_ns()
    req, out = request()
    number(out, "Calls", 1, now, "By", "sum", monotonic=True)
    histogram(out, "h", [1], [1, 0], 0.5, now)
    otlp.send_http(mill, req, path="/v1/metrics", tenant="t1")
    heads = h.metadata[0]
    assert h.paths == ["/api/v1/write"]
    assert heads["content-type"] == "application/x-protobuf"
    assert heads["content-encoding"] == "snappy"
    assert heads["x-prometheus-remote-write-version"] == "0.1.0"
    assert heads["user-agent"].startswith("spanmill/")
    assert (heads["x-scope-orgid"], heads["x-mine"]) == ("t1", "1")
    for ts in h.taken[0].timeseries:
        names = [label.name for label in ts.labels]
        assert names == sorted(set(names)) and "__name__" in names
        assert all(label.value for label in ts.labels)
    told = [(m.type, m.metric_family_name, m.help, m.unit) for m in h.taken[0].metadata]
    assert told == [
        (1, "ns_Calls_bytes_total", "what Calls is", "bytes"),
        (3, "ns_h_seconds", "", "seconds"),
    ]
    assert [labels["__name__"] for labels, _ in h.series()] == [
        "ns_Calls_bytes_total",
        "ns_h_seconds_count",
        "ns_h_seconds_sum",
        "ns_h_seconds_bucket",
        "ns_h_seconds_bucket",
    ]


@pytest.mark.parametrize(
    "options, name, labels",
    [
        ({}, "a_b_seconds_total", {"k_k"}),
        ({"add_metric_suffixes": False}, "a_b", {"k_k"}),
        ({"translation_strategy": "UnderscoreEscapingWithoutSuffixes"}, "a_b", {"k_k"}),
        ({"translation_strategy": "NoUTF8EscapingWithSuffixes"}, "a.b_seconds_total", {"k.k"}),
        ({"translation_strategy": "NoTranslation"}, "a.b", {"k.k"}),
        (
            {"resource_to_telemetry_conversion": {"enabled": True}, "disable_scope_info": True},
            "a_b_seconds_total",
            {"k_k", "host_name", "service_name", "service_instance_id"},
        ),
    ],
)
def test_names_and_labels_by_options(writer, hop, options, name, labels):
    h = hop()
    mill = writer(h.target, merged({"target_info": {"enabled": False}}, options))
    req, out = request(host__name="h1")
    p = number(out, "a.b", 1.5, time.time_ns(), "s", "sum", monotonic=True)
    p.attributes[0].key = "k.k"
    send(mill, req)
    ((found, ts),) = h.series()
    want = labels | {"__name__", "job", "instance"}
    if not options.get("disable_scope_info"):
        want |= {"otel_scope_name", "otel_scope_version"}
    assert found["__name__"] == name and set(found) == want
    assert [s.value for s in ts.samples] == [1.5]


def test_exemplars_keep_within_128_characters(writer, hop):
    """What was filtered off a point goes with its exemplar unless the labels would be too long."""
    h = hop()
    mill = writer(h.target)
    now = time.time_ns()
    req, out = request()
    p = number(out, "c", 1, now, "", "sum", monotonic=True)
    for i, text in enumerate(["é" * 64, "é" * 65, ""]):
        exemplar(p, float(i), now + i * 10**6)
        p.exemplars[-1].filtered_attributes.append(otlp.string("k", text))
    p.exemplars.add(as_int=7, time_unix_nano=now + 9 * 10**6)  # an integer, no ids
    p.exemplars.add(time_unix_nano=now)  # no value
    p.exemplars.add(as_double=math.nan, time_unix_nano=now)
    g = number(out, "g", 1, now)
    exemplar(g, 1.0, now)  # gauges show none
    send(mill, req)
    (_, ts), (_, gauge) = h.series()
    ids = {"trace_id": TRACE.hex(), "span_id": SPAN.hex()}
    assert [(prompb.labels_of(e), e.value) for e in ts.exemplars] == [
        ({**ids, "k": "é" * 64}, 0.0),
        (ids, 1.0),
        (ids, 2.0),
        ({}, 7.0),
    ]
    assert not gauge.exemplars


@pytest.mark.parametrize(
    "status, queue", [(429, True), (500, True), (503, False), (599, True)]
)
def test_retryable(writer, hop, status, queue):
    """Again, not before Retry-After, in order: what came later waits, with a queue or without."""

    def behave(request, headers, h):
        return (status, {"Retry-After": "1"}, b"later") if len(h.calls) == 1 else None

    h = hop(behave)
    mill = writer(h.target, {"sending_queue": {"enabled": queue}})
    now = time.time_ns()
    threads = []
    for i in range(5):
        req, out = request(instance="")
        number(out, "g", i, now + i * 10**9)
        threads.append(threading.Thread(target=send, args=(mill, req)))
        threads[-1].start()
        if i == 0:
            wait_for("the first call", lambda: h.calls, 30)
    for thread in threads:
        thread.join()
    assert h.calls[1][0] - h.calls[0][0] >= 0.98
    assert len(h.calls) == 6
    assert h.samples("g")[0][1] == 0
    assert sorted(v for _, v, _ in h.samples("g")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_permanent(writer, hop, status):
    """Not repeated, counted, told to the client; what comes later is written."""

    def behave(request, headers, h):
        return (status, {}, b"label value too long") if len(h.calls) == 1 else None

    h = hop(behave)
    mill = writer(h.target)
    said = send(mill, numbers(3, time.time_ns()))
    assert said.rejected_data_points > 0 and "label value too long" in said.error_message
    assert (dropped(mill, "refused"), dropped(mill, "out_of_order")) == (3, 0)
    assert send(mill, numbers(3, time.time_ns())).rejected_data_points == 0
    assert len(h.calls) == 2
    assert mill.metric("otelcol_exporter_send_failed_metric_points") == 3
    assert stop(mill) == (1, 1, 0)


def test_a_batch_of_many_points_is_several_requests(writer, hop):
    """Each within max_batch_size_bytes; one that fails is sent again and those before it are not;
    one that is refused loses its points alone."""
    answers = {2: (503, {}, b""), 4: (400, {}, b"no"), 6: (500, {}, b"")}

    def behave(request, headers, h):
        return answers.get(len(h.calls))

    h = hop(behave)
    limit = 50000
    mill = writer(h.target, {"max_batch_size_bytes": limit, "target_info": {"enabled": False}})
    said = send(mill, numbers(2000, time.time_ns(), names=2))
    sizes = [len(r.timeseries) for _, r in h.calls]
    assert sizes[1] == sizes[2] and sizes[5] == sizes[6]
    assert all(r.ByteSize() < limit + 200 for _, r in h.calls)
    found = [(labels["__name__"], s.value) for labels, ts in h.series() for s in ts.samples]
    every = [(f"g{k}", i) for k in range(2) for i in range(2000)]
    at = sum(sizes[:2])
    assert found == every[:at] + every[at + sizes[3] :]
    assert said.rejected_data_points == 1  # of two metrics; settled metric by metric
    assert dropped(mill, "refused") == sizes[3]
    assert mill.metric("otelcol_exporter_sent_metric_points") == 4000 - sizes[3]
    assert mill.metric("otelcol_exporter_send_failed_metric_points") == sizes[3]


def test_too_large_makes_requests_smaller(writer, hop):
    """413: also a single metric is divided; later batches come in requests of that size at once."""

    def behave(request, headers, h):
        return (413, {}, b"") if request.ByteSize() > 100000 else None

    h = hop(behave)
    mill = writer(h.target)
    assert send(mill, numbers(3000, time.time_ns())).rejected_data_points == 0
    assert sorted(v for _, v, _ in h.samples("g0")) == list(range(3000))
    n = len(h.calls)
    assert send(mill, numbers(3000, time.time_ns())).rejected_data_points == 0
    assert all(r.ByteSize() <= 100000 for _, r in h.calls[n:])


def test_what_remote_write_cannot_carry_is_counted(writer, hop):
    """Delta sums and histograms and what makes no sense; the rest of the batch is written."""
    h = hop()
    mill = writer(h.target)
    now = time.time_ns()
    req, out = request()
    number(out, "delta", 1, now, "", "sum", monotonic=True, temporality=DELTA)
    histogram(out, "dh", [1], [1, 1], 1, now, temporality=DELTA)
    number(out, "@#$", 1, now)
    histogram(out, "odd", [2, 1], [1, 1, 1], 1, now)
    exponential(out, "coarse", -5, 0, [1], now, count=1)
    exponential(out, "short", 0, 0, [1], now, count=3)
    number(out, "good", 1, now)
    said = send(mill, req)
    assert said.rejected_data_points == 6
    assert "delta: delta temporality" in said.error_message
    assert [labels["__name__"] for labels, _ in h.series()] == ["good"]
    want = {"delta": 2, "no_name": 1, "faulty": 2, "scale": 1}
    assert {reason: dropped(mill, reason) for reason in want} == want
    req, out = request()
    number(out, "delta", 1, now, "", "sum", monotonic=True, temporality=DELTA)
    assert send(mill, req).rejected_data_points == 1
    assert len(h.calls) == 1  # nothing to write, nothing sent
    assert "cannot carry" in mill.stderr()
    assert stop(mill) == (1, 7, 0)


def test_target_info_never_goes_back_in_time(writer, hop):
    """A receiver would refuse the request: what comes late is written without it."""
    h = hop()
    mill = writer(h.target)
    now = time.time_ns() // 10**6 * 10**6
    for at in (now, now - 10**9, now, now + 10**9):
        req, out = request(host__name="h1")
        number(out, "g", 1, at)
        number(out, "g2", 1, at - 10**7)
        send(mill, req)
    stamps = [t for _, _, t in h.samples("target_info")]
    assert stamps == [now // 10**6, now // 10**6 + 1000]


def test_a_killed_sender_writes_again_what_was_not_confirmed(writer, make_prometheus, tmp_path):
    """Killed in the middle of delivery: after it every sample is there, at its own time, and what
    was written twice does not take what is new with it."""
    prometheus = make_prometheus()
    mill = writer(prometheus.remote_write_url, storage=str(tmp_path / "queue"))
    start = time.time_ns() // 10**6 * 10**6 - 10**11
    n = 0
    for _ in range(4):
        for _ in range(50):
            req, out = request()
            for k in range(5):
                number(out, f"n{k}", n, start + n * 10**7)
            send(mill, req)
            n += 1
        mill.kill()
        mill.start()
    want = [((start + i * 10**7) // 10**6, i) for i in range(n)]

    def stored(k):
        data = prometheus.api("query", query=f"n{k}[1h]")["result"]
        return [(round(t * 1000), float(v)) for t, v in data[0]["values"]] if data else []

    for k in range(5):
        wait_for("every sample", lambda k=k: stored(k) == want, 60, 0.1)


def test_spans_become_metrics_in_prometheus_with_exemplars_that_open(
    make_mill, make_prometheus, tmp_path
):
    """otlp -> spanmetrics -> remote write: counts of what was sent, and every exemplar names a trace
    that the query finds."""
    prometheus = make_prometheus()

    def shape(ports):
        whole = all_in_one(ports, str(tmp_path / "blocks"))
        whole["connectors"] = {
            "spanmetrics": {"metrics_flush_interval": "200ms", "exemplars": {"enabled": True}}
        }
        whole["exporters"].update(
            config(ports, prometheus.remote_write_url)["exporters"],
        )
        lines = whole["service"]["pipelines"]
        lines["traces"]["exporters"].append("spanmetrics")
        lines["metrics"] = {"receivers": ["spanmetrics"], "exporters": ["prometheusremotewrite"]}
        return whole

    mill = make_mill(shape)
    sent = otlp.request(n_traces=20, n_spans=3)
    otlp.send_grpc(mill, sent)
    calls = "sum(traces_span_metrics_calls_total)"
    wait_for("the count", lambda: prometheus.value(calls) == 60, 60, 0.1)
    histogram_of = "traces_span_metrics_duration_milliseconds"
    assert prometheus.value(f"sum({histogram_of}_count)") == 60
    shown = wait_for("an exemplar", lambda: prometheus.exemplars(f"{histogram_of}_bucket"), 60, 0.1)
    traces = {span.trace_id.hex() for span in otlp.spans_of(sent)}
    for exemplar_shown in shown:
        assert exemplar_shown.trace_id in traces
        found = tempo.whole(mill, bytes.fromhex(exemplar_shown.trace_id))
        assert exemplar_shown.span_id in {s.span_id.hex() for s in otlp.spans_of(found)}
    assert not prometheus.complaints()
    mill.stop()  # while Prometheus takes the last flush
