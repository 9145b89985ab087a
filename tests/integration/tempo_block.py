"""A reader of Tempo v2 blocks of its own: written from the description of the format, sharing
nothing with the program, so that both cannot be wrong in the same way. It checks every byte of a
block and makes index and blooms anew from the ids alone."""

import base64
import json
import math
import os
import re
import struct
from dataclasses import dataclass, field

import cramjam
import xxhash
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

PAGE_BYTES = 1_048_576  # a page is cut when its plain objects pass this
SHARD_BYTES = 102_400
FALSE_POSITIVES = 0.01
MASK = 2**64 - 1

META_KEYS = [
    "format",
    "blockID",
    "minID",
    "maxID",
    "tenantID",
    "startTime",
    "endTime",
    "totalObjects",
    "size",
    "compactionLevel",
    "encoding",
    "indexPageSize",
    "totalRecords",
    "dataEncoding",
    "bloomShards",
    "footerSize",
]


@dataclass
class Object:
    id: bytes
    start: int
    end: int
    segments: list  # trace.TracesData

    def spans(self):
        for data in self.segments:
            for rs in data.resource_spans:
                for ss in rs.scope_spans:
                    yield from ss.spans

    def merged(self):
        out = trace.TracesData()
        for data in self.segments:
            out.MergeFrom(data)
        return out


@dataclass
class Block:
    meta: dict
    pages: list = field(default_factory=list)  # (offset, stored length, plain bytes)
    objects: list = field(default_factory=list)


# -- data -----------------------------------------------------------------------------------------


def inflate(encoding, stored):
    if encoding == "none":
        return stored
    if encoding == "gzip":
        return bytes(cramjam.gzip.decompress(stored))
    if encoding == "zstd":
        return bytes(cramjam.zstd.decompress(stored))
    if encoding in ("snappy", "s2"):  # an S2 stream that begins with sNaPpY is Snappy framing
        return bytes(cramjam.snappy.decompress(stored))
    assert encoding.startswith("lz4"), encoding
    return bytes(cramjam.lz4.decompress(stored))


def check_stream(encoding, stored):
    """What the head of the stream has to say, where the description names bytes."""
    sizes = {"lz4-64k": 0x40, "lz4-256k": 0x50, "lz4-1M": 0x60, "lz4": 0x70}
    if encoding in sizes:
        assert stored[:4] == bytes.fromhex("04224d18")
        assert stored[4] & 0xE0 == 0x60, "version 1, independent blocks"
        assert stored[5] == sizes[encoding]
    elif encoding in ("snappy", "s2"):
        assert stored[:10] == bytes.fromhex("ff060000") + b"sNaPpY"
    elif encoding == "gzip":
        assert stored[:3] == bytes.fromhex("1f8b08")
    elif encoding == "zstd":
        assert stored[:4] == bytes.fromhex("28b52ffd")


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def segments_of(data):
    """TraceBytes {repeated bytes traces = 1}."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        assert tag == 0x0A
        size, at = varint(data, at)
        yield trace.TracesData.FromString(data[at : at + size])
        at += size
        assert at <= len(data)


def read_object(data_encoding, trace_id, data):
    start = end = None
    if data_encoding == "v2":
        start, end = struct.unpack_from("<II", data)
        data = data[8:]
    else:
        assert data_encoding == "v1"
    return Object(trace_id, start, end, list(segments_of(data)))


def read_page(data_encoding, plain):
    at = 0
    while at < len(plain):
        total, id_len = struct.unpack_from("<II", plain, at)
        assert id_len == 16 and total >= 24 and at + total <= len(plain)
        yield read_object(data_encoding, plain[at + 8 : at + 24], plain[at + 24 : at + total])
        at += total


def read_pages(block, data):
    at = 0
    while at < len(data):
        total, header = struct.unpack_from("<IH", data, at)
        assert header == 0 and total > 6 and at + total <= len(data)
        stored = data[at + 6 : at + total]
        check_stream(block.meta["encoding"], stored)
        block.pages.append((at, total, inflate(block.meta["encoding"], stored)))
        at += total


# -- index and blooms, made anew ------------------------------------------------------------------


def make_index(records, page_size):
    """records: (last id, offset, length)."""
    per_page = (page_size - 14) // 28
    out = b""
    for i in range(0, len(records), per_page):
        body = b"".join(struct.pack("<16sQI", *r) for r in records[i : i + per_page])
        body = body.ljust(page_size - 14, b"\0")
        out += struct.pack("<IHQ", page_size, 8, xxhash.xxh64_intdigest(body, seed=0)) + body
    return out


def rotl(x, r):
    return (x << r | x >> (64 - r)) & MASK


def fmix(k):
    k ^= k >> 33
    k = k * 0xFF51AFD7ED558CCD & MASK
    k ^= k >> 33
    k = k * 0xC4CEB9FE1A85EC53 & MASK
    return k ^ k >> 33


def murmur3(data):
    """MurmurHash3 x64 128, seed 0."""
    c1, c2, h1, h2 = 0x87C37B91114253D5, 0x4CF5AD432745937F, 0, 0

    def mix1(k):
        return rotl(k * c1 & MASK, 31) * c2 & MASK

    def mix2(k):
        return rotl(k * c2 & MASK, 33) * c1 & MASK

    for i in range(0, len(data) - 15, 16):
        k1, k2 = struct.unpack_from("<QQ", data, i)
        h1 = ((rotl(h1 ^ mix1(k1), 27) + h2) * 5 + 0x52DCE729) & MASK
        h2 = ((rotl(h2 ^ mix2(k2), 31) + h1) * 5 + 0x38495AB5) & MASK
    tail = data[len(data) & ~15 :]
    if len(tail) > 8:
        h2 ^= mix2(int.from_bytes(tail[8:], "little"))
    if tail:
        h1 ^= mix1(int.from_bytes(tail[:8], "little"))
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = (h1 + h2) & MASK
    h2 = (h2 + h1) & MASK
    h1, h2 = fmix(h1), fmix(h2)
    h1 = (h1 + h2) & MASK
    return h1, (h2 + h1) & MASK


def fnv1_32(data):
    h = 0x811C9DC5
    for b in data:
        h = (h * 0x01000193 & 0xFFFFFFFF) ^ b
    return h


def bits_of(trace_id, m, k):
    h = (*murmur3(trace_id), *murmur3(trace_id + b"\x01"))
    return [((h[i % 2] + i * h[2 + ((i + i % 2) % 4) // 2]) & MASK) % m for i in range(k)]


def bloom_shape(n, p=FALSE_POSITIVES, shard_bytes=SHARD_BYTES):
    bits = math.ceil(-n * math.log(p) / math.log(2) ** 2)
    k = math.ceil(math.log(2) * bits / n)
    return min(max(math.ceil(bits / (8 * shard_bytes)), 1), 1000), k


def make_blooms(ids, p=FALSE_POSITIVES, shard_bytes=SHARD_BYTES, n=None):
    shards, k = bloom_shape(n or len(ids), p, shard_bytes)
    m = 8 * shard_bytes
    words = [[0] * ((m + 63) // 64) for _ in range(shards)]
    for trace_id in ids:
        of = words[fnv1_32(trace_id) % shards]
        for bit in bits_of(trace_id, m, k):
            of[bit >> 6] |= 1 << (bit & 63)
    return [struct.pack(">QQQ", m, k, m) + struct.pack(f">{len(w)}Q", *w) for w in words]


def may_hold(blooms, trace_id):
    bloom = blooms[fnv1_32(trace_id) % len(blooms)]
    m, k, again = struct.unpack_from(">QQQ", bloom)
    assert m == again and len(bloom) == 24 + 8 * ((m + 63) // 64)

    def is_set(bit):
        (word,) = struct.unpack_from(">Q", bloom, 24 + 8 * (bit >> 6))
        return word >> (bit & 63) & 1

    return all(is_set(bit) for bit in bits_of(trace_id, m, k))


# -- a whole block --------------------------------------------------------------------------------


def read_file(*parts):
    with open(os.path.join(*parts), "rb") as f:
        return f.read()


def check_meta(block, text, folder):
    """The keys we write, in this order, and what each has to say."""
    meta, objects = block.meta, block.objects
    assert [k for k in meta if k not in ("shard", "bloomXXH64", "ingestedAt")] == META_KEYS
    assert text == json.dumps(meta, separators=(",", ":")), "no spaces, no line end"
    assert meta["format"] == "v2" and meta["dataEncoding"] == "v2"
    tenant, block_id = folder.rstrip("/").split("/")[-2:]
    assert (meta["tenantID"], meta["blockID"]) == (tenant, block_id)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", block_id)
    assert base64.b64decode(meta["minID"], validate=True) == objects[0].id
    assert base64.b64decode(meta["maxID"], validate=True) == objects[-1].id
    for key in ("startTime", "endTime", "ingestedAt"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", meta[key]), key
    assert (meta["totalObjects"], meta["totalRecords"]) == (len(objects), len(block.pages))
    assert (meta["compactionLevel"], meta["footerSize"]) == (0, 0)
    assert meta["indexPageSize"] == 256_000


def check_objects(block):
    ids = [o.id for o in block.objects]
    assert ids == sorted(set(ids)), "ids ascend, each once"
    for o in block.objects:
        spans = list(o.spans())
        assert all(sp.trace_id == o.id and len(sp.span_id) == 8 for sp in spans)
        assert o.start == min(sp.start_time_unix_nano for sp in spans) // 10**9
        assert o.end == max(sp.end_time_unix_nano for sp in spans) // 10**9


def check_cuts(block):
    """A page is cut by the object that takes it past the limit."""
    for n, (_, _, plain) in enumerate(block.pages):
        last = sizes_of(plain)[-1]
        assert len(plain) - last <= PAGE_BYTES
        assert len(plain) > PAGE_BYTES or n == len(block.pages) - 1


def sizes_of(plain):
    out, at = [], 0
    while at < len(plain):
        out.append(struct.unpack_from("<I", plain, at)[0])
        at += out[-1]
    return out


def read_block(folder):
    """Read without judging more than framing: other writers' blocks too."""
    block = Block(json.loads(read_file(folder, "meta.json")))
    read_pages(block, read_file(folder, "data"))
    for _, _, plain in block.pages:
        block.objects.extend(read_page(block.meta["dataEncoding"], plain))
    return block


def records_of(block):
    out, objects = [], 0
    for offset, length, plain in block.pages:
        objects += len(sizes_of(plain))
        out.append((block.objects[objects - 1].id, offset, length))
    return out


def check_block(folder):
    """Every byte of a block that the program wrote. Returns it."""
    block = read_block(folder)
    check_meta(block, read_file(folder, "meta.json").decode(), folder)
    check_objects(block)
    check_cuts(block)
    assert read_file(folder, "index") == make_index(records_of(block), block.meta["indexPageSize"])
    blooms = make_blooms([o.id for o in block.objects])
    assert len(blooms) == block.meta["bloomShards"]
    for i, want in enumerate(blooms):
        assert read_file(folder, f"bloom-{i}") == want, f"bloom-{i}"
    sums = "".join(xxhash.xxh64_hexdigest(bloom, seed=0) for bloom in blooms)
    assert block.meta["bloomXXH64"] == sums
    names = {"data", "index", "meta.json", *(f"bloom-{i}" for i in range(len(blooms)))}
    assert set(os.listdir(folder)) == names
    assert block.meta["size"] == os.path.getsize(os.path.join(folder, "data"))
    return block


# -- another writer -------------------------------------------------------------------------------


def deflate(encoding, plain):
    if encoding == "none":
        return plain
    if encoding == "gzip":
        return bytes(cramjam.gzip.compress(plain))
    if encoding == "zstd":
        return bytes(cramjam.zstd.compress(plain))
    if encoding in ("snappy", "s2"):
        return bytes(cramjam.snappy.compress(plain))
    return bytes(cramjam.lz4.compress(plain))


def pack_object(trace_id, data, data_encoding="v2"):
    """data: a list of TracesData; each is a segment."""
    body = b""
    for segment in data:
        raw = segment.SerializeToString()
        size, n = b"", len(raw)
        while True:
            size += bytes([n & 127 | (128 if n > 127 else 0)])
            n >>= 7
            if not n:
                break
        body += b"\x0a" + size + raw
    if data_encoding == "v2":
        spans = [sp for d in data for rs in d.resource_spans for ss in rs.scope_spans for sp in ss.spans]
        start = min((sp.start_time_unix_nano for sp in spans), default=0) // 10**9
        end = max((sp.end_time_unix_nano for sp in spans), default=0) // 10**9
        body = struct.pack("<II", start, end) + body
    return struct.pack("<II", 24 + len(body), 16) + trace_id + body


def write_block(
    root,
    traces,
    tenant="single-tenant",
    block_id="0b10c000-0000-4000-8000-000000000001",
    encoding="zstd",
    data_encoding="v2",
    page_size=70,
    page_bytes=1,
    shard_bytes=20,
    stored=None,
    meta=None,
):
    """A block of {id: [TracesData]} with other sizes than ours. `stored` may replace the stored
    pages, `meta` keys of meta.json (None takes one out). Returns the folder."""
    folder = os.path.join(root, tenant, block_id)
    os.makedirs(folder)
    pages, plain = [], b""
    for trace_id in sorted(traces):
        plain += pack_object(trace_id, traces[trace_id], data_encoding)
        if len(plain) > page_bytes:
            pages.append((trace_id, plain))
            plain = b""
    if plain:
        pages.append((max(traces), plain))
    records, data = [], b""
    for n, (last, page) in enumerate(pages):
        body = stored(n, page) if stored else deflate(encoding, page)
        records.append((last, len(data), 6 + len(body)))
        data += struct.pack("<IH", 6 + len(body), 0) + body
    blooms = make_blooms(list(traces), shard_bytes=shard_bytes)
    what = {
        "format": "v2",
        "blockID": block_id,
        "tenantID": tenant,
        "startTime": "2026-01-01T00:00:00Z",
        "endTime": "2026-01-01T01:00:00.5+01:00",
        "totalObjects": len(traces),
        "encoding": encoding,
        "indexPageSize": page_size,
        "totalRecords": len(records),
        "dataEncoding": data_encoding,
        "bloomShards": len(blooms),
        **(meta or {}),
    }
    files = {"data": data, "index": make_index(records, page_size)}
    files.update({f"bloom-{i}": bloom for i, bloom in enumerate(blooms)})
    files["meta.json"] = json.dumps({k: v for k, v in what.items() if v is not None}).encode()
    for name, content in files.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(content)
    return folder
