"""The guarantee: every exemplar that a real Prometheus returns opens a trace that holds its span, at
100 %, 10 % and 1 %, through kills of agent and consumer with Kafka between; and exemplars are there:
how many of the slots that had spans show one.

Bounded here; SPANMILL_EXEMPLARS=10000 (make soak) exposes that many per rate and prints the ledger.
"""

import os
import threading
import time

import pytest
import requests
from opentelemetry.proto.trace.v1 import trace_pb2 as trace
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import dashboard
import otlp
from exemplar_bed import Load, Sender, Watch, flush, sample
from mill import ROOT, SANITIZED, merged, wait_for
from prometheus_bed import lints

EXPOSE = int(os.environ.get("SPANMILL_EXEMPLARS", "0"))
BUCKETS = "traces_span_metrics_duration_milliseconds_bucket"
CALLS = "traces_span_metrics_calls_total"
RULES = [os.path.join(ROOT, "configs", "prometheus", f"{kind}-rules.yml")
         for kind in ("recording", "alert")]  # fmt: skip
LONG = pytest.mark.timeout(7200 if EXPOSE else 240)

pytestmark = pytest.mark.skipif(SANITIZED, reason="rates of a slowed program say nothing")


def page_url(mill):
    return mill.url("zipkin", "/metrics")  # a port that these configurations do not use otherwise


def own(config, ports, flush_interval="1s"):
    """The configuration of a sample on ports of our own, flushing and cutting often."""
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    changes = {
        "connectors": {"spanmetrics": {"metrics_flush_interval": flush_interval}},
        "exporters": {"prometheus": {"endpoint": at["zipkin"]}},
        "extensions": {"health_check": {"endpoint": at["health"]}},
        "service": {"telemetry": {"metrics": {"address": at["metrics"]}}},
    }
    if "otlp" in config["receivers"]:
        listen = {name: {"endpoint": at[name]} for name in ("grpc", "http")}
        changes["receivers"] = {"otlp": {"protocols": listen}}
    if "query" in config["extensions"]:
        changes["extensions"]["query"] = {"endpoint": at["query"]}
    config["extensions"]["health_check"] = {}
    return merged(config, changes)


def in_process(rate, is_tagged):
    """configs/span-metrics.yaml; below 1 a sampler stands between what is counted and the blocks. A
    Collector's configuration knows no exemplar processor."""

    def make(ports):
        config = own(sample("span-metrics.yaml"), ports)
        if not is_tagged:
            del config["processors"]["exemplar"], config["service"]["pipelines"]["traces"]["processors"]
        config["exporters"]["blocks"] = {"max_block_age": "2s"}
        probe = {"rate": 1000, "wait": "1s"}
        config["connectors"]["spanmetrics"]["exemplars"]["probe"] = probe
        if rate == 1:
            return config
        config["connectors"]["forward"] = None
        config["processors"]["probabilistic_sampler"] = {"sampling_percentage": 100 * rate}
        pipelines = config["service"]["pipelines"]
        pipelines["traces"]["exporters"] = ["spanmetrics", "forward"]
        pipelines["traces/sampled"] = {
            "receivers": ["forward"],
            "processors": ["probabilistic_sampler"],
            "exporters": ["blocks"],
        }
        return config

    return make


def job_name(rate, is_tagged):
    return f"rate-{rate}" + ("" if is_tagged else "-untagged")


class Shown:
    """One process that counts, samples and stores, and what Prometheus shows of it."""

    def __init__(self, rate, is_tagged, mill, prometheus, load):
        self.rate, self.mill, self.load, self.is_tagged = rate, mill, load, is_tagged
        self.job = job_name(rate, is_tagged)
        self.name = f"{rate:.0%}" + ("" if is_tagged else " untagged")
        self.sender = Sender(mill)
        # slots of which samplers may well keep nothing: those are empty, or the guarantee is broken
        self.rare = Load(6, 2, name="rare")
        self.bursts, self.rare_bursts = [], []
        self.prometheus = prometheus

    def watch(self):
        selector = f'{{__name__=~"{BUCKETS}|{CALLS}",mill="{self.job}"}}'
        self.seen = Watch(self.prometheus, selector, self.mill.url("query"))

    def send(self):
        burst = self.load.burst()
        self.bursts.append(burst)
        self.sender.burst(burst)
        self.rare_bursts.append(self.rare.burst())
        self.sender.burst(self.rare_bursts[-1])
        flush(self.mill)

    def counted(self):
        """calls in Prometheus, over all series."""
        return self.prometheus.value(f'sum({CALLS}{{mill="{self.job}"}})') or 0


def with_label(prometheus):
    """A label that says which process a page is of: job is the service's."""
    for job in prometheus.config["scrape_configs"]:
        job["static_configs"][0]["labels"] = {"mill": job["job_name"]}
    return prometheus


def all_at_once(work, items):
    """work(item) in a thread each; an exception of any of them is ours."""
    failures = []

    def one(item):
        try:
            work(item)
        except BaseException as e:  # noqa: B036
            failures.append(e)

    threads = [threading.Thread(target=one, args=(item,)) for item in items]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]


def rounds(shown, prometheus, done):
    """Burst after burst to all at once, each with time to be stored, flushed and scraped."""
    began = time.monotonic()
    while not done():
        all_at_once(Shown.send, shown)
        # the flush of the interval after the burst's, and two scrapes of it
        wait_for_next_second(2)
        all_at_once(lambda s: prometheus.wait_scraped(s.job, 2) or s.seen.look(), shown)
        if EXPOSE and len(shown[0].bursts) % 10 == 0:
            print(f"{time.monotonic() - began:5.0f} s", *(
                f"| {s.job} {s.seen.ledger()}" for s in shown), flush=True)  # fmt: skip


def wait_for_next_second(n):
    """Until the clock has passed n whole seconds: flush intervals of 1s end with them."""
    target = int(time.time()) + n
    wait_for("the next flush", lambda: time.time() >= target, 60)


def judge(shown):
    """missing = 0; the prober agrees; slots are filled as often as they must be."""
    bounds = {1: 0.99, 0.1: 0.99, 0.01: 0.60}
    failures = []
    for s in shown:
        s.seen.settle()
        fill = s.seen.fill(s.bursts, list(s.load.slots()))
        said = ", ".join(f"{name} {a}/{b} = {a / b:.4f}" for name, (a, b) in fill.items())
        spans = sum(b.n_spans for b in s.bursts)
        print(f"{s.name}: {spans} spans in {len(s.bursts)} bursts; {s.seen.ledger()}; filled: {said}")
        if s.seen.missing() or s.seen.late:
            failures.append(f"{s.name}: {s.seen.ledger()} {s.seen.missing()[:3]}")
        if any(a < bounds[s.rate] * b for a, b in fill.values()):
            failures.append(f"{s.name}: filled {said}")
    assert not failures, "\n".join(failures)


def probed(shown):
    """What the probers of the processes themselves found."""
    for s in shown:
        wait_for("the prober", lambda m=s.mill: m.metric("exemplar_probe_waiting") == 0, 120, 0.2)
        ok = s.mill.metric("exemplar_probe_total", result="ok")
        print(f"{s.name}: prober ok {ok:.0f}")
        assert ok >= len(s.seen.seen) > 0
        assert s.mill.metric("exemplar_probe_total", result="missing") == 0
        assert s.mill.metric("exemplar_probe_total", result="partial") == 0
        assert s.mill.metric("exemplar_probe_late_total") == 0


@LONG
def test_every_exemplar_opens_its_trace(make_mill, make_prometheus):
    """Counted, sampled and stored in one process."""
    kinds = [(1, True), (0.1, True), (0.01, True), (0.1, False)]
    mills = [make_mill(in_process(*kind)) for kind in kinds]
    jobs = {job_name(*kind): page_url(mill) for kind, mill in zip(kinds, mills)}
    # the process's own page, for the dashboard's queries about the prober
    jobs.update({f"own-{job}": m.url("metrics", "/metrics") for job, m in zip([*jobs], mills)})
    prometheus = with_label(make_prometheus(jobs, start=False, more={"rule_files": RULES})).start()
    # the bounded form has so few slots that chance must not decide
    loads = [Load(50, 110) if EXPOSE else Load(6, 300 if r == 0.01 else 160) for r, _ in kinds]
    shown = [Shown(*k, m, prometheus, load) for k, m, load in zip(kinds, mills, loads)]
    for s in shown:
        s.watch()
        prometheus.wait_up(s.job)
    enough = EXPOSE or 1
    rounds(shown, prometheus,
           lambda: all(len(s.bursts) >= 3 and len(s.seen.seen) >= enough for s in shown))  # fmt: skip
    judge(shown)
    probed(shown)
    counts_are_exact(shown, prometheus)
    pages_are_clean(shown, prometheus)
    the_dashboard_has_data(prometheus)
    the_rules_have_data(prometheus)
    tags_are_stored(shown)


def counts_are_exact(shown, prometheus):
    """Of all traffic, whatever the sampler took away."""
    for s in shown:
        sent = sum(b.n_spans for b in s.bursts + s.rare_bursts)
        wait_for(f"{sent} calls of {s.job}", lambda s=s, n=sent: s.counted() == n, 60, 0.2)


def pages_are_clean(shown, prometheus):
    """A real Prometheus had nothing to say; the Python client parses the page; promtool lints only
    names that come from OpenTelemetry."""
    prometheus.assert_no_complaints()
    for s in shown:
        answer = requests.get(page_url(s.mill), timeout=30, headers={
            "Accept": "application/openmetrics-text;version=1.0.0"})  # fmt: skip
        families = list(text_string_to_metric_families(answer.text))
        assert any(row.exemplar for f in families for row in f.samples)
        text = requests.get(page_url(s.mill), timeout=30).text
        assert " # {" not in text  # no exemplars in the text format
        wrong = [x for x in lints(text) if "unit" not in x and "_total" not in x]
        assert not wrong, wrong


def the_dashboard_has_data(prometheus):
    """Every query of the dashboard is taken, and all but those of failures give data."""
    for name, (selector, label) in dashboard.variables().items():
        assert prometheus.query(f"count by ({label}) ({selector})"), name
    for panel, target in dashboard.targets():
        expr = dashboard.filled_in(target["expr"], "20s", "5m")
        got = wait_for(f"data of {panel['title']}: {expr}", lambda e=expr: prometheus.query(e), 30, 0.5)
        assert got
        if target["exemplar"]:
            assert prometheus.exemplars(expr), f"{panel['title']} has no exemplars"


def the_rules_have_data(prometheus):
    """Every recording rule gives series, no rule fails, and nobody says that an exemplar is missing."""
    rules = prometheus.rules()
    for name, rule in rules.items():
        if rule["type"] == "recording":
            wait_for(f"data of {name}", lambda n=name: prometheus.query(n), 60, 0.5)
    rules = prometheus.rules()
    assert {r["health"] for r in rules.values()} == {"ok"}, rules
    assert rules["ExemplarDoesNotResolve"]["state"] == "inactive"
    failing = {m["service_name"]: v for m, v in prometheus.query("operation:error_ratio:rate5m") if v > 0}
    assert failing and all(abs(v - 0.25) < 0.1 for v in failing.values()), failing


def tags_are_stored(shown):
    """A shown span says so itself where the processor stands before the fan-out, and nowhere else."""
    for s in shown:
        (trace_id, span_id), shown_by = next(iter(s.seen.seen.items()))
        answer = requests.get(s.mill.url("query", f"/api/traces/{trace_id}"), timeout=30,
                              headers={"Accept": "application/protobuf"})  # fmt: skip
        spans = otlp.spans_of(trace.TracesData.FromString(answer.content))
        (span,) = [sp for sp in spans if sp.span_id.hex() == span_id]
        tags = {a.key: a.value for a in span.attributes if a.key.startswith("exemplar")}
        if not s.is_tagged:
            assert not tags
            continue
        assert tags["exemplar"].bool_value is True, shown_by
        assert tags["exemplar.metric"].string_value == "traces.span.metrics.duration", tags


# -- Kafka between, and kills ----------------------------------------------------------------------------


def agent(kafka, topic, rate, guard, query):
    """configs/span-metrics-agent.yaml, sampling at this rate; its prober asks the consumer."""

    def make(ports):
        config = own(sample("span-metrics-agent.yaml"), ports)
        config["processors"]["probabilistic_sampler"] = {"sampling_percentage": 100 * rate}
        config["service"]["exemplar_guard"] = guard
        config["connectors"]["spanmetrics"]["exemplars"]["probe"] = {"endpoint": query, "rate": 200}
        kafka_own = {"brokers": kafka.addresses, "traces": {"topic": topic}}
        return merged(config, {"exporters": {"kafka": kafka_own}})

    return make


def consumer(kafka, topic, rate, guard):
    """configs/span-metrics-consumer.yaml, which samples once more, for itself, down to this rate."""

    def make(ports):
        config = own(sample("span-metrics-consumer.yaml"), ports)
        config["receivers"]["kafka"] = merged(config["receivers"]["kafka"], {
            "brokers": kafka.addresses, "traces": {"topics": [topic]},
            "group_id": f"builders-{topic}", "session_timeout": "6s", "max_fetch_wait": "100ms",
            "min_fetch_size": 1,
        })  # fmt: skip
        config["processors"]["probabilistic_sampler"] = {
            "mode": "equalizing", "sampling_percentage": 100 * rate}  # fmt: skip
        config["service"]["exemplar_guard"] = guard
        config["service"]["pipelines"]["traces"]["processors"].append("probabilistic_sampler")
        config["exporters"]["blocks"] = {"max_block_age": "1s"}
        return config

    return make


class Traffic(threading.Thread):
    """Bursts without a pause, through whatever happens to who takes them."""

    def __init__(self, mill, load, pause=0.2):
        super().__init__(daemon=True)
        self.sender, self.load, self.pause = Sender(mill), load, pause
        self.over = threading.Event()
        self.failed = None
        self.n_spans = 0

    def run(self):
        try:
            while not self.over.wait(self.pause):
                burst = self.load.burst()
                self.sender.burst(burst)
                self.n_spans += burst.n_spans
        except BaseException as e:  # noqa: B036
            self.failed = e

    def finish(self):
        self.over.set()
        self.join(120)
        assert self.failed is None, self.failed
        assert not self.is_alive()


@LONG
@pytest.mark.parametrize("rate", [0.1, 0.01, 1] if EXPOSE else [0.1])
def test_exemplars_survive_kills_with_kafka_between(kafka, make_mill, make_prometheus, rate):
    """Agent and consumer are killed while Prometheus scrapes both; the agent keeps a part, the
    consumer keeps `rate`."""
    topic = kafka.create_topic(partitions=2)
    tail = make_mill(consumer(kafka, topic, rate, rate))
    head = make_mill(agent(kafka, topic, min(1, rate * 2), rate, tail.url("query")))
    prometheus = make_prometheus({"agent": page_url(head), "consumer": page_url(tail)})
    stored = "traces_stored_span_metrics_duration_milliseconds_bucket"
    watches = {"agent": Watch(prometheus, BUCKETS, tail.url("query")),
               "consumer": Watch(prometheus, stored, tail.url("query"))}  # fmt: skip
    prometheus.wait_up("agent")
    prometheus.wait_up("consumer")
    load = Load(n_operations=50, per_slot=20) if EXPOSE else Load(per_slot=40)
    traffic = Traffic(head, load)
    traffic.start()
    try:
        kills = kill_in_turn(head, tail, watches, traffic)
    finally:
        traffic.over.set()
    traffic.finish()
    wait_for("the agent's queue to be empty", lambda: head.metric("spanmill_held_spans") == 0, 60, 0.1)
    wait_for_next_second(2)
    look_all(watches, prometheus)
    for name, watch in watches.items():
        watch.settle(120)
        print(f"{rate:.0%}, {kills} kills, {traffic.n_spans} spans, {name}: {watch.ledger()}")
    for name, watch in watches.items():
        assert not watch.missing(), f"{name}: {watch.ledger()} {watch.missing()[:3]}"
        assert watch.seen, f"{name} showed no exemplar"
    probers_agree({"agent": head, "consumer": tail})


def probers_agree(mills):
    """What those found who asked all the while, since their last start."""
    for name, mill in mills.items():
        wait_for(f"the prober of the {name}", lambda m=mill: m.metric("exemplar_probe_waiting") == 0,
                 700, 0.2)  # fmt: skip; what nobody answers for is given up after ten minutes
        found = {r: mill.metric("exemplar_probe_total", result=r) for r in ("ok", "missing", "partial")}
        late = mill.metric("exemplar_probe_late_total")
        print(f"{name}: prober {found}, late {late:.0f}")
        assert found["ok"] > 0 and found["missing"] == found["partial"] == 0, found


def look_all(watches, prometheus):
    for name, watch in watches.items():
        prometheus.wait_scraped(name, 2)
        watch.look()


def kill_in_turn(head, tail, watches, traffic):
    """Agent, consumer, agent, ...: each time both have shown something new since the last kill. Returns
    how often."""
    kills = 0
    deadline = time.monotonic() + (6000 if EXPOSE else 150)

    def shown():
        for watch in watches.values():
            watch.look()
        return {name: len(watch.seen) for name, watch in watches.items()}

    last = shown()
    while kills < 4 or any(len(w.seen) < EXPOSE for w in watches.values()):
        assert traffic.failed is None, traffic.failed
        assert time.monotonic() < deadline, f"exemplars dried up after {kills} kills: {last}"
        now = shown()
        if all(now[name] >= last[name] + (200 if EXPOSE else 10) for name in now):
            victim = head if kills % 2 == 0 else tail
            victim.kill()
            victim.start(ready=False)
            victim.wait_ready(60)
            kills += 1
            last = now
            if EXPOSE and kills % 10 == 0:
                print(f"{kills} kills |", *(f"{n} {w.ledger()}" for n, w in watches.items()), flush=True)
        time.sleep(0.3)
    return kills
