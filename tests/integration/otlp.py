"""OTLP requests: making them, sending them by gRPC and HTTP, and comparing what came back."""

import base64
import difflib
import gzip
import json
import math
import random
import time

import grpc
import requests
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.common.v1 import common_pb2 as common
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

SIGNALS = {
    "traces": ("trace", "Trace", service),
    "metrics": ("metrics", "Metrics", metrics_service),
    "logs": ("logs", "Logs", logs_service),
}
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTOBUF = "application/x-protobuf"
random_source = random.SystemRandom()


def export_path(signal):
    package, name, _ = SIGNALS[signal]
    return f"/opentelemetry.proto.collector.{package}.v1.{name}Service/Export"


def messages_of(signal):
    """The classes of a signal's request and response."""
    _, name, module = SIGNALS[signal]
    return (
        getattr(module, f"Export{name}ServiceRequest"),
        getattr(module, f"Export{name}ServiceResponse"),
    )


def new_id(n):
    return random_source.getrandbits(8 * n).to_bytes(n, "big") or new_id(n)


def string(key, value):
    return common.KeyValue(key=key, value=common.AnyValue(string_value=value))


def request(n_traces=1, n_spans=1, service_name="shop", attributes=3, size=20):
    """A plain request with fresh ids; spans of a trace form a chain."""
    req = service.ExportTraceServiceRequest()
    rs = req.resource_spans.add()
    rs.resource.attributes.append(string("service.name", service_name))
    ss = rs.scope_spans.add()
    ss.scope.name = "load"
    now = time.time_ns()
    for _ in range(n_traces):
        trace_id, parent = new_id(16), b""
        for i in range(n_spans):
            sp = ss.spans.add(
                trace_id=trace_id,
                span_id=new_id(8),
                parent_span_id=parent,
                name=f"op {i}",
                kind=2,
                start_time_unix_nano=now,
                end_time_unix_nano=now + 1_000_000,
            )
            for a in range(attributes):
                sp.attributes.append(string(f"key.{a}", "v" * size))
            parent = sp.span_id
    return req


def every_kind_of_value():
    """Attributes of every type of AnyValue, edge values among them."""
    v = common.AnyValue
    values = {
        "str": v(string_value="text"),
        "str.empty": v(string_value=""),
        "str.utf8": v(string_value="zażółć \u2603 \U0001f600"),
        "bool.true": v(bool_value=True),
        "bool.false": v(bool_value=False),
        "int": v(int_value=42),
        "int.zero": v(int_value=0),
        "int.min": v(int_value=-(2**63)),
        "int.max": v(int_value=2**63 - 1),
        "double": v(double_value=1.5),
        "double.zero": v(double_value=0.0),
        "double.minus_zero": v(double_value=-0.0),
        "double.nan": v(double_value=math.nan),
        "double.inf": v(double_value=-math.inf),
        "double.tiny": v(double_value=5e-324),
        "bytes": v(bytes_value=bytes(range(256))),
        "bytes.empty": v(bytes_value=b""),
        "none": v(),
    }
    mixed = common.ArrayValue(
        values=[
            v(string_value="a"),
            v(int_value=1),
            v(bool_value=False),
            v(),
            v(array_value=common.ArrayValue(values=[v(double_value=2.5)])),
        ]
    )
    values["array"] = v(array_value=mixed)
    values["array.empty"] = v(array_value=common.ArrayValue())
    inner = common.KeyValueList(
        values=[string("x", "y"), common.KeyValue(key="n", value=v(int_value=7))]
    )
    values["map"] = v(
        kvlist_value=common.KeyValueList(
            values=[common.KeyValue(key="in", value=v(kvlist_value=inner))]
        )
    )
    values["map.empty"] = v(kvlist_value=common.KeyValueList())
    return [common.KeyValue(key=k, value=val) for k, val in values.items()]


def kitchen_sink():
    """One request in which every field of the trace messages is set."""
    req = service.ExportTraceServiceRequest()
    trace_id = new_id(16)
    for r in range(2):
        rs = req.resource_spans.add(schema_url=f"https://example.test/resource/{r}")
        rs.resource.attributes.append(string("service.name", f"svc-{r}"))
        rs.resource.attributes.extend(every_kind_of_value())
        rs.resource.dropped_attributes_count = 3
        for s in range(2):
            ss = rs.scope_spans.add(schema_url=f"https://example.test/scope/{s}")
            ss.scope.name, ss.scope.version = f"lib-{s}", "1.2.3"
            ss.scope.attributes.extend(every_kind_of_value())
            ss.scope.dropped_attributes_count = 4
            for kind in range(6):
                ss.spans.append(full_span(trace_id, kind))
    return req


def full_span(trace_id, kind):
    now = time.time_ns()
    sp = trace.Span(
        trace_id=trace_id,
        span_id=new_id(8),
        parent_span_id=new_id(8),
        trace_state="ot=th:8,vendor=x",
        name=f"name {kind}",
        kind=kind,
        start_time_unix_nano=now,
        end_time_unix_nano=now + 5,
        attributes=every_kind_of_value(),
        dropped_attributes_count=1,
        dropped_events_count=2,
        dropped_links_count=2**32 - 1,
        flags=0x301,
    )
    sp.events.add(
        time_unix_nano=now + 1,
        name="event",
        attributes=every_kind_of_value(),
        dropped_attributes_count=5,
    )
    sp.events.add(time_unix_nano=now + 2)
    sp.links.add(
        trace_id=new_id(16),
        span_id=new_id(8),
        trace_state="a=b",
        attributes=every_kind_of_value(),
        dropped_attributes_count=6,
        flags=0x100,
    )
    sp.status.code, sp.status.message = kind % 3, "" if kind % 2 else "why"
    return sp


def spans_of(message):
    for rs in message.resource_spans:
        for ss in rs.scope_spans:
            yield from ss.spans


def span_ids(message):
    return [sp.span_id for sp in spans_of(message)]


def rows(message, trace_id=None):
    """Every span with its resource and scope, as sorted comparable texts: what has to come back
    whole.

    An absent and an empty status are the same (INTERFACE.md); unknown fields are kept by protobuf
    and so compared."""
    out = []
    for rs in message.resource_spans:
        for ss in rs.scope_spans:
            for span in ss.spans:
                if trace_id is not None and span.trace_id != trace_id:
                    continue
                sp = trace.Span()
                sp.CopyFrom(span)
                if sp.HasField("status") and not sp.status.ByteSize():
                    sp.ClearField("status")
                out.append(
                    "\n".join(
                        (
                            str(sp.span_id),
                            sp_text(rs.resource),
                            rs.schema_url,
                            sp_text(ss.scope),
                            ss.schema_url,
                            sp_text(sp),
                        )
                    )
                )
    return sorted(out)


def sp_text(message):
    return str(message) + message.SerializeToString(deterministic=True).hex()


def assert_same(got, sent, trace_id=None):
    """got holds exactly the spans of sent (those of trace_id), each whole and once (equal copies
    are one span)."""
    got_rows, want_rows = rows(got), sorted(set(rows(sent, trace_id)))
    assert len(got_rows) == len(want_rows), (
        f"{len(got_rows)} spans came back, {len(want_rows)} were sent"
    )
    for got_row, want_row in zip(got_rows, want_rows):
        assert got_row == want_row, "\n" + "\n".join(
            list(
                difflib.unified_diff(want_row.split("\n"), got_row.split("\n"), "sent", "got", n=2)
            )[:40]
        )


# -- sending --------------------------------------------------------------------------------------------------------------


class Grpc:
    """A plain gRPC channel to one port; reconnects at once."""

    def __init__(self, port):
        options = [
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 2000),  # how long an attempt may take
            ("grpc.max_reconnect_backoff_ms", 100),
            ("grpc.enable_retries", 0),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)

    def call(self, body, timeout=30.0, tenant=None, compression=None, path=EXPORT, metadata=()):
        """body is a message or its bytes; returns the response or raises grpc.RpcError."""
        stub = self.channel.unary_unary(
            path,
            request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
            response_deserializer=service.ExportTraceServiceResponse.FromString,
        )
        metadata = list(metadata) + ([("x-scope-orgid", tenant)] if tenant is not None else [])
        return stub(body, timeout=timeout, metadata=metadata, compression=compression)

    def close(self):
        self.channel.close()


def send_grpc(mill, body, **keys):
    client = Grpc(mill.ports["grpc"])
    try:
        return client.call(body, **keys)
    finally:
        client.close()


def to_json(message):
    """OTLP/JSON text of a message: hex ids, enums as numbers."""
    tree = json_format.MessageToDict(message, use_integers_for_enums=True)
    return json.dumps(swap_ids(tree, lambda text: base64.b64decode(text).hex()))


def load_json(text):
    """JSON as other languages read it: Python alone makes an integer 0 of the number -0."""
    return json.loads(text, parse_int=lambda digits: -0.0 if digits == "-0" else int(digits))


def from_json(text, into):
    """Read OTLP/JSON (hex ids) into a protobuf message."""
    tree = load_json(text) if isinstance(text, (str, bytes)) else text
    return json_format.ParseDict(
        swap_ids(tree, lambda t: base64.b64encode(bytes.fromhex(t)).decode()),
        into,
        ignore_unknown_fields=True,
    )


def swap_ids(tree, change):
    if isinstance(tree, list):
        return [swap_ids(item, change) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        k: change(v) if k in ids and isinstance(v, str) else swap_ids(v, change)
        for k, v in tree.items()
    }


def send_http(
    mill,
    body,
    kind=PROTOBUF,
    tenant=None,
    compress=False,
    chunked=False,
    path="/v1/traces",
    timeout=30,
    headers=None,
):
    """POST a message (or bytes or text as they are); returns the requests.Response."""
    if hasattr(body, "SerializeToString"):
        body = body.SerializeToString() if kind == PROTOBUF else to_json(body)
    if isinstance(body, str):
        body = body.encode()
    heads = {"Content-Type": kind, **(headers or {})}
    if tenant is not None:
        heads["X-Scope-OrgID"] = tenant
    if compress:
        body = gzip.compress(body)
        heads["Content-Encoding"] = "gzip"
    if chunked:
        whole = body
        body = (whole[i : i + 1000] for i in range(0, len(whole), 1000))
    return requests.post(mill.url("http", path), data=body, headers=heads, timeout=timeout)


def response_of(answer):
    """The Export response inside an HTTP answer."""
    if answer.headers.get("Content-Type", "").startswith("application/json"):
        return json_format.Parse(answer.text, service.ExportTraceServiceResponse())
    return service.ExportTraceServiceResponse.FromString(answer.content)
