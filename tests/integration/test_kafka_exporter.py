"""The kafka exporter against a real broker: what it acknowledged is in the topic, whole and once; a
Python consumer reads the records with the official OTLP classes."""

import os
import subprocess
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

import otlp
from kafka_bed import ROOT, java
from mill import forwarder, merged, run, wait_for


def producer(kafka, topic, exporter=None, storage=None, overlay=None):
    """A configuration: otlp in, kafka out; with storage the queue is on disk there."""

    def make(ports):
        config = forwarder(ports, "127.0.0.1:1", storage=storage)
        out = merged(
            {
                "brokers": kafka.addresses,
                "traces": {"topic": topic},
                "retry_on_failure": {"initial_interval": "100ms", "max_interval": "500ms"},
            },
            exporter,
        )
        if storage:
            out["sending_queue"] = merged(
                {"storage": "file_storage"}, (exporter or {}).get("sending_queue")
            )
        config["exporters"] = {"kafka": out}
        config["service"]["pipelines"]["traces"]["exporters"] = ["kafka"]
        return merged(config, overlay)

    return make


def decode(record):
    return service.ExportTraceServiceRequest.FromString(record.value)


def joined(records):
    """Everything in the records as one request."""
    out = service.ExportTraceServiceRequest()
    for r in records:
        out.resource_spans.extend(decode(r).resource_spans)
    return out


def by_java(trace_ids, n):
    """The partitions that the Java producer chooses for the hex keys of these traces."""
    source = os.path.join(ROOT, "tests", "clients", "java", "Partition.java")
    done = subprocess.run(
        java(source, str(n)),
        input="".join(f"{t.hex()}\n" for t in trace_ids),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(trace_ids, map(int, done.stdout.split()), strict=True))


def by_fnv1a(kafka, trace_ids, n):
    """The same of librdkafka's fnv1a, which it says is Sarama's."""
    topic = kafka.create_topic(partitions=n)
    kafka.produce(topic, [{"key": t.hex(), "value": b""} for t in trace_ids], partitioner="fnv1a")
    return {bytes.fromhex(r.key.decode()): r.partition for r in kafka.consume_all(topic)}


def send_all(mill, requests, **keys):
    """Send requests over one channel; each must be taken whole."""
    client = otlp.Grpc(mill.ports["grpc"])
    try:
        for request in requests:
            response = client.call(request, timeout=20, **keys)
            assert not response.partial_success.rejected_spans, response
    finally:
        client.close()


def test_spans_come_out_whole_and_in_their_partition(kafka, make_mill):
    topic = kafka.create_topic(partitions=8)
    mill = make_mill(producer(kafka, topic))
    sent = otlp.kitchen_sink()
    many = otlp.request(n_traces=100, n_spans=3)
    sent.resource_spans.extend(many.resource_spans)
    otlp.send_grpc(mill, sent)
    records = kafka.consume_all(topic)
    assert otlp.rows(joined(records)) == otlp.rows(sent)
    assert len(records) <= 8
    partition = {}
    for r in records:
        assert r.key is None
        assert r.headers == {"tenant": b"single-tenant"}
        for span in otlp.spans_of(decode(r)):
            assert partition.setdefault(span.trace_id, r.partition) == r.partition
    assert mill.metric("otelcol_exporter_sent_spans") == 324
    assert mill.stop()["delivered"] == 324


def test_partitions_are_those_of_other_clients(kafka, make_mill):
    sent = [otlp.request(n_traces=1000) for _ in range(10)]
    ids = [span.trace_id for request in sent for span in otlp.spans_of(request)]
    for hasher, want in (("murmur2", by_java(ids, 64)), ("sarama_compat", by_fnv1a(kafka, ids, 64))):
        topic = kafka.create_topic(partitions=64)
        partitioner = {"sticky_key": {"hasher": hasher}}
        mill = make_mill(producer(kafka, topic, {"record_partitioner": partitioner}))
        send_all(mill, sent)
        got = {s.trace_id: r.partition for r in kafka.consume_all(topic) for s in otlp.spans_of(decode(r))}
        assert got == want, hasher


def test_one_record_per_trace_with_its_id_as_key(kafka, make_mill):
    topic = kafka.create_topic(partitions=4)
    mill = make_mill(producer(kafka, topic, {"partition_traces_by_id": True}))
    sent = otlp.request(n_traces=50, n_spans=4)
    otlp.send_grpc(mill, sent)
    records = kafka.consume_all(topic)
    assert otlp.rows(joined(records)) == otlp.rows(sent)
    assert len(records) == 50
    for r in records:
        assert {s.trace_id.hex().encode() for s in otlp.spans_of(decode(r))} == {r.key}
    want = by_java([bytes.fromhex(r.key.decode()) for r in records], 4)
    assert all(want[bytes.fromhex(r.key.decode())] == r.partition for r in records)


def test_records_of_many_requests_are_joined(kafka, make_mill):
    """Until they are full or have lingered; the answers come when the record has arrived."""
    topic = kafka.create_topic(partitions=4)
    mill = make_mill(producer(kafka, topic, {"producer": {"linger": "300ms"}}))
    sent = [otlp.request(n_traces=20) for _ in range(8)]
    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda request: otlp.send_grpc(mill, request), sent))
    records = kafka.consume_all(topic)
    assert sum(len(otlp.span_ids(decode(r))) for r in records) == 160
    assert len(records) <= 12, "8 requests over 4 partitions"
    assert mill.metric("spanmill_kafka_produced_records") == len(records)


def test_otlp_json(kafka, make_mill):
    topic = kafka.create_topic(partitions=2)
    mill = make_mill(producer(kafka, topic, {"encoding": "otlp_json"}))
    sent = otlp.kitchen_sink()
    otlp.send_grpc(mill, sent)
    got = service.ExportTraceServiceRequest()
    for r in kafka.consume_all(topic):
        otlp.from_json(r.value, got)
    otlp.assert_same(got, sent)


def test_headers_and_tenants(kafka, make_mill):
    topic = kafka.create_topic()
    extra = {"record_headers": {"cluster": "eu-1", "x": "y"}, "include_metadata_keys": ["X-Scope-OrgID"]}
    mill = make_mill(producer(kafka, topic, extra))
    for tenant in ("team-a", "team-b"):
        otlp.send_grpc(mill, otlp.request(service_name=tenant), tenant=tenant)
    records = kafka.consume_all(topic)
    assert len(records) == 2, "tenants never share a record"
    for r in records:
        tenant = decode(r).resource_spans[0].resource.attributes[0].value.string_value.encode()
        assert r.headers == {"cluster": b"eu-1", "x": b"y", "tenant": tenant, "X-Scope-OrgID": tenant}


def test_topic_from_attribute(kafka, make_mill):
    topic, other = kafka.create_topic(partitions=2), kafka.create_topic(partitions=3)
    mill = make_mill(producer(kafka, topic, {"topic_from_attribute": "topic"}))
    names = {"a": other, "b": None, "c": "no-such-topic", "d": "not/a topic", "e": other}
    sent = service.ExportTraceServiceRequest()
    for name, wanted in names.items():
        part = otlp.request(service_name=name, n_spans=2)
        if wanted:
            part.resource_spans[0].resource.attributes.append(otlp.string("topic", wanted))
        sent.resource_spans.extend(part.resource_spans)
    otlp.send_grpc(mill, sent, timeout=10)

    def services(records):
        return sorted(rs.resource.attributes[0].value.string_value
                      for r in records for rs in decode(r).resource_spans)  # fmt: skip

    assert services(kafka.consume_all(other)) == ["a", "e"]
    assert services(kafka.consume_all(topic)) == ["b", "c", "d"]
    assert "topic=no-such-topic" in mill.stderr()


def test_a_missing_topic_is_named_and_waited_for(kafka, make_mill):
    mill = make_mill(producer(kafka, "made-later"))
    with pytest.raises(grpc.RpcError) as e:
        otlp.send_grpc(mill, otlp.request(), timeout=2)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    text = wait_for("the message", lambda: "topic does not exist" in mill.stderr() and mill.stderr())
    assert "kafka-topics.sh --create" in text and "topic=made-later" in text
    assert kafka.bootstrap in text
    kafka.create_topic("made-later")
    sent = otlp.request()
    wait_for("the topic to be found", lambda: "topic found" in mill.stderr(), timeout=15)
    otlp.send_grpc(mill, sent)
    assert otlp.rows(joined(kafka.consume_all("made-later"))) == otlp.rows(sent)
