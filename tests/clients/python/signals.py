"""signals.py grpc|http ENDPOINT COPY - logs and metrics by the unmodified OpenTelemetry Python SDK to
ENDPOINT, and the same by a second exporter to COPY (OTLP/gRPC, host:port), which shows what was
sent."""

import logging
import sys

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcMetrics,
)
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
    OTLPMetricExporter as HttpMetrics,
)
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

RESOURCE = Resource.create({"service.name": "py-shop", "zone": ["a", "b"], "n": 5})


class Both(MetricExporter):
    """What one reader collects, to two exporters."""

    def __init__(self, *exporters):
        super().__init__()
        self.exporters = exporters

    def export(self, metrics_data, timeout_millis=10000, **keys):
        return [e.export(metrics_data, timeout_millis, **keys) for e in self.exporters][0]

    def force_flush(self, timeout_millis=10000):
        return True

    def shutdown(self, timeout_millis=10000, **keys):
        for e in self.exporters:
            e.shutdown()


def logs(kind, endpoint, copy):
    provider = LoggerProvider(resource=RESOURCE)
    first = (
        GrpcLogs(endpoint=endpoint, insecure=True)
        if kind == "grpc"
        else HttpLogs(endpoint=f"http://{endpoint}/v1/logs")
    )
    provider.add_log_record_processor(BatchLogRecordProcessor(first))
    provider.add_log_record_processor(
        BatchLogRecordProcessor(GrpcLogs(endpoint=copy, insecure=True))
    )
    log = logging.getLogger("shop")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(LoggingHandler(logger_provider=provider))
    tracer = TracerProvider().get_tracer("t")
    with tracer.start_as_current_span("a span that the records name"):
        log.info("order %d taken", 7, extra={"order": 7, "items": ["x", "y"], "total": 1.5})
        log.warning("zażółć ☃")
        try:
            raise ValueError("went wrong")
        except ValueError:
            log.exception("failed")
    log.debug("outside of a span")
    ok = provider.force_flush(10000)
    provider.shutdown()
    return ok


def metrics(kind, endpoint, copy):
    first = (
        GrpcMetrics(endpoint=endpoint, insecure=True)
        if kind == "grpc"
        else HttpMetrics(endpoint=f"http://{endpoint}/v1/metrics")
    )
    reader = PeriodicExportingMetricReader(
        Both(first, GrpcMetrics(endpoint=copy, insecure=True)), export_interval_millis=3600000
    )
    provider = MeterProvider(
        resource=RESOURCE,
        metric_readers=[reader],
        views=[
            View(
                instrument_name="exp",
                instrument_type=Histogram,
                aggregation=ExponentialBucketHistogramAggregation(),
            )
        ],
    )
    meter = provider.get_meter("py-lib", "9.9", schema_url="https://x.test/scope")
    meter.create_counter("orders", "1", "taken").add(5, {"kind": "a"})
    meter.create_up_down_counter("open").add(-0.5)
    meter.create_observable_gauge("heat", [lambda o: [Observation(0), Observation(-1.25, {"r": 1})]])
    for name in ("plain", "exp"):
        h = meter.create_histogram(name, "ms")
        for v in (0, 0.1, 3, 700.5):
            h.record(v, {"route": "/"})
    ok = provider.force_flush(10000)
    provider.shutdown()
    return ok


def main():
    kind, endpoint, copy = sys.argv[1:4]
    return 0 if logs(kind, endpoint, copy) and metrics(kind, endpoint, copy) else 1


sys.exit(main())
