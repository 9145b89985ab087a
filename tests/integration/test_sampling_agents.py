"""Agents that never talk keep the same traces, whatever form ids come in: all 128 bits, or 64 of them
as Zipkin has them, whose high bytes are zero."""

import random

import pytest
import requests

import otlp
from mill import forwarder

N = 2000


def agent(make_mill, hop, sampler):
    def config(ports):
        out = forwarder(ports, hop.target)
        out["receivers"]["zipkin"] = {"endpoint": f"127.0.0.1:{ports['zipkin']}"}
        out["processors"] = {"probabilistic_sampler": sampler}
        out["service"]["pipelines"]["traces"]["receivers"] = ["otlp", "zipkin"]
        out["service"]["pipelines"]["traces"]["processors"] = ["probabilistic_sampler"]
        return out

    return make_mill(config)


def send_otlp(mill, ids):
    body = otlp.request(n_spans=len(ids))
    for span, trace_id in zip(otlp.spans_of(body), ids):
        span.trace_id = trace_id
    otlp.send_grpc(mill, body, timeout=30)


def send_zipkin(mill, ids):
    spans = [
        {"traceId": i.hex()[16:] if not any(i[:8]) else i.hex(), "id": f"{n:016x}", "name": "z"}
        for n, i in enumerate(ids, 1)
    ]
    answer = requests.post(mill.url("zipkin", "/api/v2/spans"), json=spans, timeout=30)
    assert answer.status_code == 202, answer.text


def kept(hop):
    return {span.trace_id: span.trace_state for m in hop.taken for span in otlp.spans_of(m)}


@pytest.mark.parametrize("mode", [{}, {"mode": "equalizing"}, {"hash_seed": 22}])
def test_two_agents_agree(make_mill, next_hop, mode):
    rng = random.Random(7)
    ids = [rng.randbytes(16) for _ in range(N)] + [bytes(8) + rng.randbytes(8) for _ in range(N)]
    got = {}
    for share in (10, 100 / 3):
        for send in (send_otlp, send_zipkin):
            hop = next_hop()
            mill = agent(make_mill, hop, {"sampling_percentage": share, **mode})
            send(mill, ids)
            got[share, send] = kept(hop)
            balance = mill.stop()
            assert balance["delivered"] == len(got[share, send])
            assert balance["dropped"] == 2 * N - balance["delivered"]
    for share in (10, 100 / 3):
        one, other = got[share, send_otlp], got[share, send_zipkin]
        assert one == other, "the same traces, and the same is said of them"
        for half in (ids[:N], ids[N:]):
            n = len(one.keys() & set(half))
            sigma = (N * share / 100 * (1 - share / 100)) ** 0.5
            assert abs(n - N * share / 100) < 5 * sigma, f"{n} of {N} at {share} %"
        if "hash_seed" not in mode:
            th = {10: "e666", 100 / 3: "aaab"}[share]
            assert set(one.values()) == {f"ot=th:{th}"}
            assert set(one) == {i for i in ids if i[9:] >= bytes.fromhex(th.ljust(14, "0"))}
    assert got[10, send_otlp].keys() < got[100 / 3, send_otlp].keys()
