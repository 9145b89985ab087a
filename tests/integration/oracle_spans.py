"""Traces whose every byte follows from their trace id: what comes back is judged without a copy of
what was sent.

A trace id is the run's tag (4 bytes), the client (2), a number (4) and a checksum of these (6); an id
whose checksum does not fit is foreign. A trace has one or two parts, each a request of its own.
"""

import hashlib
import random

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.common.v1 import common_pb2 as common

import otlp

NOW = 1_790_000_000_000_000_000  # of all spans, a second apart: content knows no clock
TEXT = "the quick brown fox zażółć \u2603 jumps over 0123456789 "


class Traces:
    """The traces of one run, told from all others by its tag."""

    def __init__(self, tag):
        self.tag = tag
        self.known = {}  # (trace id, part) -> {span id: digest}

    def trace_id(self, client, number):
        head = self.tag + client.to_bytes(2, "big") + number.to_bytes(4, "big")
        return head + hashlib.blake2b(head, digest_size=6).digest()

    def is_own(self, trace_id):
        check = hashlib.blake2b(trace_id[:10], digest_size=6).digest()
        return trace_id[:4] == self.tag and trace_id[10:] == check

    @staticmethod
    def client_of(trace_id):
        return int.from_bytes(trace_id[4:6], "big")

    @staticmethod
    def parts(trace_id):
        """How many requests make the trace."""
        return 2 if trace_id[9] % 4 == 0 else 1

    @staticmethod
    def request(trace_id, part):
        """The request of one part: spans under one or two resources, every kind of value."""
        rng = random.Random(trace_id + bytes([part]))
        out = service.ExportTraceServiceRequest()
        parent = b""
        for r in range(rng.choice((1, 1, 2))):
            rs = out.resource_spans.add(schema_url=rng.choice(("", "https://example.test/1")))
            rs.resource.attributes.append(otlp.string("service.name", f"svc-{rng.randrange(9)}"))
            rs.resource.attributes.append(otlp.string("pod", rng.randbytes(6).hex()))
            ss = rs.scope_spans.add()
            ss.scope.name, ss.scope.version = "oracle", f"{r}.{part}"
            for _ in range(rng.randrange(1, 7)):
                parent = add_span(ss.spans.add(), trace_id, parent, rng)
        return out

    def expected(self, trace_id, part):
        """{span id: digest} of one part."""
        key = trace_id, part
        if key not in self.known:
            self.known[key] = digests(self.request(*key))
        return self.known[key]

    def whole(self, trace_id):
        out = {}
        for part in range(self.parts(trace_id)):
            out.update(self.expected(trace_id, part))
        return out


def add_span(sp, trace_id, parent, rng):
    """Fill a span from the generator; returns its id."""
    sp.trace_id, sp.parent_span_id = trace_id, parent
    sp.span_id = rng.randbytes(8)
    sp.name, sp.kind = f"op {rng.randrange(50)}", rng.randrange(6)
    sp.start_time_unix_nano = NOW + rng.randrange(10**12)
    sp.end_time_unix_nano = sp.start_time_unix_nano + rng.randrange(10**9)
    sp.flags = rng.choice((0, 1, 0x101))
    sp.trace_state = rng.choice(("", "ot=th:8", "vendor=x"))
    for i in range(rng.randrange(1, 9)):
        sp.attributes.append(common.KeyValue(key=f"key.{i}", value=value(rng)))
    if rng.random() < 0.2:
        at = sp.start_time_unix_nano + 1
        sp.events.add(time_unix_nano=at, name="event").attributes.append(otlp.string("a", "b"))
    if rng.random() < 0.1:
        sp.links.add(trace_id=rng.randbytes(16), span_id=rng.randbytes(8))
    if rng.random() < 0.2:
        sp.status.code, sp.status.message = 2, "why not"
    return sp.span_id


def value(rng):
    v = common.AnyValue
    kind = rng.randrange(8)
    if kind < 3:
        return v(string_value=TEXT[: rng.randrange(len(TEXT))] * rng.randrange(1, 4))
    if kind == 3:
        return v(int_value=rng.randrange(-(2**63), 2**63))
    if kind == 4:
        return v(double_value=rng.uniform(-1e9, 1e9))
    if kind == 5:
        return v(bool_value=rng.random() < 0.5)
    if kind == 6:
        return v(bytes_value=rng.randbytes(rng.randrange(60)))
    inner = [v(string_value="x"), v(int_value=rng.randrange(9)), v()]
    return v(array_value=common.ArrayValue(values=inner))


def digests(message):
    """{span id: digest of the span, its scope, its resource}; a span that is there twice has the
    count as well."""
    out = {}
    for _, span_id, digest in rows(message):
        out[span_id] = digest if span_id not in out else b"twice " + digest
    return out


def rows(message):
    """(trace id, span id, digest) of every span of anything that has resource_spans."""
    for rs in message.resource_spans:
        resource = rs.resource.SerializeToString(deterministic=True) + rs.schema_url.encode()
        for ss in rs.scope_spans:
            scope = ss.scope.SerializeToString(deterministic=True) + ss.schema_url.encode()
            for sp in ss.spans:
                h = hashlib.blake2b(resource, digest_size=16)
                h.update(scope)
                if sp.HasField("status") and not sp.status.ByteSize():
                    sp.ClearField("status")  # an absent and an empty one are the same
                h.update(sp.SerializeToString(deterministic=True))
                yield sp.trace_id, sp.span_id, h.digest()
