"""Blocks byte by byte, by a reader of their own (tempo_block.py): ours and those that Tempo wrote."""

import csv
import glob
import hashlib
import os

import pytest
import requests

import otlp
import tempo_block
from mill import GOLDEN, run

CODECS = ["none", "gzip", "lz4-64k", "lz4-256k", "lz4-1M", "lz4", "snappy", "zstd"]


def blocks_of(mill, tenant="single-tenant"):
    assert requests.post(mill.url("query", "/flush"), timeout=60).status_code == 200
    return sorted(glob.glob(os.path.join(mill.data, tenant, "*", "")))


def cut_by_hand(**blocks):
    return {"exporters": {"blocks": {"max_block_age": "1h", **blocks}}}


@pytest.mark.parametrize("codec", CODECS)
def test_every_byte_of_our_blocks(make_mill, codec):
    """Many traces in several pages, one that holds everything a span can, one larger than a page."""
    mill = make_mill(overlay=cut_by_hand(compression=codec))
    full, large = otlp.kitchen_sink(), otlp.request(n_spans=300, size=2000)
    want = {next(otlp.spans_of(req)).trace_id: req for req in (full, large)}
    for req in want.values():
        otlp.send_grpc(mill, req)
    for _ in range(20):
        req = otlp.request(n_traces=50, n_spans=3, size=300)
        want.update({sp.trace_id: req for sp in otlp.spans_of(req)})
        otlp.send_grpc(mill, req)
    (folder,) = blocks_of(mill)
    block = tempo_block.check_block(folder)
    assert block.meta["encoding"] == codec and len(block.pages) > 2
    assert {o.id for o in block.objects} == set(want)
    for o in block.objects:
        otlp.assert_same(o.merged(), want[o.id], o.id)


def test_more_traces_than_one_bloom_takes(make_mill):
    """From 85,463 traces on a block has two blooms."""
    mill = make_mill(overlay=cut_by_hand())
    args = ["--traces", "90000", "--spans-per-trace", "1", "--attributes", "0", "--span-bytes", "0"]
    endpoint = f"127.0.0.1:{mill.ports['grpc']}"
    status, out, err = run(
        "gen", "--endpoint", endpoint, "--quiet", "--batch", "2000", *args, timeout=60
    )
    assert status == 0, out + err
    (folder,) = blocks_of(mill)
    block = tempo_block.check_block(folder)
    assert block.meta["bloomShards"] == 2 and len(block.objects) == 90000


def test_blocks_by_tenant(make_mill):
    mill = make_mill(overlay=cut_by_hand())
    for tenant in ("a", "b.c_d!"):
        otlp.send_grpc(mill, otlp.request(n_traces=3), tenant=tenant)
    for tenant in ("a", "b.c_d!"):
        (folder,) = blocks_of(mill, tenant)
        assert tempo_block.check_block(folder).meta["tenantID"] == tenant


def test_wild_clocks(make_mill):
    """A trace of 1970 and one of 2200: the objects' own seconds, and a range of the block that a
    retention by its end can live with."""
    mill = make_mill(overlay=cut_by_hand())
    for start, end in ((0, 1), (7_258_118_400 * 10**9, 7_258_118_401 * 10**9), (5, 4)):
        req = otlp.request()
        for sp in otlp.spans_of(req):
            sp.start_time_unix_nano, sp.end_time_unix_nano = start, end
        otlp.send_grpc(mill, req)
    otlp.send_grpc(mill, otlp.request())
    (folder,) = blocks_of(mill)
    block = tempo_block.read_block(folder)
    assert len(block.objects) == 4
    assert all(o.start <= o.end for o in block.objects)
    assert "2200" not in block.meta["endTime"] and "1970" not in block.meta["startTime"]


def golden_blocks():
    path = os.path.join(GOLDEN, "tempo-v2", "MANIFEST.tsv")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return list(csv.DictReader(f, delimiter="\t"))


@pytest.mark.parametrize("row", golden_blocks() or [None])
def test_the_reader_itself(row):
    """What this reader makes of Tempo's own blocks is what the list says, and index and blooms that
    it makes are Tempo's, byte for byte."""
    if row is None:
        pytest.skip("no golden data")
    folder = os.path.join(GOLDEN, "tempo-v2", row["#block_dir"])
    data = tempo_block.read_file(folder, "data")
    if b"S2sTwO" in data:
        pytest.skip("an S2 stream: no reader for it here")
    block = tempo_block.Block({"encoding": row["encoding"]})
    tempo_block.check_stream, check = lambda *_: None, tempo_block.check_stream
    try:
        tempo_block.read_pages(block, data)
    finally:
        tempo_block.check_stream = check
    whole = b"".join(plain for _, _, plain in block.pages)
    assert hashlib.sha256(whole).hexdigest() == row[next(k for k in row if k.startswith("sha256"))]
    assert len(block.pages) == int(row["pages"])
    if row["dataEncoding"] not in ("v1", "v2"):
        return
    block = tempo_block.read_block(folder)
    ids = [o.id for o in block.objects]
    assert (len(ids), ids[0].hex(), ids[-1].hex()) == (
        int(row["objects"]),
        row["first_id"],
        row["last_id"],
    )
    for name in ("index", "index-copy"):
        if os.path.exists(os.path.join(folder, name)):
            assert tempo_block.read_file(folder, name) == tempo_block.make_index(
                tempo_block.records_of(block), block.meta["indexPageSize"]
            )
    if os.path.exists(os.path.join(folder, "bloom-0-copy")):
        (bloom,) = tempo_block.make_blooms(ids, 0.05, 256_000)
        assert tempo_block.read_file(folder, "bloom-0-copy") == bloom
    elif os.path.exists(os.path.join(folder, "bloom-2")):
        blooms = tempo_block.make_blooms(ids, 0.01, 20, n=50)
        assert [tempo_block.read_file(folder, f"bloom-{i}") for i in range(3)] == blooms
    elif os.path.exists(os.path.join(folder, "bloom-0")):
        (bloom,) = tempo_block.make_blooms(ids)
        assert tempo_block.read_file(folder, "bloom-0") == bloom
