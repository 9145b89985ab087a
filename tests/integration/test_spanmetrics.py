"""The spanmetrics connector with the real program: what it says is what an exact count of the accepted
spans says, whatever is sampled away, refused, sent again or reloaded."""

import collections
import random
import threading
import time

import grpc
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

import otlp
from loadgen import Gen
from mill import forwarder, free_port, wait_for
from nexthop import refuse
from test_reload import hup

KINDS = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
CODES = ["UNSET", "OK", "ERROR"]
CALLS = "traces.span.metrics.calls"


def config(ports, traces_to, metrics_to, connector=None, sampler=None):
    """otlp -> spanmetrics -> metrics_to, and otlp -> (sampler) -> traces_to."""
    out = forwarder(ports, traces_to)
    out["connectors"] = {"spanmetrics": {"metrics_flush_interval": "200ms", **(connector or {})}}
    out["exporters"]["otlp/metrics"] = {
        "endpoint": metrics_to,
        "tls": {"insecure": True},
        "sending_queue": {"enabled": False},
        "retry_on_failure": {"enabled": False},
    }
    out["processors"] = {"probabilistic_sampler": {"sampling_percentage": sampler or 100}}
    out["service"]["pipelines"] = {
        "traces/count": {"receivers": ["otlp"], "exporters": ["spanmetrics"]},
        "traces/send": {
            "receivers": ["otlp"],
            "processors": ["probabilistic_sampler"],
            "exporters": ["otlp"],
        },
        "metrics": {"receivers": ["spanmetrics"], "exporters": ["otlp/metrics"]},
    }
    return out


class Count:
    """A straightforward count of spans, by service, name, kind and status."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.calls = collections.Counter()
        self.sum_ns = collections.Counter()

    def make(self, n):
        service = f"service-{self.random.randrange(3)}"
        request = otlp.request(n_traces=n, service_name=service)
        for span in otlp.spans_of(request):
            span.name = f"op {self.random.randrange(20)}"
            span.kind = self.random.randrange(6)
            span.status.code = self.random.randrange(3)
            span.end_time_unix_nano = span.start_time_unix_nano + self.random.randrange(10**10)
        return request

    def add(self, request):
        for rs in request.resource_spans:
            service = rs.resource.attributes[0].value.string_value
            for ss in rs.scope_spans:
                for span in ss.spans:
                    key = (
                        service,
                        span.name,
                        "SPAN_KIND_" + KINDS[span.kind],
                        "STATUS_CODE_" + CODES[span.status.code],
                    )
                    self.calls[key] += 1
                    self.sum_ns[key] += span.end_time_unix_nano - span.start_time_unix_nano

    def merge(self, other):
        self.calls.update(other.calls)
        self.sum_ns.update(other.sum_ns)


def points(message, name, data):
    for rm in message.resource_metrics:
        for sm in rm.scope_metrics:
            for metric in sm.metrics:
                if metric.name == name:
                    yield from getattr(metric, data).data_points


def labels(point):
    return tuple(a.value.string_value for a in point.attributes)


def newest(message, name, data):
    """The newest point of each series."""
    out = {}
    for p in points(message, name, data):
        key = labels(p)
        if key not in out or p.time_unix_nano > out[key].time_unix_nano:
            out[key] = p
    return out


def assert_counted(hop, count):
    """The newest totals are the count's, to the last span."""
    message = hop.joined("metrics")
    calls = newest(message, CALLS, "sum")
    assert {k: p.as_int for k, p in calls.items()} == dict(count.calls)
    durations = newest(message, "traces.span.metrics.duration", "histogram")
    assert {k: p.count for k, p in durations.items()} == dict(count.calls)
    for key, point in durations.items():
        assert sum(point.bucket_counts) == point.count
        assert point.sum == pytest.approx(count.sum_ns[key] / 1e6, rel=1e-9)


def send_many(mill, count, n_requests):
    """From one client that sends again what was refused; counts each request once."""
    client = otlp.Grpc(mill.ports["grpc"])
    for _ in range(n_requests):
        request = count.make(count.random.randrange(1, 60))
        for _ in range(200):
            try:
                client.call(request, timeout=30)
                break
            except grpc.RpcError as e:
                assert e.code() in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                ), e
        else:
            raise AssertionError("refused 200 times")
        count.add(request)
    client.close()


def send_from_threads(mill, n_threads, n_requests):
    counts = [Count(seed) for seed in range(n_threads)]
    threads = [
        threading.Thread(target=send_many, args=(mill, count, n_requests)) for count in counts
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for count in counts[1:]:
        counts[0].merge(count)
    return counts[0]


def test_exact_whatever_is_sampled_refused_and_reloaded(make_mill, next_hop):
    """1 % is kept, a third of what is sent on is refused and sent again by its client: every accepted
    span is counted once. A reload of another component leaves the series as they are."""
    turn = iter(range(10**9))

    def third(request, context, hop):
        if next(turn) % 3 == 0:
            refuse(context, grpc.StatusCode.UNAVAILABLE, "not now")
        return otlp.messages_of("traces")[1]()

    traces, metrics = next_hop(third), next_hop()

    def make(ports):
        out = config(ports, traces.target, metrics.target, sampler=50)
        out["exporters"]["otlp"].update(
            sending_queue={"enabled": False}, retry_on_failure={"enabled": False}
        )
        return out

    mill = make_mill(make)
    count = send_from_threads(mill, 4, 15)
    mill.config["processors"]["probabilistic_sampler"]["sampling_percentage"] = 1
    hup(mill, mill.config, timeout=60)
    count.merge(send_from_threads(mill, 2, 10))
    wait_for("a flush", lambda: metrics.joined("metrics").resource_metrics, timeout=30)
    mill.stop(timeout=60)
    assert traces.span_counts(), "nothing came through the sampler: the test says nothing"
    assert_counted(metrics, count)
    starts = {}
    for p in points(metrics.joined("metrics"), CALLS, "sum"):
        assert starts.setdefault(labels(p), p.start_time_unix_nano) == p.start_time_unix_nano


def test_a_changed_connector_starts_anew(make_mill, next_hop):
    """Its predecessor's last totals are sent, then new ones with new start times."""
    traces, metrics = next_hop(), next_hop()
    mill = make_mill(lambda ports: config(ports, traces.target, metrics.target))
    before = send_from_threads(mill, 1, 5)
    mill.config["connectors"]["spanmetrics"]["metrics_flush_interval"] = "300ms"
    hup(mill, mill.config, timeout=60)
    assert_counted(metrics, before)
    n = len(metrics.taken_of("metrics"))
    after = send_from_threads(mill, 1, 3)
    mill.stop(timeout=60)
    old = newest(metrics.joined("metrics"), CALLS, "sum")
    del metrics.taken_of("metrics")[:n]
    assert_counted(metrics, after)
    new = newest(metrics.joined("metrics"), CALLS, "sum")
    assert new and all(p.start_time_unix_nano >= old[k].start_time_unix_nano for k, p in new.items())


def test_deltas_survive_a_next_hop_that_refuses(make_mill, next_hop):
    """They add up to the count, although it refuses for the first flushes."""
    calls = iter(range(10**9))

    def late(request, context, hop):
        if next(calls) < 4:
            refuse(context, grpc.StatusCode.UNAVAILABLE, "not yet")
        return otlp.messages_of("metrics")[1]()

    traces, metrics = next_hop(), next_hop(late)
    mill = make_mill(
        lambda ports: config(
            ports,
            traces.target,
            metrics.target,
            {"aggregation_temporality": "AGGREGATION_TEMPORALITY_DELTA"},
        )
    )
    count = send_from_threads(mill, 2, 5)
    wait_for("what was refused", lambda: metrics.taken_of("metrics"), timeout=60)
    count.merge(send_from_threads(mill, 1, 5))
    wait_for(
        "all deltas",
        lambda: sum(p.as_int for p in points(metrics.joined("metrics"), CALLS, "sum"))
        == sum(count.calls.values()),
        timeout=60,
    )
    assert mill.metric("spanmill_spanmetrics_refused_points") > 0
    mill.stop(timeout=60)
    got, sums = collections.Counter(), collections.Counter()
    for p in points(metrics.joined("metrics"), CALLS, "sum"):
        assert p.start_time_unix_nano < p.time_unix_nano
        got[labels(p)] += p.as_int
    for p in points(metrics.joined("metrics"), "traces.span.metrics.duration", "histogram"):
        sums[labels(p)] += p.sum
    assert got == count.calls
    for key, value in sums.items():
        assert value == pytest.approx(count.sum_ns[key] / 1e6, rel=1e-9)


def test_the_generators_ledger(make_mill, next_hop, tmp_path):
    """What gen says was acknowledged, the last flush at SIGTERM says too, also through a file."""
    traces, unused = next_hop(), next_hop()

    def make(ports):
        out = config(ports, traces.target, unused.target)
        out["connectors"]["spanmetrics"]["metrics_flush_interval"] = "1h"
        out["exporters"]["file"] = {"path": str(tmp_path / "metrics.json")}
        out["service"]["pipelines"]["metrics"]["exporters"] = ["file"]
        return out

    mill = make_mill(make)
    gen = Gen(tmp_path, mill.ports["grpc"], "a", rate=4000, deadline="60s").start()
    wait_for("load", lambda: len(traces.span_counts()) > 3000, timeout=60)
    gen.finish()
    acked = gen.acked_spans()
    mill.stop(timeout=60)
    message = otlp.messages_of("metrics")[0]()
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    for line in lines:
        one = otlp.messages_of("metrics")[0]()
        otlp.from_json(line, one)
        message.MergeFrom(one)
    assert lines
    assert sum(p.as_int for p in points(message, CALLS, "sum")) == len(acked)


def test_the_last_flush_does_not_wait_for_a_hop_that_hangs(make_mill, next_hop):
    """Spans under way to a hop that never answers are not counted; what was counted before goes on."""
    hang = threading.Event()

    def behave(request, context, hop):
        if hang.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return otlp.messages_of("traces")[1]()

    traces, metrics = next_hop(behave), next_hop()

    def make(ports):
        out = config(ports, traces.target, metrics.target, {"metrics_flush_interval": "1h"})
        out["service"]["drain_timeout"] = "3s"
        out["receivers"]["otlp"]["ack_timeout"] = "60s"
        return out

    mill = make_mill(make)
    count = send_from_threads(mill, 1, 3)
    wait_for(
        "all counted",
        lambda: mill.metric("spans_unknown_probability_total") == sum(count.calls.values()),
        timeout=60,
    )
    hang.set()
    client = otlp.Grpc(mill.ports["grpc"])
    future = threading.Thread(
        target=lambda: pytest.raises(grpc.RpcError, client.call, otlp.request(), timeout=60)
    )
    future.start()
    wait_for("the request under way", lambda: len(traces.calls) > 3, timeout=60)
    mill.stop(expect=0, timeout=60)
    future.join()
    client.close()
    assert_counted(metrics, count)


def test_alone_it_takes_no_duty(make_mill, next_hop):
    """Spans that go nowhere else are dropped, counted so, and their client is told that all is well."""
    hop = next_hop()

    def make(ports):
        out = config(ports, hop.target, hop.target)
        del out["service"]["pipelines"]["traces/send"]
        return out

    mill = make_mill(make)
    count = send_from_threads(mill, 1, 2)
    n = sum(count.calls.values())
    assert mill.stop(timeout=60) == {"accepted": n, "delivered": 0, "dropped": n, "held": 0}
    assert_counted(hop, count)


def test_the_page_of_defaults(make_mill, next_hop):
    """A Collector's YAML: names and labels that its dashboards ask for, by the prometheus exporter."""
    hop, port = next_hop(), free_port()

    def make(ports):
        out = config(ports, hop.target, hop.target)
        out["exporters"]["prometheus"] = {"endpoint": f"127.0.0.1:{port}"}
        out["service"]["pipelines"]["metrics"]["exporters"] = ["prometheus"]
        return out

    mill = make_mill(make)
    count = send_from_threads(mill, 1, 3)
    want = sum(count.calls.values())

    def page():
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        return [s for family in text_string_to_metric_families(text) for s in family.samples]

    def of(name):
        return [s for s in page() if s.name == name]

    wait_for(
        "all spans on the page",
        lambda: sum(s.value for s in of("traces_span_metrics_calls_total")) == want,
        timeout=60,
    )
    for s in of("traces_span_metrics_calls_total"):
        key = [s.labels[k] for k in ("service_name", "span_name", "span_kind", "status_code")]
        assert s.value == count.calls[tuple(key)]
    counts = of("traces_span_metrics_duration_milliseconds_count")
    assert sum(s.value for s in counts) == want
    bounds = {s.labels["le"] for s in of("traces_span_metrics_duration_milliseconds_bucket")}
    assert {float(b) for b in bounds} == {
        *(2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10000, 15000),
        float("inf"),
    }


def test_a_million_sets_of_labels(make_mill, next_hop):
    """Ids in span names: memory stays, other traffic passes, every span is in the totals."""
    hop, metrics = next_hop(), next_hop()

    def make(ports):
        out = config(ports, hop.target, metrics.target, {"metrics_flush_interval": "1h"})
        out["processors"]["memory_limiter"] = {"check_interval": "1s", "limit_mib": 64}
        out["exporters"]["nop"] = None
        send = out["service"]["pipelines"]["traces/send"]
        send["exporters"], send["processors"] = ["nop"], ["memory_limiter"]
        return out

    mill = make_mill(make)
    n, rounds = 10_000, 100
    body = otlp.request(n_traces=n, attributes=0)
    for i, span in enumerate(otlp.spans_of(body)):
        span.name = f"GET /round-000/{i:05d}"
    body = body.SerializeToString()
    client = otlp.Grpc(mill.ports["grpc"])
    for i in range(rounds):
        for _ in range(200):
            try:
                client.call(body.replace(b"round-000", b"round-%03d" % i), timeout=60)
                break
            except grpc.RpcError as e:
                assert e.code() in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                ), e
                time.sleep(0.1)
        else:
            raise AssertionError("refused 200 times")
    client.close()
    wait_for(
        "all counted",
        lambda: mill.metric("spanmill_spanmetrics_overflowed_spans")
        + mill.metric("spanmill_spanmetrics_series", family="spans")
        == n * rounds,
        timeout=60,
    )
    assert mill.metric("spanmill_spanmetrics_series_bytes") <= 16 << 20
    assert mill.proc_status("VmHWM") < 160 << 20
    mill.stop(timeout=60)
    total, overflow = 0, 0
    for p in points(metrics.joined("metrics"), CALLS, "sum"):
        total += p.as_int
        overflow += p.as_int if p.attributes[0].key == "otel.metric.overflow" else 0
    assert total == n * rounds
    assert overflow > n * rounds / 2
