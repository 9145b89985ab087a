"""Requests of logs and metrics with every field that the protocol has."""

import math
import time

from opentelemetry.proto.logs.v1 import logs_pb2 as logs
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics

import otlp

NOW = time.time_ns()
DELTA, CUMULATIVE = 1, 2


def envelope(signal, name="shop"):
    """A request with one resource and scope; returns it and the list that items are added to."""
    req = otlp.messages_of(signal)[0]()
    res = getattr(req, f"resource_{signal}").add(schema_url="https://example.com/resource")
    res.resource.attributes.extend(otlp.every_kind_of_value())
    res.resource.attributes.append(otlp.string("service.name", name))
    res.resource.dropped_attributes_count = 3
    scope = getattr(res, f"scope_{signal}").add(schema_url="https://example.com/scope")
    scope.scope.name, scope.scope.version = "lib", "1.2"
    scope.scope.attributes.append(otlp.string("k", "v"))
    scope.scope.dropped_attributes_count = 1
    return req, scope.log_records if signal == "logs" else scope.metrics


def log_requests(n=1):
    req, records = envelope("logs")
    for i in range(n):
        r = records.add(
            time_unix_nano=NOW + i,
            observed_time_unix_nano=NOW + i + 5,
            severity_number=9 + i % 4,
            severity_text="INFO",
            dropped_attributes_count=2,
            flags=1,
            trace_id=otlp.new_id(16),
            span_id=otlp.new_id(8),
            event_name="something.happened",
        )
        r.body.string_value = f"line {i}"
        r.attributes.append(otlp.string("n", str(i)))
    records[0].attributes.extend(otlp.every_kind_of_value())
    bare = records.add()  # a record may be nearly empty
    bare.body.kvlist_value.values.add(key="a").value.int_value = 0
    return req


def exemplar(of, whole):
    e = of.exemplars.add(time_unix_nano=NOW, span_id=otlp.new_id(8), trace_id=otlp.new_id(16))
    e.filtered_attributes.append(otlp.string("f", "x"))
    if whole:
        e.as_int = 0
    else:
        e.as_double = -0.0


def number_points(of):
    """Zero is a value: of each kind one that is zero."""
    for value in (0.0, 1.5, -0.0, math.inf, math.nan, 5e-324):
        p = of.data_points.add(start_time_unix_nano=NOW - 1, time_unix_nano=NOW, flags=1)
        p.as_double = value
        p.attributes.append(otlp.string("a", "b"))
        exemplar(p, False)
    for value in (0, -(2**63), 2**63 - 1):
        p = of.data_points.add(time_unix_nano=NOW)
        p.as_int = value
        exemplar(p, True)
    of.data_points.add(time_unix_nano=NOW, flags=1)  # no recorded value


def metric_requests():
    """14 metrics more or less: 9 kinds of points; returns the request and its data points."""
    req, out = envelope("metrics")
    m = out.add(name="g", description="a gauge", unit="By")
    m.metadata.append(otlp.string("type", "x"))
    number_points(m.gauge)
    m = out.add(name="s", unit="1")
    number_points(m.sum)
    m.sum.aggregation_temporality = CUMULATIVE
    m.sum.is_monotonic = True
    m = out.add(name="h")
    m.histogram.aggregation_temporality = DELTA
    p = m.histogram.data_points.add(start_time_unix_nano=NOW - 1, time_unix_nano=NOW, count=6)
    p.sum, p.min, p.max = 0.0, 0.0, 10.5
    p.bucket_counts.extend([0, 2, 2**60, 4])
    p.explicit_bounds.extend([0.0, 0.5, 1e300])
    p.attributes.append(otlp.string("a", "b"))
    exemplar(p, False)
    m.histogram.data_points.add(time_unix_nano=NOW, count=1, flags=1)
    m = out.add(name="e")
    m.exponential_histogram.aggregation_temporality = DELTA
    p = m.exponential_histogram.data_points.add(time_unix_nano=NOW, count=7, zero_count=2, scale=-3)
    p.positive.offset = -12
    p.positive.bucket_counts.extend([0, 1, 300, 2**63])
    p.negative.offset = 2**31 - 1
    p.negative.bucket_counts.extend([1])
    p.sum, p.min, p.max, p.zero_threshold = -1.0, 0.0, 0.0, 1e-9
    exemplar(p, True)
    m = out.add(name="q")
    p = m.summary.data_points.add(time_unix_nano=NOW, count=3, sum=1.25)
    for q in (0.0, 0.5, 1.0):
        p.quantile_values.add(quantile=q, value=2 * q)
    out.add(name="without points").gauge.SetInParent()
    return req


def n_points(req):
    n = 0
    for res in req.resource_metrics:
        for scope in res.scope_metrics:
            for m in scope.metrics:
                n += len(getattr(m, m.WhichOneof("data")).data_points)
    return n


def n_records(req):
    return sum(len(s.log_records) for r in req.resource_logs for s in r.scope_logs)
