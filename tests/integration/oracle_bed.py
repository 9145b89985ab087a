"""The whole pipeline for the oracle test: senders with a ledger -> agents -> Kafka -> builders -> a
bucket -> query, in the shape of configs/*.yaml, and the judgement of what came of it.

Every store client goes through a proxy of its own (fault_proxy.py), so that one may fail alone.
"""

import collections
import concurrent.futures
import os
import random
import re
import signal
import tempfile
import threading
import time
import urllib.parse
import uuid

import botocore.exceptions
import grpc
import requests
import yaml
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

import oracle_spans
import otlp
import s3_servers
import tempo_block
from fault_proxy import FaultProxy
from mill import PATIENCE, PORT_NAMES, ROOT, Mill, balance_of, free_port, merged, run, wait_for

TENANTS = (None, "acme", None, "globex")  # of the senders
PARTITIONS = 6
BLOCK_ID = re.compile(r'"blockID":"([0-9a-f-]{36})"')
SESSION = 2.0  # seconds until a member that is silent loses its partitions


def sample(name):
    with open(os.path.join(ROOT, "configs", name), encoding="utf-8") as f:
        return yaml.safe_load(f)


def has_component(name):
    return f"name: {name}\n" in run("components")[1]


class Sender(threading.Thread):
    """Sends parts of traces one after another to any of the agents, each until it is acknowledged, as
    an SDK behind a load balancer does. `acked` is the ledger."""

    def __init__(self, bed, index, pause, by_http):
        super().__init__(daemon=True)
        self.bed, self.index, self.pause, self.by_http = bed, index, pause, by_http
        self.tenant = TENANTS[index % len(TENANTS)]
        self.acked = []  # (trace id, part, when)
        self.resent = 0
        self.wrong = []
        self.stopping = threading.Event()
        self.rng = random.Random(index)

    def run(self):
        channels = [otlp.Grpc(a.ports["grpc"]) for a in self.bed.agents]
        with requests.Session() as session:
            for trace_id, part in self.work():
                body = oracle_spans.Traces.request(trace_id, part).SerializeToString()
                while not self.attempt(body, channels, session):
                    self.resent += 1
                    time.sleep(0.05)
                self.acked.append((trace_id, part, time.monotonic()))
                if self.wrong:
                    return
        for channel in channels:
            channel.close()

    def work(self):
        """First parts; a second part when ten more traces have begun."""
        later = collections.deque()
        number = 0
        while not self.stopping.wait(self.pause):
            trace_id = self.bed.traces.trace_id(self.index, number)
            number += 1
            yield trace_id, 0
            if self.bed.traces.parts(trace_id) == 2:
                later.append((number + 10, trace_id))
            if later and later[0][0] <= number:
                yield later.popleft()[1], 1
        for _, trace_id in later:
            yield trace_id, 1

    def attempt(self, body, channels, session):
        i = self.rng.randrange(len(channels))
        if self.by_http:
            return self.post(session, self.bed.agents[i], body)
        try:
            answer = channels[i].call(body, timeout=3, tenant=self.tenant)
        except grpc.RpcError as e:
            if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                self.wrong.append(f"{e.code()} {e.details()}")
            return False
        return self.taken_whole(answer)

    def post(self, session, agent, body):
        headers = {"Content-Type": otlp.PROTOBUF}
        if self.tenant:
            headers["X-Scope-OrgID"] = self.tenant
        try:
            answer = session.post(agent.url("http", "/v1/traces"), data=body, headers=headers, timeout=3)
        except requests.RequestException:
            return False
        if answer.status_code in (429, 503):
            return False
        if answer.status_code != 200:
            self.wrong.append(f"{answer.status_code} {answer.text}")
            return False
        return self.taken_whole(service.ExportTraceServiceResponse.FromString(answer.content))

    def taken_whole(self, answer):
        if answer.partial_success.rejected_spans:
            self.wrong.append(str(answer.partial_success))
        return True


class Watcher(threading.Thread):
    """Asks for acknowledged traces while everything fails: a trace that a node has shown whole, in the
    blocks or in some builder's memory, is whole ever after (or the answer says that it is incomplete),
    and nothing is ever wrong."""

    def __init__(self, bed, node, seen):
        super().__init__(daemon=True)
        self.bed, self.node, self.seen = bed, node, seen
        self.problems = []
        self.asked, self.incomplete, self.whole, self.away = 0, 0, 0, 0
        self.stopping = threading.Event()

    def run(self):
        rng = random.Random(1)
        with requests.Session() as session:
            while not self.stopping.wait(0.03):
                acked = rng.choice(self.bed.senders).acked
                if not acked:
                    continue
                # half of them young ones, which are on their way
                young = acked[-min(len(acked), 60) :] if rng.random() < 0.5 else acked
                self.look(session, rng.choice(young)[0])

    def look(self, session, trace_id):
        was_seen = trace_id in self.seen
        try:
            found, complete = self.bed.ask(session, trace_id, self.node)
        except requests.RequestException:
            self.away += 1  # the node itself is
            return
        except AssertionError as e:
            self.problems.append(f"{self.node.name} {trace_id.hex()}: {e}")
            return
        self.asked += 1
        self.incomplete += not complete
        want = self.bed.traces.whole(trace_id)
        if any(want.get(s) != d for s, d in found.items()):
            self.problems.append(
                f"{self.node.name} {trace_id.hex()}: a span is altered, doubled or foreign"
            )
        elif found == want:
            self.whole += 1
            self.seen.add(trace_id)
        elif complete and was_seen:
            self.problems.append(
                f"{self.node.name} {trace_id.hex()}: was whole once, now {len(found)} of "
                f"{len(want)} spans are there"
            )


class Licences:
    """A block may be published only when a commit of a section or a record of a compaction names it:
    what the proxies saw of both."""

    def __init__(self):
        self.lock = threading.Lock()
        self.named, self.published = set(), {}
        self.rivals = 0  # commits that came before a builder's own

    def name(self, text):
        with self.lock:
            self.named |= set(BLOCK_ID.findall(text))

    def note(self, who, request, status):
        """What a server has done, or (None) may have done."""
        if request.method != "PUT" or status not in (200, None):
            return
        if "/_spanmill/commits/" in request.path or "/_spanmill/compactions/" in request.path:
            self.name(request.body.decode())
        elif request.path.endswith("/meta.json") and status == 200:
            with self.lock:
                self.published[request.path.split("/")[-2]] = who

    def check(self):
        foreign = {block: who for block, who in self.published.items() if block not in self.named}
        assert not foreign, f"published, and named by no commit: {foreign}"
        assert self.published


class Bed:
    """All processes of one run. start(), then faults from outside, then judge()."""

    def __init__(self, tmp, kafka, server, rng, pause=0.06):
        self.tmp, self.kafka, self.server, self.pause = str(tmp), kafka, server, pause
        self.traces = oracle_spans.Traces(random.SystemRandom().randbytes(4))
        replicas = len(kafka.brokers)
        insync = {"min_insync_replicas": 2} if replicas > 1 else {}
        self.topic = kafka.create_topic(partitions=PARTITIONS, **insync)
        self.n_partitions = PARTITIONS
        self.group = f"{self.topic}-builders"
        self.bucket = server.create_bucket()
        self.licences = Licences()
        self.proxies, self.mills, self.revived, self.used_ports = {}, [], 0, set()
        self.agents = [self.make(f"agent{i}", self.agent) for i in range(2)]
        self.builders = [self.make(f"builder{i}", self.builder) for i in range(3)]
        self.compactors = []
        if has_component("compactor"):
            self.compactors = [self.make(f"compactor{i}", self.compactor) for i in range(2)]
        self.query = self.make("query", self.query_node)  # asks blocks only
        self.queriers = [self.make(f"querier{i}", self.querier) for i in range(2)]
        self.front = self.make("front", self.front_end)
        self.senders = [Sender(self, i, pause, i % 2 == 1) for i in range(4)]
        self.watchers = [Watcher(self, self.query, set()), Watcher(self, self.front, set())]

    # -- configurations, as the samples are

    def make(self, name, config):
        folder = os.path.join(self.tmp, name)
        mill = Mill(
            folder, lambda p: config(p, name), ports=self.own_ports(), env=self.environment(name)
        )
        mill.name = name
        self.mills.append(mill)
        return mill

    def own_ports(self):
        """No two the same in this bed, also before anybody listens."""
        out = {}
        for name in PORT_NAMES:
            while (port := free_port()) in self.used_ports:
                pass
            self.used_ports.add(port)
            out[name] = port
        return out

    def environment(self, name):
        return {
            "KAFKA_TOPIC": self.topic, "KAFKA_GROUP": self.group, "GROUP_INSTANCE_ID": name,
            "STORE_BACKEND": "s3", "S3_BUCKET": self.bucket, "S3_INSECURE": "true",
            "S3_ACCESS_KEY": s3_servers.ACCESS, "S3_SECRET_KEY": s3_servers.SECRET,
            "AWS_ACCESS_KEY_ID": s3_servers.ACCESS, "AWS_SECRET_ACCESS_KEY": s3_servers.SECRET,
            "SPANMILL_TEST_STEP_DELAY_MS": "20",  # kills shall land between the steps of publishing
        }  # fmt: skip

    @staticmethod
    def listening(config, ports):
        """Every address of a configuration on a port of our own."""
        out = {
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{ports['health']}"}},
            "service": {
                "telemetry": {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}},
                "drain_timeout": "5s",
            },
        }
        if "query" in config["extensions"]:
            out["extensions"]["query"] = {"endpoint": f"127.0.0.1:{ports['query']}"}
        return merged(config, out)

    def agent(self, ports, _):
        own = {
            "receivers": {"otlp": {"protocols": {
                "grpc": {"endpoint": f"127.0.0.1:{ports['grpc']}"},
                "http": {"endpoint": f"127.0.0.1:{ports['http']}"},
            }}},
            "exporters": {"kafka": {
                "brokers": self.kafka.addresses, "metadata": {"refresh_interval": "2s"},
            }},
        }  # fmt: skip
        return self.listening(merged(sample("agent.yaml"), own), ports)

    def store(self, name):
        """The part of a trace_store: a proxy of its own before the bucket."""
        proxy = self.proxies[name] = FaultProxy(self.server.port)
        proxy.done = lambda request, status: self.licences.note(name, request, status)
        return {"extensions": {"trace_store": {
            "blocklist_poll": "1s",
            "s3": {"endpoint": proxy.endpoint, "retry_backoff_initial": "20ms"},
        }}}  # fmt: skip

    def builder(self, ports, name):
        own = {
            "receivers": {"kafka": {
                "brokers": self.kafka.addresses,
                "session_timeout": f"{int(SESSION * 1000)}ms",
                "heartbeat_interval": "500ms",
                "autocommit": {"interval": "200ms"},
                "metadata": {"refresh_interval": "2s"},
            }},
            "exporters": {"blocks": {"max_block_age": "1s"}},
        }  # fmt: skip
        config = merged(merged(sample("block-builder.yaml"), own), self.store(name))
        return self.listening(config, ports)

    def compactor(self, ports, name):
        # busy all the while: what builders cut is merged within a second, and deleted soon after
        own = {"extensions": {"compactor": {
            "compaction_cycle": "500ms",
            "compaction_window": "20s",
            "compacted_block_retention": "5s",
            "min_inputs": 2,
        }}}  # fmt: skip
        config = merged(merged(sample("compactor.yaml"), own), self.store(name))
        return self.listening(config, ports)

    def query_node(self, ports, name):
        own = {"extensions": {"query": {"builders": []}}}
        return self.listening(merged(merged(sample("query.yaml"), own), self.store(name)), ports)

    def querier(self, ports, name):
        """It asks the builders too."""
        builders = [f"127.0.0.1:{b.ports['query']}" for b in self.builders]
        own = {"extensions": {"query": {"builders": builders, "builder_timeout": "1s"}}}
        return self.listening(merged(merged(sample("query.yaml"), own), self.store(name)), ports)

    def front_end(self, ports, _):
        queriers = [f"127.0.0.1:{q.ports['query']}" for q in self.queriers]
        config = {
            "extensions": {"query": {"queriers": queriers, "querier_timeout": "3s"}, "health_check": {}},
            "service": {"extensions": ["query", "health_check"]},
        }
        return self.listening(config, ports)

    # -- life

    def start(self):
        for proxy in self.proxies.values():
            proxy.__enter__()
        for mill in self.mills:
            mill.start(ready=False)
        for mill in [*self.agents, *self.builders, self.query]:
            mill.wait_ready(60)
        for thread in [*self.senders, *self.watchers]:
            thread.start()
        return self

    def close(self):
        for thread in [*self.senders, *self.watchers]:
            thread.stopping.set()
        for mill in self.mills:
            if mill.process is not None:
                mill.process.send_signal(signal.SIGCONT)
                mill.kill()
        for proxy in self.proxies.values():
            if proxy.thread.is_alive():
                proxy.__exit__()

    def status(self):
        acked = sum(len(s.acked) for s in self.senders)
        resent = sum(s.resent for s in self.senders)
        asked = ", ".join(
            f"{w.node.name} asked {w.asked} times: {w.whole} whole, {w.incomplete} incomplete"
            for w in self.watchers
        )
        return f"{acked} requests acknowledged, {resent} sent again; {asked}"

    def of_lane(self, name):
        """The processes that faults of one kind are about."""
        return {
            "agents": self.agents,
            "builders": self.builders,
            "compactors": self.compactors,
            "query": [*self.queriers, self.front, self.query],
        }.get(name, ())

    def revive(self, mills):
        """What a supervisor does: who could not start because its store was away is started again;
        nobody else may end."""
        for mill in mills:
            process = mill.process
            if process is None or process.poll() is None:
                continue
            words = mill.stderr()
            assert process.returncode == 2 and "cannot start" in words and "s3" in words, (
                f"{mill.tmp} exited {process.returncode}:\n{words[-4000:]}"
            )
            self.revived += 1
            mill.process = None
            mill.start(ready=False)

    def check_answers_so_far(self):
        """Whether somebody got an answer that nobody may get."""
        for sender in self.senders:
            assert not sender.wrong, sender.wrong
        for watcher in self.watchers:
            assert not watcher.problems, "\n".join(watcher.problems[:20])

    def commit_copy(self, request):
        """Commit the section that this request is about to commit, with copies of its blocks: what an
        owner does that was a little faster. False: somebody has committed it."""
        client, text = self.server.client, request.body.decode()
        key = urllib.parse.unquote(request.path).removeprefix(f"/{self.bucket}/")
        for block in set(BLOCK_ID.findall(text)):
            copy = str(uuid.uuid4())
            for part in self.server.keys(self.bucket):
                if f"/{block}/" in part:
                    body = self.server.read(self.bucket, part)
                    client.put_object(Bucket=self.bucket, Key=part.replace(block, copy), Body=body)
            text = text.replace(block, copy)
        text = re.sub(r',"crc":"[0-9a-f]{8}"}$', "}", text)  # older commits have none
        try:
            client.put_object(Bucket=self.bucket, Key=key, Body=text, IfNoneMatch="*")
        except botocore.exceptions.ClientError:
            return False
        self.licences.name(text)
        self.licences.rivals += 1
        return True

    # -- judgement

    def ask(self, session, trace_id, node):
        """({span id: digest}, is the answer complete) of a look-up by one of the query nodes."""
        headers = {"Accept": "application/protobuf"}
        tenant = TENANTS[self.traces.client_of(trace_id) % len(TENANTS)]
        if tenant:
            headers["X-Scope-OrgID"] = tenant
        where = node.url("query", f"/api/traces/{trace_id.hex()}")
        answer = session.get(where, headers=headers, timeout=60)
        if answer.status_code in (404, 503):
            return {}, answer.status_code == 404
        assert answer.status_code in (200, 206), f"{answer.status_code} {answer.text[:300]}"
        found = oracle_spans.digests(trace.TracesData.FromString(answer.content))
        return found, answer.status_code == 200

    def ask_fully(self, session, trace_id, node):
        """The same; an answer that says it is incomplete (a machine may be too busy for a time-out)
        is asked for again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found, complete = self.ask(session, trace_id, node)
            if complete or time.monotonic() > deadline:
                return found, complete
            time.sleep(0.2)

    def finish(self):
        """Senders end (everything they sent is acknowledged), what is on its way arrives."""
        wait_for("everybody to be ready", self.is_ready, 60, 0.2)
        for sender in self.senders:
            sender.stopping.set()
        for sender in self.senders:
            sender.join(180)
            assert not sender.is_alive(), "a request is not acknowledged within 180 s"
        for agent in self.agents:
            wait_for("an empty disk queue", lambda a=agent: a.metric("spanmill_held_spans") == 0, 90)
        self.wait_committed()
        self.check_answers_so_far()

    def is_ready(self):
        running = [m for m in self.mills if m.process is not None]
        self.revive(running)
        return all(m.is_ready() for m in running)

    @staticmethod
    def stop_one(mill):
        """SIGTERM; a process that cannot start, because its store is away, says so instead."""
        mill.process.send_signal(signal.SIGTERM)
        status = mill.wait_exit(30)
        mill.process = None
        words = mill.stderr()
        if status == -signal.SIGTERM and not words:
            return  # it had hardly begun
        if status == 2 and "cannot start" in words and "s3" in words:
            return
        if status == -signal.SIGTERM and not words:
            return  # before it had begun: a loaded machine takes long to come to main()
        assert status == 0, f"{mill.tmp} exited {status}:\n{words[-4000:]}"
        balance_of(words)

    def wait_committed(self):
        def is_there():
            ends = {p: o for p, o in self.kafka.end_offsets(self.topic).items() if o > 0}
            at = self.kafka.committed(self.group, self.topic)
            return all(at.get(p, 0) == o for p, o in ends.items())

        wait_for("offsets at the end of the topic", is_there, 120, step=0.3)

    def judge(self):
        """Every acknowledged span is in the topic, in the blocks and in the answers, unaltered; none is
        in the blocks more often than in the topic, none twice in an answer; nothing is foreign."""
        acked = {t for s in self.senders for t, _, _ in s.acked}
        spans = {s for t in acked for s in self.traces.whole(t)}
        produced = self.count("the topic", self.in_topic())
        lost = spans - set(produced)
        assert not lost, f"{len(lost)} of {len(spans)} acknowledged spans are not in the topic"
        stored = self.stored(spans, produced)
        for watcher in self.watchers:
            watcher.stopping.set()
        for watcher in self.watchers:
            watcher.join(70)
        wait_for("two polls of the block list", self.sees_all_blocks, 30)
        self.check_answers(self.query, sorted(acked))
        self.check_answers(self.front, random.sample(sorted(acked), min(300, len(acked))))
        self.licences.check()
        return (
            f"{len(acked)} traces, {len(spans)} spans; copies: {sum(produced.values()) - len(spans)} "
            f"in the topic, {sum(stored.values()) - len(spans)} in the blocks"
        )

    def stored(self, spans, produced):
        """What the blocks hold; a compaction that was interrupted is finished by the next cycle."""
        deadline = time.monotonic() + (240 if self.compactors else 0)
        while True:
            stored, before = {}, set()
            try:
                before = self.visible()
                stored = self.count("the blocks", self.in_blocks(before))
                is_still = self.visible() == before
            except botocore.exceptions.ClientError:
                is_still = False  # a block went while it was read
            lost = spans - set(stored)
            assert not is_still or not lost, (
                f"{len(lost)} of {len(spans)} acknowledged spans are in no block"
            )
            more = [s for s, n in stored.items() if n > produced[s]]
            if is_still and not more:
                self.n_blocks = len(before)
                return stored
            if time.monotonic() > deadline:
                assert is_still, "blocks come and go without an end"
                assert not more, f"{len(more)} spans are in more blocks than records: stored twice"

    def count(self, what, rows):
        """How often each span id is among the rows; each must be one that we sent, as we sent it."""
        out = collections.Counter()
        for trace_id, span_id, digest in rows:
            assert self.traces.is_own(trace_id), f"{what}: a foreign trace {trace_id.hex()}"
            want = self.traces.whole(trace_id).get(span_id)
            assert want is not None, f"{what}: {trace_id.hex()} has a foreign span {span_id.hex()}"
            assert want == digest, f"{what}: span {span_id.hex()} of {trace_id.hex()} is altered"
            out[span_id] += 1
        return out

    def in_topic(self):
        for record in self.kafka.consume_all(self.topic):
            yield from oracle_spans.rows(service.ExportTraceServiceRequest.FromString(record.value))

    def visible(self):
        """The folders of blocks that a reader would take."""
        keys = self.server.keys(self.bucket)
        folders = {k.rpartition("/")[0] for k in keys if k.endswith("/meta.json")}
        folders &= {k.rpartition("/")[0] for k in keys if k.endswith("/data")}
        return folders - {k.rpartition("/")[0] for k in keys if k.endswith("/meta.compacted.json")}

    def in_blocks(self, visible):
        keys = self.server.keys(self.bucket)
        with tempfile.TemporaryDirectory() as folder:
            for key in keys:
                if key.rpartition("/")[0] in visible:
                    path = os.path.join(folder, key)
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as f:
                        f.write(self.server.read(self.bucket, key))
            for block in visible:
                for o in tempo_block.read_block(os.path.join(folder, block)).objects:
                    yield from oracle_spans.rows(o.merged())

    def check_answers(self, node, trace_ids):
        """Each of them by query, four at a time, complete and exact."""

        def chunk(ids):
            bad = []
            with requests.Session() as session:
                for trace_id in ids:
                    found, complete = self.ask_fully(session, trace_id, node)
                    want = self.traces.whole(trace_id)
                    if not complete or found != want:
                        bad.append(f"{trace_id.hex()}: {len(found)} of {len(want)}, {complete=}")
            return bad

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            problems = [p for bad in pool.map(chunk, (trace_ids[i::4] for i in range(4))) for p in bad]
        assert not problems, (
            f"{node.name}: {len(problems)} of {len(trace_ids)}:\n" + "\n".join(problems[:20])
        )

    def sees_all_blocks(self):
        """Every node that has a list polled twice since this was first asked: a poll lists the
        bucket and each tenant, and one may have been under way."""
        nodes = [self.query, *self.queriers]
        lists = [node.metric("spanmill_s3_requests", op="list") for node in nodes]
        if not hasattr(self, "polled"):
            self.polled = lists
        return all(n >= old + 3 * (1 + len(set(TENANTS))) for n, old in zip(lists, self.polled))

    def stop(self):
        """In good order: exit status 0, counts in balance."""
        for mill in self.mills:
            if mill.process is not None:
                self.stop_one(mill)
