"""The query API when it is hard: damage, traces larger than allowed, many clients, slow ones, and
blocks that are cut and published meanwhile."""

import glob
import os
import socket
import threading
import time

import pytest
import requests

import otlp
import tempo
from mill import SANITIZED, wait_for


def trace_id_of(sent):
    return next(otlp.spans_of(sent)).trace_id


def flush(mill):
    answer = requests.post(mill.url("query", "/flush"), timeout=30)
    assert (answer.status_code, answer.text) == (200, "flushed\n")


def split_trace(n):
    """n requests with one span each, all of one trace."""
    out = [otlp.request() for _ in range(n)]
    tid = trace_id_of(out[0])
    for req in out:
        for sp in otlp.spans_of(req):
            sp.trace_id = tid
    return tid, out


@pytest.mark.parametrize("part", ["data", "index", "bloom-0", "meta.json"])
@pytest.mark.parametrize("how", ["gone", "cut", "zeros"])
def test_damaged_block(make_mill, part, how):
    """One of two blocks is damaged: what the other has is returned, and that this is not all is
    said; 404 is not, because not every place could be asked."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "1h"}}})
    tid, (first, second) = split_trace(2)
    blocks = []
    for req in (first, second):
        otlp.send_grpc(mill, req)
        flush(mill)
        blocks.append(set(glob.glob(os.path.join(mill.data, "single-tenant", "*"))))
    (damaged,) = blocks[1] - blocks[0]
    mill.stop()
    path = os.path.join(damaged, part)
    if how == "gone":
        os.unlink(path)
    else:
        with open(path, "r+b") as f:
            size = os.path.getsize(path)
            f.write(bytes(size)) if how == "zeros" else f.truncate(size // 2)
    mill.start()
    if (part, how) == ("meta.json", "gone"):  # then it is no block: a crash leaves such a folder
        otlp.assert_same(tempo.get(mill, tid), first)
        return
    for form in tempo.FORMS:
        got, complete, message = tempo.get_partial(mill, tid, form)
        otlp.assert_same(got, first)
        assert not complete
        if form.startswith("v2"):
            assert "1 of 2 places could not be read" in message, message
    assert os.path.basename(damaged) in mill.stderr(), "a v1 answer has no room for a message"
    for form in tempo.FORMS:
        answer = tempo.ask_form(mill, "f" * 32, form)
        if part in ("data", "index"):  # the filter rules the block out
            assert answer.status_code == (200 if form.startswith("v2") else 404)
        elif form.startswith("v2"):
            got, complete, message = tempo.get_partial(mill, "f" * 32, form)
            assert got is None and not complete and message
        else:
            assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"
            assert "incomplete: " in answer.text
    assert tempo.get(mill, otlp.new_id(16), tenant="other") is None


def test_too_large_trace(make_mill):
    """Over max_trace_bytes: 422 of v1; v2 answers with a part and says so."""
    mill = make_mill(overlay={"extensions": {"query": {"max_trace_bytes": "1MiB"}}})
    tid = otlp.new_id(16)
    for _ in range(4):
        req = otlp.request(n_spans=1000, attributes=4, size=60)
        for sp in otlp.spans_of(req):
            sp.trace_id = tid
        otlp.send_grpc(mill, req)
    flush(mill)
    for form in tempo.FORMS:
        if form.startswith("v2"):
            got, complete, message = tempo.get_partial(mill, tid, form)
            assert 0 < len(otlp.span_ids(got)) < 4000
            assert not complete and "exceeds max size" in message
        else:
            answer = tempo.ask_form(mill, tid, form)
            assert answer.status_code == 422 and "exceeds max size" in answer.text


def test_the_same_bytes_wherever_the_spans_lie(make_mill):
    """Live, in one block and live, in two blocks, after a restart: one answer."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "1h"}}})
    sent = otlp.kitchen_sink()
    tid = trace_id_of(sent)
    otlp.send_grpc(mill, sent)
    for rs in sent.resource_spans:  # the same spans again, in other company
        part = type(sent)(resource_spans=[rs])
        otlp.send_http(mill, part)
    ask = [tempo.ask_form(mill, tid, form).content for form in tempo.FORMS]
    otlp.assert_same(tempo.get(mill, tid), sent)
    flush(mill)
    otlp.send_grpc(mill, sent)
    assert strip_metrics(ask) == strip_metrics(
        [tempo.ask_form(mill, tid, form).content for form in tempo.FORMS]
    )
    mill.stop()
    mill.start()
    assert strip_metrics(ask) == strip_metrics(
        [tempo.ask_form(mill, tid, form).content for form in tempo.FORMS]
    )


def strip_metrics(answers):
    """inspectedBytes tells how much was read, which differs."""
    out = []
    for form, content in zip(tempo.FORMS, answers):
        if form == "v2 json":
            content = content[: content.index(b',"metrics"')]
        elif form == "v2 protobuf":
            content = tempo.v2_message(content)[0].SerializeToString(deterministic=True)
        out.append(content)
    return out


def test_several_tenants_at_once(make_mill):
    mill = make_mill()
    tid, parts = split_trace(3)
    for tenant, req in zip("abc", parts):
        otlp.send_grpc(mill, req, tenant=tenant)
    both = type(parts[0])()
    for req in parts[:2]:
        both.MergeFrom(req)
    for form in tempo.FORMS:
        otlp.assert_same(tempo.get(mill, tid, form, tenant="a|b"), both)
    otlp.assert_same(tempo.get(mill, tid, tenant="b|a|nobody|a"), both)
    otlp.assert_same(tempo.get(mill, tid, tenant="nobody|c"), parts[2])


def test_reads_while_blocks_are_cut(make_mill):
    """64 readers ask for what was just acknowledged, while sections become blocks ten times a
    second: nothing is missing or twice at any moment."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "100ms"}}})
    acked, problems, stop = [], [], threading.Event()

    def write():
        client = otlp.Grpc(mill.ports["grpc"])
        while not stop.is_set():
            req = otlp.request(n_spans=5)
            client.call(req, timeout=30)
            acked.append((trace_id_of(req).hex(), 5))
        client.close()

    def read(n):
        session = requests.Session()
        while not stop.is_set():
            if not acked:
                continue
            tid, want = acked[-1 - (n * n) % len(acked)]
            answer = session.get(
                mill.url("query", "/api/traces/" + tid),
                headers={"Accept": "application/protobuf"},
                timeout=30,
            )
            ids = (
                otlp.span_ids(tempo.trace.TracesData.FromString(answer.content))
                if answer.status_code == 200
                else []
            )
            if answer.status_code != 200 or len(ids) != want or len(set(ids)) != want:
                problems.append(f"{tid}: {answer.status_code}, {len(ids)} spans: {answer.text[:99]}")

    threads = [threading.Thread(target=write) for _ in range(2)]
    threads += [threading.Thread(target=read, args=(n,)) for n in range(64)]
    for t in threads:
        t.start()
    time.sleep(4)
    stop.set()
    for t in threads:
        t.join(30)
    assert not problems, f"{len(problems)} wrong answers:\n" + "\n".join(problems[:10])
    assert len(acked) > 10


def test_many_flushes(make_mill):
    """Flushes do not queue up in front of look-ups, and each returns with its spans in blocks."""
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "1h"}}})
    statuses = []

    def one():
        req = otlp.request()
        otlp.send_grpc(mill, req)
        answer = requests.post(mill.url("query", "/flush"), timeout=30)
        statuses.append((answer.status_code, answer.text))

    threads = [threading.Thread(target=one) for _ in range(24)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        assert tempo.get(mill, otlp.new_id(16)) is None
    assert set(statuses) == {(200, "flushed\n")} and len(statuses) == 24
    assert mill.metric("spanmill_blocks_listed") >= 1
    mill.kill()
    assert glob.glob(os.path.join(mill.data, "single-tenant", "*", "meta.json"))


def ask_and_leave(mill, tid, accept="application/json", shut=False):
    """A connection on which the answer is not read."""
    s = socket.create_connection(("127.0.0.1", mill.ports["query"]), timeout=10)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.sendall(f"GET /api/traces/{tid} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
    if shut:
        s.shutdown(socket.SHUT_WR)
    return s


def test_a_half_closed_client_is_answered(make_mill):
    mill = make_mill()
    sent = otlp.request()
    otlp.send_grpc(mill, sent)
    s = ask_and_leave(mill, trace_id_of(sent).hex(), "application/protobuf", shut=True)
    got = b""
    while chunk := s.recv(65536):
        got += chunk
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    otlp.assert_same(tempo.trace.TracesData.FromString(body), sent)


@pytest.mark.skipif(SANITIZED, reason="memory figures of a sanitized program tell nothing")
def test_slow_readers_hold_what_the_budget_allows(make_mill):
    """Sixty readers and more that take nothing: answers wait in memory, but within the budget; spans are
    still taken, and other look-ups told to come again."""
    limit = 100
    mill = make_mill(
        overlay={"processors": {"memory_limiter": {"limit_mib": limit}}},
    )
    tid = otlp.new_id(16)
    for _ in range(10):  # answers larger than what sockets hold by themselves
        req = otlp.request(n_spans=1000, attributes=10)
        for sp in otlp.spans_of(req):
            sp.trace_id = tid
        otlp.send_grpc(mill, req)
    readers = []

    def one_more_is_refused():
        """Of many at once some were refused themselves, so those that wait may be too few."""
        readers.append(ask_and_leave(mill, tid.hex()))
        answer = requests.get(mill.url("query", "/api/traces/" + tid.hex()), timeout=30)
        return answer.status_code == 503

    try:
        for _ in range(60):
            readers.append(ask_and_leave(mill, tid.hex()))
        wait_for("a refusal for want of memory", one_more_is_refused)
        sent = otlp.request()
        otlp.send_grpc(mill, sent)
        assert mill.proc_status("VmHWM") <= limit * 1.1 * 2**20
    finally:
        for s in readers:
            s.close()
    wait_for(
        "memory to come back",
        lambda: requests.get(mill.url("query", "/api/traces/" + tid.hex()), timeout=30).status_code
        == 200,
        timeout=30,
    )
    otlp.assert_same(tempo.get(mill, trace_id_of(sent)), sent)


def test_a_large_answer_is_whole(make_mill):
    """100,000 spans of one trace, over and over in retries: each once."""
    mill = make_mill()
    tid, want = otlp.new_id(16), set()
    client = otlp.Grpc(mill.ports["grpc"])
    for i in range(50):
        req = otlp.request(n_spans=2000, attributes=0)
        for sp in otlp.spans_of(req):
            sp.trace_id = tid
            want.add(sp.span_id)
        for _ in range(1 + i % 2):
            client.call(req, timeout=30)
    client.close()
    got = otlp.span_ids(tempo.get(mill, tid, "v2 protobuf"))
    assert len(got) == 100_000 and set(got) == want


def test_look_ups_are_counted_and_cached(make_mill):
    mill = make_mill(overlay={"exporters": {"blocks": {"max_block_age": "1h"}}})
    for _ in range(3):
        otlp.send_grpc(mill, otlp.request())
        flush(mill)
    lookups = "spanmill_blocks_cache_lookups"
    for _ in range(5):
        assert tempo.get(mill, otlp.new_id(16)) is None
    assert mill.metric(lookups, kind="bloom", result="miss") == 3
    assert mill.metric(lookups, kind="bloom", result="hit") == 12
    assert 0 < mill.metric("spanmill_blocks_cache_bytes") < 10_000
    assert mill.metric("spanmill_query_traces", result="not_found") == 5
