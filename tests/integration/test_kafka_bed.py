"""The test bed itself: a broker comes up and gives all records back."""

import pytest

from kafka_bed import installed


def test_records_come_back_in_order_and_whole(kafka):
    topic = kafka.create_topic(partitions=3)
    kafka.produce(
        topic,
        [
            {"value": b"v%d" % i, "key": b"k", "partition": i % 3, "headers": {"n": str(i)}}
            for i in range(30)
        ],
    )
    got = kafka.consume_all(topic)
    assert [(r.partition, r.value) for r in got] == [
        (p, b"v%d" % i) for p in range(3) for i in range(p, 30, 3)
    ]
    assert got[0].headers == {"n": b"0"}
    assert kafka.end_offsets(topic) == {0: 10, 1: 10, 2: 10}


def test_topic_configuration_and_growth(kafka):
    topic = kafka.create_topic(partitions=2, max_message_bytes=1000)
    with pytest.raises(AssertionError, match="MSG_SIZE_TOO_LARGE"):
        kafka.produce(topic, [b"x" * 2000])
    kafka.set_topic_config(topic, max_message_bytes=5000)
    kafka.produce(topic, [b"x" * 2000])
    kafka.grow_topic(topic, 3)
    assert kafka.partitions(topic) == [0, 1, 2]
    assert [r.value for r in kafka.consume_all(topic)] == [b"x" * 2000]


def test_installed_is_idempotent():
    assert installed() == installed() != ""
