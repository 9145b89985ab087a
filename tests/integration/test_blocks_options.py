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
