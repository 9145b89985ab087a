"""prometheus.WriteRequest, described here from the public schema, so that what we write is read by
protobuf's own decoder; and a next hop that speaks remote write."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from nexthop import HttpHop

DOUBLE, INT64, UINT64, INT32, STRING, MESSAGE, UINT32, SINT32, SINT64 = 1, 3, 4, 5, 9, 11, 13, 17, 18
ONE, MANY = 1, 3

# message: [(name, number, type, label, of which message, oneof)]
SCHEMA = {
    "Label": [("name", 1, STRING, ONE), ("value", 2, STRING, ONE)],
    "Sample": [("value", 1, DOUBLE, ONE), ("timestamp", 2, INT64, ONE)],
    "Exemplar": [
        ("labels", 1, MESSAGE, MANY, "Label"),
        ("value", 2, DOUBLE, ONE),
        ("timestamp", 3, INT64, ONE),
    ],
    "BucketSpan": [("offset", 1, SINT32, ONE), ("length", 2, UINT32, ONE)],
    "Histogram": [
        ("count_int", 1, UINT64, ONE),
        ("sum", 3, DOUBLE, ONE),
        ("schema", 4, SINT32, ONE),
        ("zero_threshold", 5, DOUBLE, ONE),
        ("zero_count_int", 6, UINT64, ONE),
        ("negative_spans", 8, MESSAGE, MANY, "BucketSpan"),
        ("negative_deltas", 9, SINT64, MANY),
        ("positive_spans", 11, MESSAGE, MANY, "BucketSpan"),
        ("positive_deltas", 12, SINT64, MANY),
        ("reset_hint", 14, INT32, ONE),
        ("timestamp", 15, INT64, ONE),
    ],
    "TimeSeries": [
        ("labels", 1, MESSAGE, MANY, "Label"),
        ("samples", 2, MESSAGE, MANY, "Sample"),
        ("exemplars", 3, MESSAGE, MANY, "Exemplar"),
        ("histograms", 4, MESSAGE, MANY, "Histogram"),
    ],
    "MetricMetadata": [
        ("type", 1, INT32, ONE),
        ("metric_family_name", 2, STRING, ONE),
        ("help", 4, STRING, ONE),
        ("unit", 5, STRING, ONE),
    ],
    "WriteRequest": [
        ("timeseries", 1, MESSAGE, MANY, "TimeSeries"),
        ("metadata", 3, MESSAGE, MANY, "MetricMetadata"),
    ],
}


def build():
    file = descriptor_pb2.FileDescriptorProto(name="prompb.proto", package="pb", syntax="proto3")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label, *of in fields:
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=label,
                type_name=f".pb.{of[0]}" if of else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pb.WriteRequest"))


WriteRequest = build()


class RemoteWriteHop(HttpHop):
    """behave(request, headers, hop) as of HttpHop; requests are WriteRequests."""

    @property
    def target(self):
        return f"http://127.0.0.1:{self.port}/api/v1/write"

    def message_types(self, path):
        return WriteRequest, WriteRequest

    def signal_of(self, path):
        return "traces"  # where nexthop keeps what was taken

    def series(self):
        """Of all that was taken, in order: [({label: value}, TimeSeries)]."""
        with self.lock:
            return [(labels_of(ts), ts) for req in self.taken for ts in req.timeseries]

    def samples(self, name):
        """Samples of a metric: [(labels without the name, value, milliseconds)]."""
        out = []
        for labels, ts in self.series():
            if labels.pop("__name__") == name:
                out += [(labels, s.value, s.timestamp) for s in ts.samples]
        return out


def labels_of(message):
    return {label.name: label.value for label in message.labels}
