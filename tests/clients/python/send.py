"""send.py grpc|http ENDPOINT COPY - one trace by the unmodified OpenTelemetry Python SDK to
ENDPOINT, and the same spans by a second exporter to COPY (OTLP/gRPC, host:port), which shows what
was sent. Prints the trace id."""

import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

EVERY = {
    "s": "text",
    "b": True,
    "i": -5,
    "big": 2**62,
    "d": 0.25,
    "ss": ["a", "b"],
    "bs": [True, False],
    "is": [1, 2],
    "ds": [0.5, 1.5],
    "empty": "",
}


def exporter(kind, endpoint):
    if kind == "grpc":
        return GrpcExporter(endpoint=endpoint, insecure=True, timeout=10)
    return HttpExporter(endpoint=f"http://{endpoint}/v1/traces", timeout=10)


def main():
    kind, endpoint, copy = sys.argv[1:4]
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": "py-shop", **EVERY}, schema_url="https://x.test/res"
        ),
        span_limits=SpanLimits(max_span_attributes=12, max_events=2, max_links=1),
    )
    provider.add_span_processor(BatchSpanProcessor(exporter(kind, endpoint)))
    provider.add_span_processor(BatchSpanProcessor(exporter("grpc", copy)))
    tracer = provider.get_tracer(
        "py-lib", "9.9", schema_url="https://x.test/scope", attributes={"scope.attr": "yes"}
    )
    remote = SpanContext(
        0x1234567890ABCDEF1234567890ABCDEF,
        0x1234567890ABCDEF,
        True,
        TraceFlags(1),
        TraceState([("vendor", "val")]),
    )
    other = SpanContext(0x22, 0x33, False, TraceFlags(1))
    with tracer.start_as_current_span(
        "root", kind=SpanKind.SERVER, attributes=EVERY, links=[Link(remote, {"l": 1}), Link(other)]
    ) as root:
        for i in range(5):
            root.set_attribute(f"more.{i}", i)
        for i in range(3):
            root.add_event(f"event {i}", EVERY)
        for span_kind in SpanKind:
            with tracer.start_as_current_span(f"child {span_kind.name}", kind=span_kind) as child:
                child.set_status(Status(StatusCode.OK))
        try:
            with tracer.start_as_current_span("fails"):
                raise ValueError("went wrong")
        except ValueError:
            pass
        root.set_status(Status(StatusCode.ERROR, "bad thing"))
    context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    with tracer.start_as_current_span("under a remote parent", context=context):
        pass
    ok = provider.force_flush(10000)
    provider.shutdown()
    print(f"{root.get_span_context().trace_id:032x}", f"{remote.trace_id:032x}")
    return 0 if ok else 1


sys.exit(main())
