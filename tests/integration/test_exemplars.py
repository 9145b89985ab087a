"""Exemplars of spanmetrics: which spans are tagged, what is exposed and when, what samplers keep.

Every process here is the real program; the hops are Python: one that takes the spans, and one that
takes the metrics, whose exemplars are what is exposed."""

import concurrent.futures
import time

import pytest
import requests

import otlp
from mill import forwarder, merged, wait_for

PATIENT = 60
SAMPLER = "probabilistic_sampler"


def pipeline(receivers, exporters, *processors):
    return {"receivers": receivers, "processors": list(processors), "exporters": exporters}


def config(ports, spans, metrics, processors=None, pipelines=None, storage=None, **service):
    """otlp -> [exemplar] -> spanmetrics and the spans' hop; its metrics to a hop of their own."""
    c = forwarder(ports, spans, storage=storage)
    c["exporters"]["otlp/metrics"] = {"endpoint": metrics, "tls": {"insecure": True}}
    c["connectors"] = {
        "spanmetrics": {
            "metrics_flush_interval": "200ms",
            "exemplars": {"enabled": True},
        },
    }
    c["processors"] = merged({"exemplar": {"connectors": ["spanmetrics"]}}, processors or {})
    c["service"]["pipelines"] = merged(
        {
            "traces": pipeline(["otlp"], ["spanmetrics", "otlp"], "exemplar"),
            "metrics": pipeline(["spanmetrics"], ["otlp/metrics"]),
        },
        pipelines or {},
    )
    c["service"].update(service)
    return c


@pytest.fixture
def bed(make_mill, next_hop):
    """(mill, hop of the spans, hop of the metrics); behave is the spans' hop's."""

    def make(behave=None, start=True, **keys):
        spans, metrics = next_hop(behave, start=start), next_hop()
        mill = make_mill(lambda ports: config(ports, spans.target, metrics.target, **keys))
        return mill, spans, metrics

    return make


def points(hop):
    """(metric, point) of everything the metrics' hop took."""
    for rm in hop.joined("metrics").resource_metrics:
        for sm in rm.scope_metrics:
            for m in sm.metrics:
                for p in getattr(m, m.WhichOneof("data")).data_points:
                    yield m, p


def exposed(hop):
    """Span ids of all exemplars that were ever sent."""
    return {x.span_id for _, p in points(hop) for x in p.exemplars}


def calls(hop):
    """The largest sum of calls over all series of one flush: they are cumulative."""
    series = {}
    for m, p in points(hop):
        if m.name == "traces.span.metrics.calls":
            key = p.attributes.__str__()
            value = p.as_int or p.as_double
            series[key] = max(series.get(key, 0), value)
    return sum(series.values())


def request(n, low=None, name="op", attributes=()):
    """n traces of one span; low: R of all is below (True) or above a half."""
    req = otlp.request(n_traces=n)
    for i, sp in enumerate(req.resource_spans[0].scope_spans[0].spans):
        sp.name = name
        if low is not None:
            raw = bytearray(sp.trace_id)
            raw[9] = raw[9] & 0x7F if low else raw[9] | 0x80
            sp.trace_id = bytes(raw)
        for key, value in attributes:
            sp.attributes.append(otlp.string(key, value))
    return req


def post(mill, req, signal="traces"):
    return requests.post(
        mill.url("http", f"/v1/{signal}"),
        data=req.SerializeToString(),
        headers={"Content-Type": otlp.PROTOBUF},
        timeout=PATIENT,
    )


def send(mill, req, signal="traces"):
    answer = post(mill, req, signal)
    assert answer.status_code == 200, answer.text


def spans_of(req):
    return [
        sp for rs in req.resource_spans for ss in rs.scope_spans for sp in ss.spans
    ]


def attributes_of(sp):
    return {a.key: a.value for a in sp.attributes}


def flushes(hop, n=3):
    """n more flushes have come, so that what could be exposed has been."""
    before = len(hop.others["metrics"])
    wait_for("flushes", lambda: len(hop.others["metrics"]) >= before + n, PATIENT)


def test_who_takes_a_slot_is_tagged_in_line(bed):
    """Exactly those that took a slot have the tag, in the bytes that are sent; what is exposed is
    one of them, and the one with the greatest R of its series at that."""
    mill, spans, metrics = bed()
    sent = [request(200, name=f"op {k}") for k in range(5)]
    for req in sent:
        send(mill, req)
    wait_for("exemplars", lambda: len(exposed(metrics)) == 5, PATIENT)
    got = spans_of(spans.joined("traces"))
    tagged = {sp.span_id: sp for sp in got if "exemplar" in attributes_of(sp)}
    assert len(got) == 1000
    assert exposed(metrics) <= set(tagged)
    assert 5 <= len(tagged) <= 5 * 20  # of 200 about 6 each
    assert mill.metric("spanmill_exemplar_tagged_spans") == len(tagged)
    for sp in tagged.values():
        a = attributes_of(sp)
        assert a["exemplar"].bool_value
        assert a["exemplar.metric"].string_value == "traces.span.metrics.duration"
        assert "sampling.reason" not in a
    for req in sent:
        best = max(spans_of(req), key=lambda sp: sp.trace_id[9:])
        assert best.span_id in exposed(metrics)
    # The others are the bytes that came.
    came = {sp.span_id: sp for req in sent for sp in spans_of(req)}
    for sp in got:
        if sp.span_id not in tagged:
            assert sp == came[sp.span_id]
    assert calls(metrics) == 1000


def test_nothing_is_exposed_before_the_ack(bed):
    """The next hop holds its answer: nothing; it gives it: then."""
    held = {"is": True}

    def behave(request, context, hop):
        while held["is"]:
            time.sleep(0.01)
        return otlp.messages_of("traces")[1]()

    mill, spans, metrics = bed(behave)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, mill, request(50))
        try:
            wait_for("the call", lambda: len(spans.calls) == 1, PATIENT)
            time.sleep(1)
            assert not exposed(metrics)
            assert calls(metrics) == 0
        finally:
            held["is"] = False
        assert answer.result().status_code == 200
    wait_for("the exemplar", lambda: len(exposed(metrics)) == 1, PATIENT)
    assert calls(metrics) == 50
