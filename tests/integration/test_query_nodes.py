"""Query nodes that ask others: builders for live traces, a front end its queriers.

Builders are real ones (all-in-one with sections that stay open), killed, frozen and started again;
for what no Spanmill would answer there is `liar`, a server that says what the test wants.
"""

import os
import signal
import socket
import threading
import time
from concurrent import futures

import pytest
import requests
import yaml

import otlp
import tempo
from mill import ROOT, merged, query_node, run, wait_for

MISSING = "0123456789abcdef0123456789abcdef"
OPEN = {"exporters": {"blocks": {"max_block_age": "10m", "flush_on_shutdown": False}}}
SLOWEST = 20.0  # a builder that does not answer has 1 s; the rest is for a busy machine


def at(mill):
    return f"127.0.0.1:{mill.ports['query']}"


def make_builder(make_mill, **overlay):
    return make_mill(overlay=merged(OPEN, overlay))


def node(make_mill, data, builders=(), queriers=(), **keys):
    """A query node over the blocks of a folder; with queriers and no folder a front end."""
    query = {"builders": list(builders), "queriers": list(queriers), "builder_timeout": "20s", **keys}

    def config(ports):
        c = query_node(ports, str(data))
        c["extensions"]["query"].update(query)
        c["extensions"]["trace_store"]["blocklist_poll"] = "1s"
        if data is None:
            del c["extensions"]["trace_store"]
            c["service"]["extensions"] = ["query"]
        return c

    return make_mill(config)


def trace_id_of(sent):
    return next(otlp.spans_of(sent)).trace_id


def send(mill, **keys):
    sent = otlp.request(**keys)
    otlp.send_grpc(mill, sent)
    return sent


def timed(mill, trace_id, form="v2 protobuf"):
    """(answer, seconds)"""
    begin = time.monotonic()
    answer = tempo.ask_form(mill, trace_id, form)
    return answer, time.monotonic() - begin


def partial(mill, trace_id):
    """The message of an incomplete answer, which came in bounded time."""
    answer, took = timed(mill, trace_id)
    assert answer.status_code == 200 and took < SLOWEST, (answer.status_code, took)
    _, status, message = tempo.v2_message(answer.content)
    assert status == 1, "complete"
    return message


@pytest.mark.parametrize("prefix", ["", "dns+"])
def test_a_live_span_is_found_through_a_query_node(make_mill, tmp_path, prefix):
    builder = make_builder(make_mill)
    query = node(make_mill, tmp_path / "empty", [prefix + at(builder).replace("127.0.0.1", "localhost")])
    sent = send(builder)
    for form in tempo.FORMS:
        otlp.assert_same(tempo.get(query, trace_id_of(sent), form), sent)
    assert tempo.ask_form(query, MISSING, "v1 json").status_code == 404
    assert tempo.ask(query, f"/api/traces/{trace_id_of(sent).hex()}", tenant="other").status_code == 404
    assert query.metric("spanmill_query_peer_calls", peer="builder", result="ok") >= 7


def test_tenants_are_passed_on(make_mill, tmp_path):
    builder = make_builder(make_mill)
    query = node(make_mill, tmp_path / "empty", [at(builder)])
    one, two = otlp.request(), otlp.request()
    otlp.send_grpc(builder, one, metadata=[("x-scope-orgid", "one")])
    otlp.send_grpc(builder, two, metadata=[("x-scope-orgid", "two")])
    for sent in one, two:
        otlp.assert_same(tempo.get(query, trace_id_of(sent), tenant="one|two"), sent)
    assert tempo.get(query, trace_id_of(one), tenant="two") is None


def test_a_trace_of_live_spans_and_blocks_is_one(make_mill):
    builder = make_builder(make_mill)
    query = node(make_mill, builder.data, [at(builder)])
    sent = otlp.request(n_spans=4)
    spans = sent.resource_spans[0].scope_spans[0].spans
    first, second = type(sent)(), type(sent)()
    first.CopyFrom(sent)
    second.CopyFrom(sent)
    del first.resource_spans[0].scope_spans[0].spans[2:]
    del second.resource_spans[0].scope_spans[0].spans[:2]
    assert len(spans) == 4
    otlp.send_grpc(builder, first)
    assert requests.post(builder.url("query", "/flush"), timeout=30).status_code == 200
    otlp.send_grpc(builder, second)
    otlp.assert_same(tempo.get(query, trace_id_of(sent)), sent)


def test_a_section_that_becomes_a_block_is_never_missed(make_mill):
    """The query node polls once a minute: it must notice by itself that its list is too old."""
    builder = make_builder(make_mill, extensions={"trace_store": {"blocklist_poll": "100ms"}})
    query = node(make_mill, builder.data, [at(builder)])
    query.stop()
    query.config["extensions"]["trace_store"]["blocklist_poll"] = "60s"
    query.write_config()
    query.start()
    for _ in range(5):
        sent = send(builder)
        asked = 0
        deadline = time.monotonic() + 0.5  # five polls of the builder
        flusher = threading.Thread(
            target=requests.post, args=(builder.url("query", "/flush"),), kwargs={"timeout": 10}
        )
        flusher.start()
        while time.monotonic() < deadline or not asked:
            otlp.assert_same(tempo.get(query, trace_id_of(sent)), sent)
            asked += 1
        flusher.join()


def test_a_builder_that_is_away_is_named(make_mill, tmp_path):
    builder = make_builder(make_mill)
    query = node(make_mill, tmp_path / "empty", [at(builder)])
    sent = send(builder)
    tid = trace_id_of(sent)
    assert tempo.get(query, tid)
    builder.kill()
    assert f"builder {at(builder)}" in partial(query, tid)
    answer, _ = timed(query, tid, "v1 json")
    assert answer.status_code == 503 and f"builder {at(builder)}" in answer.text, answer.text
    assert "Retry-After" in answer.headers
    builder.start()
    otlp.assert_same(tempo.settled(query, tid), sent)


def test_a_frozen_builder_costs_a_bounded_time(make_mill):
    """What is in blocks is found meanwhile, 206; and a second look-up waits less."""
    builder = make_builder(make_mill)
    query = node(make_mill, builder.data, [at(builder)], builder_timeout="1s")
    sent = send(builder)
    assert requests.post(builder.url("query", "/flush"), timeout=30).status_code == 200
    assert tempo.whole(query, trace_id_of(sent))
    builder.process.send_signal(signal.SIGSTOP)
    try:
        answer, took = timed(query, trace_id_of(sent), "v1 protobuf")
        assert answer.status_code == 206 and 0.9 < took < SLOWEST, took
        otlp.assert_same(tempo.parse("v1 protobuf", answer), sent)
        assert f"builder {at(builder)}" in partial(query, trace_id_of(sent))
        took = min(timed(query, MISSING)[1] for _ in range(3))
        assert took < 0.9, f"every look-up waits in full: {took}"
    finally:
        builder.process.send_signal(signal.SIGCONT)
    wait_for("a complete answer", lambda: tempo.ask_form(query, trace_id_of(sent), "v1 json").status_code == 200)


def test_a_name_without_an_address(make_mill, tmp_path):
    query = node(make_mill, tmp_path / "empty", ["dns+nobody.invalid:3200"])
    assert "dns+nobody.invalid:3200: no address" in partial(query, MISSING)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"builders": ["builder"]}, 'builders: "builder": no port behind the host'),
        ({"builders": ["http://b:3200"]}, 'builders: "http://b:3200"'),
        ({"queriers": ["dns+q:0"]}, 'queriers: "q:0"'),
        ({"builder_timeout": "0s"}, "builder_timeout: must be from 1ms to 20s"),
        ({"querier_timeout": "1m"}, "querier_timeout: must be from 1ms to 20s"),
    ],
)
def test_mistakes_are_told(tmp_path, keys, words):
    config = query_node({"query": 1, "metrics": 2}, "data")
    config["extensions"]["query"].update(keys)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    status, _, err = run("validate", "--config", str(path))
    assert status == 1 and words in err and len(err.splitlines()) == 1, err


def test_a_front_end_needs_no_store_but_others_do(tmp_path):
    config = query_node({"query": 1, "metrics": 2}, "data")
    del config["extensions"]["trace_store"]
    config["service"]["extensions"] = ["query"]
    path = tmp_path / "config.yaml"
    for queriers, want in (["q:3200"], 0), ([], 1):
        config["extensions"]["query"]["queriers"] = queriers
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        status, _, err = run("validate", "--config", str(path))
        assert status == want, err
    assert "trace_store" in err


# ---- a front end


def test_a_front_end_merges_what_its_queriers_have(make_mill):
    """Twelve blocks with a span each of one trace, and one live span: all are there, whatever
    querier is asked for which block."""
    builder = make_builder(make_mill, extensions={"trace_store": {"blocklist_poll": "200ms"}})
    sent = otlp.request(n_spans=13)
    for i in range(13):
        part = type(sent)()
        part.CopyFrom(sent)
        spans = part.resource_spans[0].scope_spans[0].spans
        spans[0].CopyFrom(spans[i])
        del spans[1:]
        otlp.send_grpc(builder, part)
        if i < 12:
            requests.post(builder.url("query", "/flush"), timeout=30).raise_for_status()
    queriers = [node(make_mill, builder.data) for _ in range(3)]
    front = node(make_mill, None, [at(builder)], [at(q) for q in queriers])
    tid = trace_id_of(sent)
    for form in tempo.FORMS:
        otlp.assert_same(tempo.get(front, tid, form), sent)
    assert tempo.get(front, MISSING) is None
    for q in queriers:
        assert 0 < q.metric("spanmill_query_traces") <= 7

    # one querier away: the others are asked for its blocks
    queriers[0].kill()
    otlp.assert_same(tempo.settled(front, tid), sent)
    # two away: the last one is asked for all blocks, not the other dead one
    queriers[1].stop()
    otlp.assert_same(tempo.settled(front, tid), sent)
    # a front end that knows no builders has them asked by a querier
    queriers[1].config["extensions"]["query"]["builders"] = [at(builder)]
    queriers[1].write_config()
    queriers[1].start()
    through = node(make_mill, None, [], [at(queriers[1])])
    otlp.assert_same(tempo.get(through, tid), sent)

    # all away: what is live is found, and the answer says whom it misses
    queriers[1].kill()
    queriers[2].kill()
    got, complete, message = tempo.get_partial(front, tid, "v2 protobuf")
    assert not complete and "querier 127.0.0.1:" in message
    wait_for(
        "the live span alone: others count as live for two polls after they became a block",
        lambda: len(otlp.span_ids(tempo.get_partial(front, tid, "v2 protobuf")[0])) == 1,
    )
    assert tempo.ask_form(front, tid, "v1 json").status_code == 206
    assert tempo.ask_form(front, MISSING, "v1 json").status_code == 503


def test_a_frozen_querier_is_stood_in_for(make_mill):
    builder = make_builder(make_mill)
    sent = send(builder)
    requests.post(builder.url("query", "/flush"), timeout=30).raise_for_status()
    queriers = [node(make_mill, builder.data) for _ in range(2)]
    front = node(make_mill, None, [at(builder)], [at(q) for q in queriers], querier_timeout="1s")
    assert tempo.settled(front, trace_id_of(sent))
    queriers[0].process.send_signal(signal.SIGSTOP)
    try:
        _, took = timed(front, trace_id_of(sent), "v1 protobuf")
        assert took < SLOWEST
        # the other one, too, has a second only
        otlp.assert_same(tempo.settled(front, trace_id_of(sent)), sent)
        assert tempo.settled(front, MISSING) is None
    finally:
        queriers[0].process.send_signal(signal.SIGCONT)


def test_a_trace_over_the_limit_is_422_through_a_front_end(make_mill):
    builder = make_builder(make_mill)
    sent = send(builder, n_spans=200, attributes=20, size=500)
    requests.post(builder.url("query", "/flush"), timeout=30).raise_for_status()
    querier = node(make_mill, builder.data, max_trace_bytes="1MiB")
    front = node(make_mill, None, [], [at(querier)], max_trace_bytes="1MiB")
    tid = trace_id_of(sent)
    for mill in querier, front:
        answer = tempo.ask_form(mill, tid, "v1 json")
        assert answer.status_code == 422 and "max size" in answer.text, answer.text[:200]
        got, complete, message = tempo.get_partial(mill, tid, "v2 protobuf")
        assert not complete and "max size" in message
        assert 0 < len(list(otlp.spans_of(got))) < 200


def test_the_sample_configuration(make_mill):
    """configs/front-end.yaml on ports of our own."""
    builder = make_builder(make_mill)
    querier = node(make_mill, builder.data)

    def config(ports):
        with open(os.path.join(ROOT, "configs", "front-end.yaml"), encoding="utf-8") as f:
            c = yaml.safe_load(f)
        c["extensions"]["query"]["endpoint"] = f"127.0.0.1:{ports['query']}"
        c["extensions"]["health_check"]["endpoint"] = f"127.0.0.1:{ports['health']}"
        c["service"]["telemetry"] = {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}}
        return c

    front = make_mill(config, env={"QUERIERS": at(querier), "BUILDERS": at(builder)})
    stored = send(builder)
    requests.post(builder.url("query", "/flush"), timeout=30).raise_for_status()
    live = send(builder)
    for sent in stored, live:
        otlp.assert_same(tempo.get(front, trace_id_of(sent)), sent)
    assert tempo.get(front, MISSING) is None


def test_a_front_end_has_nothing_of_its_own(make_mill):
    front = node(make_mill, None, [], ["127.0.0.1:1"])
    for path in "/querier/api/traces/1", "/querier/api/v2/traces/1":
        assert tempo.ask(front, path).status_code == 501
    assert requests.post(front.url("query", "/flush"), timeout=30).status_code == 501


# ---- /querier/api/traces/<id>


def test_what_the_querier_path_takes(make_mill):
    builder = make_builder(make_mill)
    block = send(builder)
    requests.post(builder.url("query", "/flush"), timeout=30).raise_for_status()
    query = node(make_mill, builder.data)
    live = send(builder)

    def found(mill, sent, **params):
        path = "/querier/api/traces/" + trace_id_of(sent).hex()
        answer = tempo.ask(mill, path, accept="application/protobuf", **params)
        assert answer.status_code == 200, answer.text
        return bool(tempo.v2_message(answer.content)[0].resource_spans)

    zero, half, most = (c * 8 + "-0000-0000-0000-000000000000" for c in "08f")
    top = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    assert found(query, block) and found(query, block, mode="blocks")
    assert not found(query, block, mode="ingesters"), "it did not publish that"
    assert found(builder, live, mode="ingesters") and not found(builder, live, mode="blocks")
    halves = [
        found(query, block, mode="blocks", blockStart=s, blockEnd=e)
        for s, e in ((zero, "7fffffff-ffff-ffff-ffff-ffffffffffff"), ("80000000" + half[8:], top))
    ]
    assert sorted(halves) == [False, True]
    assert found(query, block, mode="blocks", blockStart=zero, blockEnd=top, maxListAge=0)
    for bad in (
        {"mode": "some"},
        {"blockStart": "x"},
        {"blockEnd": most[:-1]},
        {"maxListAge": "-1"},
        {"maxListAge": "1s"},
    ):
        answer = tempo.ask(query, "/querier/api/traces/1", **bad)
        assert answer.status_code == 400 and next(iter(bad)) in answer.text, answer.text


# ---- servers that are none of ours


class Liar:
    """A TCP server; answer(connection, request) says what comes back, and the connection ends."""

    def __init__(self, answer):
        self.answer = answer
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.stopping = False
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while not self.stopping:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    got = connection.recv(65536)
                    if not got:
                        return
                    request += got
                self.answer(connection, request)
            except OSError:
                pass

    def stop(self):
        self.stopping = True
        self.socket.close()


@pytest.fixture
def liar():
    made = []

    def make(answer):
        made.append(Liar(answer))
        return made[-1]

    yield make
    for one in made:
        one.stop()


PROTOBUF = "application/protobuf"


def http(status="200 OK", content_type=PROTOBUF, body=b"", length=None, **headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def field(number, data):
    size, out = len(data), b""
    while size > 127:
        out += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + out + bytes([size]) + data


def a_foreign_trace(_):
    return http(body=field(1, otlp.request().SerializeToString()))


def endless(connection):
    connection.sendall(
        f"HTTP/1.1 200 OK\r\nContent-Type: {PROTOBUF}\r\n\r\n".encode() + b"\x0a\xff\xff\xff\xff\x07"
    )
    while True:
        connection.sendall(b"x" * 65536)


def drip(connection):
    connection.sendall(http(body=b"", length=100000))
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def endless_headers(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: " + b"y" * 8000 + b"\r\n")


def half_close(connection):
    connection.shutdown(socket.SHUT_WR)
    time.sleep(30)


LIES = {
    "another content type": (http(content_type="application/json", body=b"{}"), "application/json"),
    "no content type": (http(content_type=None, body=b"\x0a\x00"), "without a Content-Type"),
    "an oversized answer": (http(body=b"x", length=1 << 40), "over"),
    "protobuf cut short": (http(body=field(1, b"\x0a\x05\x12\x03\x12\x01\xff")[:-2]), "cut short"),
    "a body cut short": (http(body=b"\x0a\x00", length=50), ""),
    "a damaged trace": (http(body=field(1, b"\x0a\x05\x12\x03\x12\x01\xff")), "damaged"),
    "an empty body": (http(), "no trace"),
    "a redirect": (http("302 Found", "text/html", b"", Location="http://127.0.0.1:1/"), "answered 302"),
    "500": (http("500 Oops", "text/plain", b"it broke"), "answered 500: it broke"),
    "a page for 404": (http("404 Not Found", "text/html", b"<html>nothing"), "answered 404"),
    "404 in protobuf": (http("404 Not Found", PROTOBUF, b"\x0a\x00"), "answered 404"),
    "another trace": (a_foreign_trace, "another trace"),
    "an endless body": (endless, "over"),
    "a dripping body": (drip, ""),
    "endless headers": (endless_headers, ""),
    "no HTTP": (b"220 mail.example.com ESMTP\r\n", ""),
    "a half-closed connection": (half_close, ""),
    "nothing": (b"", ""),
    "a live age of nonsense": (http(body=b"\x0a\x00", X_Spanmill_Live_Ms="soon"), "no number"),
}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """A builder that tells the truth, for a whole file."""
    from mill import Mill

    mill = Mill(tmp_path_factory.mktemp("truth"), overlay=OPEN)
    try:
        yield mill.start()
        mill.stop()
    finally:
        mill.kill()


def say(lie):
    def answer(connection, request):
        if isinstance(lie, bytes):
            connection.sendall(lie)
        elif lie is a_foreign_trace:
            connection.sendall(lie(request))
        else:
            lie(connection)

    return answer


@pytest.mark.parametrize("name", LIES)
def test_a_builder_that_lies_costs_its_own_part_only(make_mill, tmp_path, truth, liar, name):
    """What an honest builder holds is found; the answer is incomplete, names the liar, and comes in
    bounded time and memory. An id that nobody has is never a 404."""
    lie, words = LIES[name]
    bad = liar(say(lie))
    query = node(
        make_mill, tmp_path / "empty", [at(truth), f"127.0.0.1:{bad.port}"], max_trace_bytes="2MiB",
        builder_timeout="1s",
    )  # fmt: skip
    sent = send(truth)
    before = query.proc_status("VmHWM")

    def honest_part():
        """206; 503 when the honest one, too, was slower than its second."""
        answer, took = timed(query, trace_id_of(sent), "v1 protobuf")
        assert answer.status_code in (206, 503) and took < SLOWEST, (answer.status_code, took)
        return answer.status_code == 206 and answer

    answer = wait_for("what the honest one holds", honest_part)
    otlp.assert_same(tempo.parse("v1 protobuf", answer), sent)
    message = partial(query, trace_id_of(sent))
    assert f"builder 127.0.0.1:{bad.port}: " in message and words in message, message
    assert message.isascii() and message.isprintable()
    assert timed(query, MISSING, "v1 json")[0].status_code == 503
    grown = query.proc_status("VmHWM") - before
    assert grown < 40 << 20, f"{grown >> 20} MiB more"  # libcurl takes some 10 when it is loaded
    wait_for(
        "memory to be given back",
        lambda: query.metric("spanmill_memory_bytes", what="budget_used") < 1 << 20,
    )


def test_many_look_ups_wait_beside_each_other(make_mill, tmp_path, liar):
    """This builder answers when twelve are waiting: fewer pool threads than that, and nobody would be
    served while it thinks."""
    together = threading.Barrier(12)

    def answer(connection, _):
        together.wait(19)
        connection.sendall(http(body=field(1, b"")))

    slow = liar(answer)
    query = node(
        make_mill, tmp_path / "empty", [f"127.0.0.1:{slow.port}"], builder_timeout="20s"
    )
    with futures.ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(tempo.ask_form, query, MISSING, "v1 json") for _ in range(12)]
        assert requests.get(query.url("query", "/ready"), timeout=30).status_code == 200
        assert {a.result().status_code for a in asked} == {404}


def test_a_slow_querier_without_a_substitute_is_waited_for(make_mill, liar):
    """One that let a call time out has little time where another can be asked. Alone it has all of it:
    a bucket that stumbles would be an outage of ten seconds else."""
    asked = []

    def answer(connection, _):
        asked.append(1)
        time.sleep(5 if len(asked) == 1 else 0.6)
        connection.sendall(http(body=field(1, b"")))

    front = node(
        make_mill, None, [], [f"127.0.0.1:{liar(answer).port}"], querier_timeout="3s"
    )
    # of live data it is asked first; that, too, counts
    assert timed(front, MISSING, "v1 json")[0].status_code == 503
    assert 404 in [timed(front, MISSING, "v1 json")[0].status_code for _ in range(3)]


def test_a_lying_querier_is_stood_in_for(make_mill, truth, liar):
    """Half of the blocks are asked of a liar, and then of an honest querier."""
    sent = send(truth)
    requests.post(truth.url("query", "/flush"), timeout=30).raise_for_status()
    honest = node(make_mill, truth.data)
    for name in ("500", "another trace", "protobuf cut short", "a page for 404"):
        bad = liar(say(LIES[name][0]))
        front = node(make_mill, None, [], [f"127.0.0.1:{bad.port}", at(honest)])
        for _ in range(2):
            otlp.assert_same(tempo.settled(front, trace_id_of(sent)), sent)
        assert tempo.settled(front, MISSING) is None
