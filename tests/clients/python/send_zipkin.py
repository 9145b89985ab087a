"""send_zipkin.py json|proto URL - one trace by the unmodified OpenTelemetry Zipkin exporters. Prints
each span as one line of JSON, as the SDK knows it."""

import json
import sys

from opentelemetry.exporter.zipkin.json import ZipkinExporter as JsonExporter
from opentelemetry.exporter.zipkin.proto.http import ZipkinExporter as ProtoExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode


def show(span):
    context = span.get_span_context()
    print(
        json.dumps(
            {
                "trace_id": f"{context.trace_id:032x}",
                "span_id": f"{context.span_id:016x}",
                "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
                "name": span.name,
                "kind": span.kind.name,
                "start_us": span.start_time // 1000,
                "end_us": span.end_time // 1000,
                "status": [span.status.status_code.value, span.status.description or ""],
                "attributes": {k: str(v) for k, v in span.attributes.items()},
                "events": [[e.name, e.timestamp // 1000] for e in span.events],
            }
        )
    )


def main():
    form, url = sys.argv[1:3]
    exporter = (JsonExporter if form == "json" else ProtoExporter)(endpoint=url, timeout=10)
    provider = TracerProvider(resource=Resource.create({"service.name": "py-shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("py-lib", "9.9")
    children = []
    with tracer.start_as_current_span("root", kind=SpanKind.SERVER) as root:
        root.set_attribute("http.route", "/cart")
        root.add_event("half way", {"n": 1})
        root.add_event("plain")
        for kind in (SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.INTERNAL):
            with tracer.start_as_current_span(f"child {kind.name}", kind=kind) as child:
                child.set_attribute("text", "é|{}")
                children.append(child)
        with tracer.start_as_current_span("bad") as bad:
            bad.set_status(Status(StatusCode.ERROR, "no such table"))
        with tracer.start_as_current_span("good") as good:
            good.set_status(Status(StatusCode.OK))
    for span in (*children, bad, good, root):
        show(span)
    provider.shutdown()


main()
