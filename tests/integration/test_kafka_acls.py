"""What the brokers forbid: it is said with the topic's name, nothing is lost of it, and all goes on once
it is allowed."""

import grpc
import pytest

import otlp
from kafka_bed import ACLS
from mill import wait_for
from test_kafka_exporter import counts, ids_of, is_drained, producer
from test_kafka_receiver import check_once, fresh_group, reader, records, visible, wait_committed


@pytest.fixture(scope="module")
def closed_kafka(kafka_installed, tmp_path_factory):
    from kafka_bed import Kafka

    with Kafka(tmp_path_factory.mktemp("acls"), config=ACLS) as kafka:
        yield kafka


@pytest.mark.parametrize("on_disk", [False, True])
def test_writing_is_forbidden(closed_kafka, make_mill, tmp_path, on_disk):
    kafka = closed_kafka
    topic = kafka.create_topic(partitions=2)
    kafka.forbid(topic, "WRITE")
    mill = make_mill(producer(kafka, topic, storage=str(tmp_path / "queue") if on_disk else None))
    sent = [otlp.request(n_spans=3) for _ in range(3)]
    for request in sent:
        if on_disk:
            otlp.send_grpc(mill, request)
            continue
        with pytest.raises(grpc.RpcError) as e:
            otlp.send_grpc(mill, request, timeout=3)
        assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    text = wait_for("the reason", lambda: "AUTHORIZATION_FAILED" in mill.stderr() and mill.stderr())
    assert any(topic in line and "AUTHORIZATION_FAILED" in line for line in text.splitlines())
    kafka.allow(topic)
    if not on_disk:
        for request in sent:
            otlp.send_grpc(mill, request, timeout=30)
    wait_for("all to arrive", lambda: is_drained(mill), 20)
    found = counts(kafka, topic)
    assert set(ids_of(sent)) == set(found)
    assert mill.stop()["dropped"] == 0


def test_reading_is_forbidden(closed_kafka, make_mill):
    kafka = closed_kafka
    topic, group = kafka.create_topic(partitions=2), fresh_group()
    batch, ledger = records(5)
    kafka.produce(topic, batch)
    kafka.forbid(topic, "READ")
    mill = make_mill(reader(kafka, topic, group), start=False)
    mill.start(ready=False)
    text = wait_for("the reason", lambda: "AUTHORIZATION_FAILED" in mill.stderr() and mill.stderr())
    assert any(topic in line and "AUTHORIZATION_FAILED" in line for line in text.splitlines())
    assert not visible(mill.data)
    kafka.allow(topic)
    mill.wait_ready(30)
    wait_committed(kafka, group, topic)
    check_once(visible(mill.data), ledger)
