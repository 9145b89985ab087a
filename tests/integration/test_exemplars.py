"""Exemplars of spanmetrics: which spans are tagged, what is exposed and when, what samplers keep.

Every process here is the real program; the hops are Python: one that takes the spans, and one that
takes the metrics, whose exemplars are what is exposed."""

import concurrent.futures
import time

import grpc
import pytest
import requests

import otlp
import signals_data
from mill import forwarder, merged, wait_for
from test_reload import hup

PATIENT = 60
SAMPLER = "probabilistic_sampler"


def pipeline(receivers, exporters, *processors):
    return {"receivers": receivers, "processors": list(processors), "exporters": exporters}


def config(ports, spans, metrics, storage=None, **overlay):
    """otlp -> [exemplar] -> spanmetrics and the spans' hop; its metrics to a hop of their own."""
    c = forwarder(ports, spans, storage=storage)
    c["exporters"]["otlp/metrics"] = {"endpoint": metrics, "tls": {"insecure": True}}
    c["connectors"] = {
        "spanmetrics": {
            "metrics_flush_interval": "200ms",
            "exemplars": {"enabled": True},
        },
    }
    c["processors"] = {"exemplar": {"connectors": ["spanmetrics"]}}
    c["service"]["pipelines"] = {
        "traces": pipeline(["otlp"], ["spanmetrics", "otlp"], "exemplar"),
        "metrics": pipeline(["spanmetrics"], ["otlp/metrics"]),
    }
    return merged(c, overlay)


@pytest.fixture
def bed(make_mill, next_hop):
    """(mill, hop of the spans, hop of the metrics); behave is the spans' hop's."""
    mills = []

    def make(behave=None, start=True, **keys):
        spans, metrics = next_hop(behave, start=start), next_hop()
        mill = make_mill(lambda ports: config(ports, spans.target, metrics.target, **keys))
        mills.append(mill)
        return mill, spans, metrics

    yield make
    for mill in mills:  # while the hops are there
        mill.stop()


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
    return [sp for rs in req.resource_spans for ss in rs.scope_spans for sp in ss.spans]


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

    mill, spans, metrics = bed(
        behave,
        receivers={"otlp": {"ack_timeout": "60s"}},  # the answer may come late on a busy machine
        exporters={"otlp": {"timeout": "60s"}},
    )
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



def parted(**processors):
    """Pipelines that part behind the exemplar processor: metrics of all, storage of what these
    processors let through."""
    return {
        "processors": processors,
        "connectors": {"forward": {}},
        "service": {
            "pipelines": {
                "traces": pipeline(["otlp"], ["spanmetrics", "forward"], "exemplar"),
                "traces/store": pipeline(["forward"], ["otlp"], *processors),
            }
        },
    }


def app_metrics(trace_ids):
    """Metrics of an application: a counter whose exemplars name these traces."""
    req, metrics = signals_data.envelope("metrics", "app")
    m = metrics.add(name="app.requests")
    m.sum.is_monotonic, m.sum.aggregation_temporality = True, signals_data.CUMULATIVE
    p = m.sum.data_points.add(time_unix_nano=time.time_ns(), as_int=len(trace_ids))
    for trace_id in trace_ids:
        p.exemplars.add(
            time_unix_nano=time.time_ns(), as_int=1, trace_id=trace_id, span_id=otlp.new_id(8)
        )
    return req


def delivered(hop):
    return {sp.span_id: sp for sp in spans_of(hop.joined("traces"))}


def test_a_filter_behind_the_fan_out(bed):
    """What it drops is counted and never exposed, also where it drops most of a series."""
    mill, spans, metrics = bed(
        **parted(filter={"traces": {"span": ['attributes["drop"] == "yes"']}})
    )
    for _ in range(20):
        req = request(20, name="mixed", attributes=[("drop", "yes")])
        del spans_of(req)[-1].attributes[:]
        send(mill, req)
        send(mill, request(5, name="all dropped", attributes=[("drop", "yes")]))
    wait_for("an exemplar", lambda: exposed(metrics), PATIENT)
    wait_for("the count", lambda: calls(metrics) == 500, PATIENT)
    flushes(metrics)
    assert exposed(metrics) <= set(delivered(spans))
    assert len(delivered(spans)) == 20


@pytest.mark.parametrize("tagged", [True, False])
def test_a_sampler_behind_the_fan_out(bed, tagged):
    """At 10 % every exposed span is stored, and slots with 200 observations show one; with the
    processor before it, and as a Collector's configuration has it, without."""
    keys = parted(**{SAMPLER: {"sampling_percentage": 10}})
    if not tagged:
        keys["service"]["pipelines"]["traces"]["processors"] = []
    mill, spans, metrics = bed(**keys)
    for k in range(10):
        send(mill, request(200, name=f"op {k}"))
    wait_for("exemplars", lambda: len(exposed(metrics)) >= 10, PATIENT)
    wait_for("the count", lambda: calls(metrics) == 2000, PATIENT)
    flushes(metrics)
    got = delivered(spans)
    assert exposed(metrics) <= set(got)
    assert 100 < len(got) < 300
    n_tagged = sum("exemplar" in attributes_of(sp) for sp in got.values())
    assert n_tagged >= 10 if tagged else n_tagged == 0


def test_a_hop_that_refuses(bed):
    """Permanently: the client's request was taken, the spans are counted, and none is exposed."""

    def behave(request, context, hop):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    mill, spans, metrics = bed(behave)
    send(mill, request(30))
    wait_for("the count", lambda: calls(metrics) == 30, PATIENT)
    flushes(metrics)
    assert not exposed(metrics)


@pytest.mark.parametrize("acks, shown", [(-1, True), (1, False)])
def test_a_broker_that_need_not_have_it(make_mill, next_hop, kafka, acks, shown):
    """What only the leader of a partition has can be lost: an exemplar waits for all in-sync
    replicas, so with other required_acks none is exposed; the metrics are the same."""
    metrics = next_hop()
    to_kafka = {
        "exporters": {
            "kafka": {
                "brokers": kafka.addresses,
                "traces": {"topic": kafka.create_topic()},
                "producer": {"required_acks": acks},
            }
        },
        "service": {
            "pipelines": {"traces": pipeline(["otlp"], ["spanmetrics", "kafka"], "exemplar")}
        },
    }
    mill = make_mill(lambda ports: config(ports, metrics.target, metrics.target, **to_kafka))
    send(mill, request(50))
    if shown:
        wait_for("exemplars", lambda: exposed(metrics), PATIENT)
    else:
        flushes(metrics)
        assert not exposed(metrics)
    wait_for("calls", lambda: calls(metrics) == 50, PATIENT)
    mill.stop()  # while the hop is there


def test_what_is_sent_again_counts_once(bed):
    """A hop that is away for a while: the client is told to come again, and does."""
    away = {"is": True}

    def behave(request, context, hop):
        if away["is"]:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return otlp.messages_of("traces")[1]()

    mill, spans, metrics = bed(behave, receivers={"otlp": {"ack_timeout": "200ms"}})
    req = request(40)
    for _ in range(4):
        assert post(mill, req).status_code == 503
    assert calls(metrics) == 0 and not exposed(metrics)
    away["is"] = False
    wait_for("it to be taken", lambda: post(mill, req).status_code == 200, PATIENT)
    n_taken = sum(len(spans_of(r)) == 40 for r in spans.taken)
    wait_for("the count", lambda: calls(metrics) >= 40, PATIENT)
    wait_for("the exemplar", lambda: exposed(metrics), PATIENT)
    flushes(metrics)
    assert calls(metrics) == 40, n_taken
    assert exposed(metrics) <= set(delivered(spans))


def test_a_disk_queue_and_a_hop_that_is_away(bed, tmp_path):
    """Held is counted, and exposed when it was delivered. A kill -9 in between: the tags are in
    the bytes that the log has, and nothing had been exposed."""
    mill, spans, metrics = bed(start=False, storage=str(tmp_path / "queue"))
    send(mill, request(60, name="before"))
    wait_for("the count", lambda: calls(metrics) == 60, PATIENT)
    flushes(metrics)
    assert not exposed(metrics)
    mill.kill()
    mill.start()
    send(mill, request(60, name="after"))
    wait_for("the count", lambda: calls(metrics) >= 120, PATIENT)
    flushes(metrics)
    assert not exposed(metrics)
    spans.start()
    wait_for("all of it", lambda: len(delivered(spans)) == 120, PATIENT)
    wait_for("the exemplar", lambda: exposed(metrics), PATIENT)
    flushes(metrics)
    got = delivered(spans)
    names = {got[span_id].name for span_id in exposed(metrics)}
    assert names == {"after"}
    for name in ("before", "after"):
        tags = [sp for sp in got.values() if sp.name == name and "exemplar" in attributes_of(sp)]
        assert tags


def look_back(**keys):
    """A sampler that keeps next to nothing, and an application's metrics beside."""
    conf = parted(**{SAMPLER: {"sampling_percentage": 50}})
    conf["processors"]["exemplar"] = {"look_back": keys}
    conf["service"]["pipelines"]["metrics/app"] = pipeline(["otlp"], ["otlp/metrics"], "exemplar")
    return conf


def ids(req):
    return [sp.trace_id for sp in spans_of(req)]


def check_kept(sp):
    a = attributes_of(sp)
    assert a["sampling.reason"].string_value == "exemplar"
    assert a["sampling.adjusted_count"].int_value == 0
    assert "th:" not in sp.trace_state


def test_an_application_names_traces_before_their_spans_come(bed):
    mill, spans, metrics = bed(**look_back())
    req = request(10, low=True)
    sent = app_metrics(ids(req)[:3])
    send(mill, sent, "metrics")
    send(mill, req)
    got = delivered(spans)
    assert {sp.trace_id for sp in got.values()} == set(ids(req)[:3])
    for sp in got.values():
        check_kept(sp)
    # The metrics went through as they came.
    assert sent in metrics.others["metrics"]


def test_an_application_names_traces_whose_spans_have_passed(bed):
    """They come once more, and once only however often the metrics show them; what the sampler kept
    does not."""
    mill, spans, metrics = bed(**look_back())
    low, high = request(10, low=True), request(10, low=False)
    send(mill, low)
    send(mill, high)
    assert set(spans.span_counts()) == {sp.span_id for sp in spans_of(high)}
    for _ in range(3):
        send(mill, app_metrics(ids(low)[:4] + ids(high)[:4] + [otlp.new_id(16)]), "metrics")
    wait_for("four of them", lambda: len(delivered(spans)) == 14, PATIENT)
    flushes(metrics)
    assert all(n == 1 for n in spans.span_counts().values())
    got = delivered(spans)
    for sp in spans_of(low)[:4]:
        check_kept(got[sp.span_id])
    assert mill.metric("spanmill_exemplar_sent_again_spans") == 4
    assert mill.metric("spanmill_exemplar_named_traces") == 11
    assert calls(metrics) == 20


def test_looking_back_is_bounded(bed):
    """By bytes: what passed long ago is not held, and the memory is given back; by age."""
    mill, spans, metrics = bed(**look_back(max_bytes="1MiB", max_age="1h"))
    first = request(10, low=True)
    send(mill, first)
    for _ in range(40):
        send(mill, request(100, low=True))
    held = mill.metric("spanmill_exemplar_look_back_bytes")
    assert 200_000 < held <= 1 << 20
    last = request(10, low=True)
    send(mill, last)
    send(mill, app_metrics(ids(first) + ids(last)), "metrics")
    wait_for("the last", lambda: len(delivered(spans)) == 10, PATIENT)
    assert set(delivered(spans)) == {sp.span_id for sp in spans_of(last)}


def test_hints_of_sdks(bed):
    """exemplar and otel.exemplar: kept whatever R is, by this sampler and the next."""
    mill, spans, metrics = bed(**look_back())
    for key in ("exemplar", "otel.exemplar"):
        send(mill, request(3, low=True, name=key, attributes=[(key, "true")]))
    send(mill, request(3, low=True, name="not", attributes=[("exemplar", "no")]))
    got = delivered(spans).values()
    assert sorted(sp.name for sp in got) == ["exemplar"] * 3 + ["otel.exemplar"] * 3
    for sp in got:
        check_kept(sp)
        assert [a.key for a in sp.attributes].count("exemplar") <= 1
    wait_for("exemplars of both", lambda: len(exposed(metrics)) == 2, PATIENT)
    assert exposed(metrics) <= set(delivered(spans))


def test_a_reload_takes_the_processor_in_and_out(bed):
    """With it only what it tagged competes; without it whatever comes."""
    mill, spans, metrics = bed()
    for k, names in enumerate((["exemplar"], [], ["exemplar"])):
        if k > 0:
            mill.config["service"]["pipelines"]["traces"]["processors"] = names
            hup(mill, mill.config)
        send(mill, request(20, name=f"op {k}"))
        wait_for("its exemplar", lambda: len(exposed(metrics)) == k + 1, PATIENT)
        flushes(metrics)
    tagged = {sp.name for sp in delivered(spans).values() if "exemplar" in attributes_of(sp)}
    assert tagged == {"op 0", "op 2"}
