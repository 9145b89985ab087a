"""Reading segment logs and v2 blocks without the program: which spans lie at which bytes. After
docs/formats/segment-log.md, batch-record.md and tempo-v2-block.md."""

import ctypes
import os
import struct

from opentelemetry.proto.trace.v1 import trace_pb2 as trace

HEADER, FRAME = 64, 24


class Stretch:
    """Bytes [offset, end) of a file and the ids of the spans in them."""

    def __init__(self, offset, end, spans):
        self.offset, self.end, self.spans = offset, end, spans


def span_ids(traces_data):
    got = trace.TracesData.FromString(traces_data)
    return {s.span_id for r in got.resource_spans for ss in r.scope_spans for s in ss.spans}


def records(path):
    """The records of a whole segment, in order."""
    with open(path, "rb") as f:
        data = f.read()
    out, at = [], HEADER
    while data[at : at + 4] == b"SpR1":
        (size,) = struct.unpack_from("<I", data, at + 4)
        payload = data[at + FRAME : at + FRAME + size]
        (trailer,) = struct.unpack_from("<H", payload, 2)
        request = payload[16 + payload[1] : size - trailer]
        out.append(Stretch(at, at + FRAME + size, span_ids(request)))
        at += (FRAME + size + 7) // 8 * 8
    return out


def data_end(path):
    """Where a segment's records end."""
    found = records(path)
    return found[-1].end if found else HEADER


def unzstd(data):
    lib = ctypes.CDLL("libzstd.so.1")
    lib.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
    lib.ZSTD_decompress.restype = ctypes.c_size_t
    size = lib.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data)))
    out = ctypes.create_string_buffer(size)
    n = lib.ZSTD_decompress(out, ctypes.c_size_t(size), data, ctypes.c_size_t(len(data)))
    assert n == size, "not a zstd frame of known size"
    return out.raw


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def object_spans(body):
    """The span ids of an object's segments (TraceBytes behind start and end)."""
    out, at = set(), 8
    while at < len(body):
        size, at = varint(body, at + 1)
        out |= span_ids(body[at : at + size])
        at += size
    return out


def pages(path):
    """The pages of a block's data (zstd)."""
    with open(path, "rb") as f:
        data = f.read()
    out, at = [], 0
    while at < len(data):
        total, header = struct.unpack_from("<IH", data, at)
        plain, spans, o = unzstd(data[at + 6 + header : at + total]), set(), 0
        while o < len(plain):
            (size,) = struct.unpack_from("<I", plain, o)
            spans |= object_spans(plain[o + 24 : o + size])
            o += size
        out.append(Stretch(at, at + total, spans))
        at += total
    return out


def block_spans(folder):
    data = os.path.join(folder, "data")
    return set().union(*(p.spans for p in pages(data))) if os.path.exists(data) else set()
