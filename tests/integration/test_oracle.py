"""The oracle: agents -> Kafka -> builders -> a bucket -> query, while all of them are killed, frozen,
moved and lied to at random. Every acknowledged span comes back once and unaltered, and nothing else.

The seed is printed; SPANMILL_SEED repeats a run's choices. SPANMILL_SOAK_SECONDS makes it a soak of
rounds, each with a topic and a bucket of its own (make soak); SPANMILL_BROKERS=3 gives it a cluster."""

import os
import random
import signal
import threading
import time
import traceback

import pytest

from kafka_bed import Kafka
from mill import SANITIZED
from oracle_bed import SESSION, Bed

SEED = int(os.environ.get("SPANMILL_SEED", random.SystemRandom().randrange(10**6)))
SOAK = float(os.environ.get("SPANMILL_SOAK_SECONDS", 0))
BROKERS = int(os.environ.get("SPANMILL_BROKERS", 1))
ROUND = 300.0  # seconds of a soak's round
EPISODES = {"agents": 12, "builders": 10, "store": 12, "broker": 3, "query": 5, "compactors": 6}


class Lane(threading.Thread):
    """Faults of one kind, one after another; lanes run beside each other."""

    def __init__(self, bed, name, seed, episodes, until):
        super().__init__(daemon=True)
        self.bed, self.name, self.episodes, self.until = bed, name, episodes, until
        self.rng = random.Random(f"{seed} {name}")
        # each once, then by chance
        self.faults = list(FAULTS[name])
        self.first = self.rng.sample(sorted(set(self.faults), key=lambda f: f.__name__), k=len(set(self.faults)))
        self.done = []
        self.failed = None

    def run(self):
        mine = self.bed.of_lane(self.name)  # nobody else touches these processes
        try:
            while len(self.done) < self.episodes or time.monotonic() < self.until:
                self.bed.revive(mine)
                fault = self.first.pop() if self.first else self.rng.choice(self.faults)
                fault(self.bed, self.rng)
                self.done.append(fault.__name__)
                time.sleep(self.rng.uniform(0.3, 1.5))
        except BaseException:
            self.failed = f"{self.name}, episode {len(self.done)}:\n{traceback.format_exc()}"


def kill(mill):
    mill.kill()
    mill.start(ready=False)


def frozen(mill, seconds):
    mill.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    mill.process.send_signal(signal.SIGCONT)


def kill_agent(bed, rng):
    kill(rng.choice(bed.agents))


def kill_agent_in_replay(bed, rng):
    agent = rng.choice(bed.agents)
    for _ in range(rng.randrange(2, 4)):
        kill(agent)
        time.sleep(rng.uniform(0, 0.1))


def freeze_agent(bed, rng):
    frozen(rng.choice(bed.agents), rng.uniform(0.2, 2))


def restart_agent(bed, rng):
    agent = rng.choice(bed.agents)
    bed.stop_one(agent)
    agent.start(ready=False)


def kill_builder(bed, rng):
    time.sleep(rng.uniform(0, 1.5))  # anywhere between two sections
    kill(rng.choice(bed.builders))


def kill_builder_for_good(bed, rng):
    """Away for longer than its session: the other one takes over, then it comes back."""
    builder = rng.choice(bed.builders)
    builder.kill()
    time.sleep(SESSION + rng.uniform(0.5, 2))
    builder.start(ready=False)


def freeze_builder(bed, rng):
    """It wakes up after its partitions have moved and believes to own them still."""
    frozen(rng.choice(bed.builders), SESSION + rng.uniform(0.5, 5))


def freeze_builder_at_step(bed, rng):
    """In the middle of writing a section; what it asked of the store arrives at once, or only after
    others have its partitions."""
    builder = rng.choice(bed.builders)
    step = rng.choice(("/data", "/index", "/_spanmill/commits/", "/meta.json"))
    late = rng.choice((None, SESSION + 5))
    is_frozen = threading.Event()

    def behave(request):
        if request.method != "PUT" or step not in request.path or is_frozen.is_set():
            return None
        is_frozen.set()
        builder.process.send_signal(signal.SIGSTOP)
        return late

    bed.proxies[builder.name].behave = behave
    is_frozen.wait(4)
    # long enough for the others to have its partitions, and a section of them committed
    frozen(builder, SESSION + rng.uniform(3, 6))
    bed.proxies[builder.name].behave = None


def lose_commit(bed, rng):
    """A builder's put finds that somebody committed its section just before."""
    is_done = threading.Event()
    lock = threading.Lock()

    def arriving(request):
        if request.method != "PUT" or "/_spanmill/commits/" not in request.path:
            return
        with lock:
            if not is_done.is_set() and b'"blockID"' in request.body and bed.commit_copy(request):
                is_done.set()

    for builder in bed.builders:
        bed.proxies[builder.name].arriving = arriving
    assert is_done.wait(180), "no builder commits"
    for builder in bed.builders:
        bed.proxies[builder.name].arriving = None


def freeze_builder_shortly(bed, rng):
    frozen(rng.choice(bed.builders), rng.uniform(0.2, SESSION - 0.5))


def restart_builder(bed, rng):
    builder = rng.choice(bed.builders)
    bed.stop_one(builder)
    builder.start(ready=False)


def leave_and_join(bed, rng):
    """One leaves, in order or by kill -9, the others take its share; it comes back and takes some."""
    builder = rng.choice(bed.builders)
    if rng.random() < 0.5:
        builder.kill()
    else:
        bed.stop_one(builder)
    time.sleep(rng.uniform(2, 5))
    builder.start(ready=False)
    time.sleep(rng.uniform(1, 3))


def misbehave(bed, rng, behave, low=1.5, high=4):
    """One store client's proxy, or all of them, for a while."""
    names = sorted(bed.proxies)
    for name in names if rng.random() < 0.3 else [rng.choice(names)]:
        bed.proxies[name].behave = behave
    time.sleep(rng.uniform(low, high))
    for proxy in bed.proxies.values():
        proxy.behave = None


def store_slows_down(bed, rng):
    misbehave(bed, rng, lambda r: "503" if rng.random() < 0.5 else None)


def store_is_away(bed, rng):
    misbehave(bed, rng, lambda r: "cut")


def store_loses_answers(bed, rng):
    """The deed is done, the answer does not come."""
    misbehave(bed, rng, lambda r: "swallow" if r.method != "GET" and rng.random() < 0.5 else None)


def store_loses_commits(bed, rng):
    """Every conditional put takes place, and nobody is told."""
    misbehave(bed, rng, lambda r: "swallow" if r.method == "PUT" and "/_spanmill/" in r.path else None)


def store_commits_late(bed, rng):
    misbehave(bed, rng, lambda r: rng.uniform(0.5, 2.5) if "/_spanmill/" in r.path else None)


def store_halves_answers(bed, rng):
    misbehave(bed, rng, lambda r: "half" if r.method == "GET" and rng.random() < 0.3 else None)


def store_is_slow(bed, rng):
    misbehave(bed, rng, lambda r: rng.uniform(0, 0.8))


def kill_broker(bed, rng):
    broker = rng.choice(bed.kafka.brokers)
    broker.kill()
    time.sleep(rng.uniform(0, 3))
    broker.start()
    bed.kafka.wait_ready()
    time.sleep(rng.uniform(4, 8))


def freeze_broker(bed, rng):
    broker = rng.choice(bed.kafka.brokers)
    broker.freeze()
    time.sleep(rng.uniform(1, 6))
    broker.thaw()
    time.sleep(rng.uniform(4, 8))


def grow_topic(bed, rng):
    """Traces whose parts come before and after lie in two partitions."""
    bed.n_partitions += 1
    bed.kafka.grow_topic(bed.topic, bed.n_partitions)
    time.sleep(rng.uniform(2, 4))


def kill_compactor(bed, rng):
    time.sleep(rng.uniform(0, 2))
    kill(rng.choice(bed.compactors))


def freeze_compactor(bed, rng):
    frozen(rng.choice(bed.compactors), rng.uniform(0.5, 6))


def kill_query_node(bed, rng):
    kill(rng.choice([*bed.queriers, bed.front]))


def freeze_querier(bed, rng):
    frozen(rng.choice(bed.queriers), rng.uniform(0.5, 5))


FAULTS = {
    "agents": (kill_agent, kill_agent, kill_agent_in_replay, freeze_agent, restart_agent),
    "builders": (
        kill_builder, kill_builder, kill_builder_for_good, freeze_builder, freeze_builder_at_step,
        freeze_builder_at_step, lose_commit, freeze_builder_shortly, restart_builder, leave_and_join,
    ),
    "store": (
        store_slows_down, store_is_away, store_loses_answers, store_loses_commits,
        store_commits_late, store_halves_answers, store_is_slow,
    ),
    "query": (kill_query_node, freeze_querier),
    "broker": (kill_broker, kill_broker, freeze_broker, grow_topic),
    "compactors": (kill_compactor, kill_compactor, freeze_compactor),
}  # fmt: skip


def fail_all_over(bed, seed, seconds):
    """Every lane until it has its episodes and the time is over; returns what was done."""
    until = time.monotonic() + seconds
    lanes = [
        Lane(bed, name, seed, EPISODES[name], until)
        for name in FAULTS
        if name != "compactors" or bed.compactors
    ]
    for lane in lanes:
        lane.start()
    start = said = time.monotonic()
    while any(lane.is_alive() for lane in lanes):
        time.sleep(0.2)
        bad = [lane.failed for lane in lanes if lane.failed]
        assert not bad, bad[0]
        bed.check_answers_so_far()
        if time.monotonic() > said + 10:
            said = time.monotonic()
            n = sum(len(lane.done) for lane in lanes)
            print(f"[{said - start:4.0f} s] {n} episodes, {bed.status()}", flush=True)
    return [fault for lane in lanes for fault in lane.done]


def one_round(tmp, kafka, server, seed, seconds):
    print(f"SPANMILL_SEED={seed}", flush=True)
    bed = Bed(tmp, kafka, server, seed)
    try:
        start = time.monotonic()
        bed.start()
        time.sleep(1)
        done = fail_all_over(bed, seed, seconds)
        failed_at = time.monotonic()
        bed.finish()
        finished_at = time.monotonic()
        ledger = bed.judge()
        bed.check_answers_so_far()
        bed.stop()
        counts = {f: done.count(f) for f in sorted(set(done))}
        print(f"{len(done)} episodes: {counts}\n{bed.status()}\n{ledger}, {bed.n_blocks} blocks")
        print(
            f"start and faults {failed_at - start:.0f} s, until all was stored "
            f"{finished_at - failed_at:.0f} s, judgement {time.monotonic() - finished_at:.0f} s",
            flush=True,
        )
        return len(done)
    except BaseException:
        for mill in bed.mills:
            if mill.runs:
                print(f"---- {mill.tmp}, run {mill.runs}\n{mill.stderr()[-3000:]}")
        raise
    finally:
        bed.close()


@pytest.mark.skipif(SANITIZED, reason="sanitizers make it a test of patience")
@pytest.mark.timeout(0 if SOAK else 900)
def test_every_acknowledged_span_comes_back_once(tmp_path, kafka_installed, soak_store):
    end = time.monotonic() + SOAK
    n_round = 0
    with Kafka(tmp_path / "kafka", BROKERS) as kafka:
        while n_round == 0 or time.monotonic() < end:
            seconds = min(ROUND, max(0, end - time.monotonic()))
            n = one_round(tmp_path / f"round{n_round}", kafka, soak_store, SEED + n_round, seconds)
            assert n >= 30
            n_round += 1
