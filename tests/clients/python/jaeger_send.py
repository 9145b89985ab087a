"""jaeger_send.py HOST PORT N - N traces of three spans by the unmodified jaeger-client (Thrift
compact over UDP). Prints a line of JSON per span: what was asked of the client."""

import json
import logging
import sys
import time

from jaeger_client import Config
from opentracing import child_of, follows_from

TAGS = {"s": "text", "b": True, "i": -5, "big": 2**62, "d": 0.25, "empty": "", "u": "Grüße €"}


def hexa(n, digits):
    return format(n, f"0{digits}x")


def describe(span, parent, **more):
    c = span.context
    return {"trace": hexa(c.trace_id, 32), "id": hexa(c.span_id, 16), "name": span.operation_name,
            "parent": parent and hexa(parent.context.span_id, 16), **more}


def one_trace(tracer, i):
    root = tracer.start_span(f"root {i}", tags={**TAGS, "span.kind": "server", "number": i})
    root.log_kv({"event": "half way", "percent": 50})
    child = tracer.start_span("child", references=child_of(root.context))
    child.set_tag("error", True)
    after = tracer.start_span("after", references=follows_from(root.context))
    for span in (after, child, root):
        span.finish()
    return [
        describe(root, None, kind=2, tags={**TAGS, "number": i}, event="half way"),
        describe(child, root, error=True),
        describe(after, root, link=hexa(root.context.span_id, 16)),
    ]


def main():
    host, port, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    logging.basicConfig(level=logging.ERROR)
    config = Config(
        config={
            "sampler": {"type": "const", "param": 1},
            "local_agent": {"reporting_host": host, "reporting_port": port},
            "logging": False,
            "tags": {"team": "shop"},
            "reporter_flush_interval": 0.05,
            "generate_128bit_trace_id": True,
        },
        service_name="py-jaeger",
        validate=True,
    )
    tracer = config.initialize_tracer()
    for i in range(n):
        for span in one_trace(tracer, i):
            print(json.dumps(span))
    closed = tracer.close()  # a future: what is queued is sent
    deadline = time.monotonic() + 20
    while not closed.done() and time.monotonic() < deadline:
        time.sleep(0.01)


main()
