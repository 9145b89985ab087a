"""What the blocks exporter's options say is what the blocks are."""

import glob
import json
import os

import pytest

import otlp
import tempo
from mill import wait_for


@pytest.mark.parametrize(
    "name", ["none", "gzip", "lz4-64k", "lz4-256k", "lz4-1M", "lz4", "snappy", "zstd"]
)
def test_compression(make_mill, name):
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "50ms", "compression": name}}})
    sent = otlp.request(n_spans=20)
    otlp.send_grpc(mill, sent)

    def metas():
        return glob.glob(os.path.join(mill.data, "single-tenant", "*", "meta.json"))

    wait_for("a block", metas)
    mill.stop()
    for path in metas():
        with open(path, encoding="utf-8") as f:
            assert json.load(f)["encoding"] == name
    mill.start()
    otlp.assert_same(tempo.get(mill, next(otlp.spans_of(sent)).trace_id), sent)


def test_each_exporter_has_its_own_log(make_mill):
    """Names that differ in '/' and '_' only are two logs, and ordinary names keep their folders."""
    names = ["blocks", "blocks/a/b", "blocks/a_b", "blocks/a%2Fb"]
    mill = make_mill(
        overlay={
            "exporters": {name: {"max_block_age": "50ms"} for name in names},
            "service": {"pipelines": {"traces": {"exporters": names}}},
        }
    )
    sent = otlp.request(n_spans=4)
    otlp.send_grpc(mill, sent)
    where = os.path.join(mill.data, "_spanmill", "log")
    assert sorted(os.listdir(where)) == ["blocks", "blocks_a%252Fb", "blocks_a%2Fb", "blocks_a_b"]
    wait_for(
        "a block of each",
        lambda: len(glob.glob(os.path.join(mill.data, "single-tenant", "*", "meta.json"))) == 4,
    )
    assert mill.stop() == {"accepted": 4, "delivered": 4, "dropped": 0, "held": 0}
