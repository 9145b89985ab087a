"""Blocks byte by byte, by a reader of their own (tempo_block.py): ours and those that Tempo wrote."""

import csv
import glob
import hashlib
import os
import struct

import pytest
import requests

import otlp
import tempo
import tempo_block
from mill import GOLDEN, SANITIZED, merged, query_node, run

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
    block = tempo_block.read_block(folder)
    assert block.meta["bloomShards"] == 2 and len(block.objects) == 90000
    tempo_block.check_objects(block)
    blooms = [tempo_block.read_file(folder, f"bloom-{i}") for i in range(2)]
    for o in block.objects[::300]:
        assert tempo_block.may_hold(blooms, o.id)
    others = sum(tempo_block.may_hold(blooms, otlp.new_id(16)) for _ in range(1000))
    assert others < 60, "half full at most: about 1 in 100 passes"


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


@pytest.mark.parametrize(
    "codec, data_encoding", [*((codec, "v2") for codec in [*CODECS, "s2"]), ("snappy", "v1")]
)
def test_blocks_of_another_writer(make_mill, tmp_path, codec, data_encoding):
    """Odd sizes everywhere, keys in another order and case, segments instead of one message."""
    data = str(tmp_path / "blocks")
    traces = {}
    for n in range(40):
        sent = otlp.kitchen_sink() if n % 8 == 0 else otlp.request(n_spans=1 + n % 5)
        tid = next(otlp.spans_of(sent)).trace_id
        more = otlp.request()
        for sp in otlp.spans_of(more):
            sp.trace_id = tid
        traces[tid] = [sent, more] if n % 3 == 0 else [sent]
    tempo_block.write_block(
        data,
        traces,
        encoding=codec,
        data_encoding=data_encoding,
        page_size=98,
        page_bytes=3000,
        meta={"encoding": None, "ENCODING": codec.upper(), "minID": None, "somebodys": {"a": [1]}},
    )
    mill = make_mill(lambda ports: query_node(ports, data))
    for tid, segments in traces.items():
        want = type(segments[0])()
        for segment in segments:
            want.MergeFrom(segment)
        otlp.assert_same(tempo.get(mill, tid), want)
    for _ in range(50):
        assert tempo.get(mill, otlp.new_id(16)) is None
    status, out, _ = run("fsck", data)
    assert (status, out) == (
        0,
        "1 blocks, 40 traces, 0 orphans, 0 logs, 0 log records, 0 problems\n",
    )


def bomb(encoding):
    """A page that inflates to 200 MiB."""
    return lambda n, page: tempo_block.deflate(encoding, page + bytes(200 * 2**20))


def claim(size):
    """A zstd frame whose header promises this much."""
    return lambda n, page: bytes.fromhex("28b52ffd") + b"\xe0" + struct.pack("<Q", size) + page


HOSTILE = {
    "index page of 64 MiB": {"meta": {"indexPageSize": 64 * 2**20}},
    "index page of 4 GiB": {"meta": {"indexPageSize": 2**32 - 1}},
    "index page of 0": {"meta": {"indexPageSize": 0}},
    "4 billion records": {"meta": {"totalRecords": 2**32 - 1}},
    "no records": {"meta": {"totalRecords": 0}},
    "4 billion blooms": {"meta": {"bloomShards": 2**32 - 1}},
    "objects": {"meta": {"totalObjects": 2**63}},
    "negative": {"meta": {"totalRecords": -1}},
    "fraction": {"meta": {"totalRecords": 1.5}},
    "text": {"meta": {"totalRecords": "1"}},
    "format": {"meta": {"format": "vParquet4"}},
    "data encoding": {"meta": {"dataEncoding": "v9"}},
    "encoding": {"meta": {"encoding": "brotli"}},
    "other codec": {"meta": {"encoding": "snappy"}},
    "zstd bomb": {"stored": bomb("zstd")},
    "gzip bomb": {"encoding": "gzip", "stored": bomb("gzip")},
    "lz4 bomb": {"encoding": "lz4", "stored": bomb("lz4")},
    "snappy bomb": {"encoding": "snappy", "stored": bomb("snappy")},
    "claims 1 TiB": {"stored": claim(2**40)},
    "claims 200 MiB": {"stored": claim(200 * 2**20)},
    "empty page": {"encoding": "none", "stored": lambda n, page: b""},
    "half an object": {"encoding": "none", "stored": lambda n, page: page[:-1]},
    "object of 4 GiB": {
        "encoding": "none",
        "stored": lambda n, page: struct.pack("<I", 2**32 - 1) + page[4:],
    },
    "id of 4 GiB": {
        "encoding": "none",
        "stored": lambda n, page: page[:4] + struct.pack("<I", 2**32 - 1) + page[8:],
    },
    "damaged protobuf": {"encoding": "none", "stored": lambda n, page: page[:40] + b"\xff" * (len(page) - 40)},
}


def test_hostile_blocks(make_mill, tmp_path):
    """Each beside a good block of the same trace: what that has is returned with the word that it
    is not all, nobody crashes or waits, and memory stays within the limit."""
    data, limit = str(tmp_path / "blocks"), 120
    sent = otlp.request(n_spans=3)
    tid = next(otlp.spans_of(sent)).trace_id
    tenants = {}
    for n, (name, how) in enumerate(HOSTILE.items()):
        tenants[name] = f"t{n}"
        tempo_block.write_block(data, {tid: [otlp_copy(sent, "hidden")]}, f"t{n}", **how)
        tempo_block.write_block(
            data, {tid: [sent]}, f"t{n}", block_id="0b10c000-0000-4000-8000-000000000002"
        )
    config = {
        "service": {"extensions": ["trace_store", "query"]},
        "extensions": {"trace_store": {"max_page_bytes": "4GiB"}},
    }
    mill = make_mill(
        lambda ports: merged(limited(query_node(ports, data), ports, limit), config),
    )
    for name, tenant in tenants.items():
        got, complete, message = tempo.get_partial(mill, tid, "v2 protobuf", tenant=tenant)
        assert got is not None, name
        otlp.assert_same(got, sent)
        assert not complete and message, name
    if not SANITIZED:
        assert mill.proc_status("VmHWM") <= limit * 1.1 * 2**20
    status, out, _ = run("fsck", data, timeout=120)
    assert status == 3
    for name, tenant in tenants.items():
        assert f"{tenant}/0b10c000-0000-4000-8000-000000000001: " in out, name
        assert f"{tenant}/0b10c000-0000-4000-8000-000000000002: " not in out, name


def otlp_copy(sent, name):
    out = type(sent)()
    out.CopyFrom(sent)
    for sp in otlp.spans_of(out):
        sp.name = name
    return out


def limited(config, ports, mib):
    """A query node has no pipeline: one is added so that memory_limiter can set its memory."""
    at = f"127.0.0.1:{ports['grpc']}"
    return merged(
        config,
        {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": at}}}},
            "processors": {"memory_limiter": {"check_interval": "1s", "limit_mib": mib}},
            "exporters": {"debug": {}},
            "service": {
                "pipelines": {
                    "traces": {
                        "receivers": ["otlp"],
                        "processors": ["memory_limiter"],
                        "exporters": ["debug"],
                    }
                }
            },
        },
    )


def test_a_trace_of_70_mib(make_mill, tmp_path):
    """It is one object, so one page: read by look-ups and by fsck alike."""
    data = str(tmp_path / "blocks")
    sent = otlp.request()
    tid = next(otlp.spans_of(sent)).trace_id
    next(otlp.spans_of(sent)).attributes.append(otlp.string("large", "x" * 70 * 2**20))
    tempo_block.write_block(data, {tid: [sent]})
    mill = make_mill(lambda ports: query_node(ports, data))
    (sp,) = otlp.spans_of(tempo.get(mill, tid))
    same = list(sp.attributes) == list(next(otlp.spans_of(sent)).attributes)
    assert same  # by name: the difference would be 70 MiB of text
    status, out, _ = run("fsck", data)
    assert (status, out.splitlines()[-1]) == (
        0,
        "1 blocks, 1 traces, 0 orphans, 0 logs, 0 log records, 0 problems",
    )
