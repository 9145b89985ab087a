"""What tests/tools/run-kafka runs: a broker, an S3 server and one process per sample configuration.

The processes live in a session of their own, so that a ctrl-c of the terminal reaches this one
only, which then ends them in order: who takes spans first, the broker and the bucket last.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

import kafka_bed  # noqa: E402
import s3_servers  # noqa: E402
from mill import BINARY, free_port, opens  # noqa: E402

TOPIC, BUCKET, PARTITIONS = "otlp_spans", "traces", 6
PORTS = {
    "agent": {"grpc": 4317, "http": 4318, "health": 13133, "metrics": 8888},
    "gateway": {"grpc": 14317, "http": 14318, "zipkin": 9411, "health": 13134, "metrics": 8889},
    "builder": {"query": 3201, "health": 13135, "metrics": 8890},
    "compactor": {"health": 13136, "metrics": 8891},
    "query": {"query": 3200, "health": 13137, "metrics": 8892},
    "kafka": {"broker": 9092, "controller": 9093},
    "s3": {"s3": 8333, "master": 9333, "volume": 8380, "filer": 8388},
}
FOLLOWS = ("s3", "master", "volume", "filer")  # SeaweedFS takes the port 10000 above too


class Trouble(Exception):
    """Something that the user can do something about."""


def free_ports():
    """Free ports for every process, no two the same."""
    used, out = set(), {}
    for process, names in PORTS.items():
        for name in names:
            port = None
            while port is None or {port, port + 10000} & used:
                port = s3_servers.port_pair() if name in FOLLOWS else free_port()
            used |= {port, port + 10000} if name in FOLLOWS else {port}
            out.setdefault(process, {})[name] = port
    return out


def choose_ports(anywhere):
    """The ports of every process; fixed ones must be free."""
    if anywhere:
        return free_ports()
    taken = [
        f"{port} ({process} {name})"
        for process, names in PORTS.items()
        for name, first in names.items()
        for port in ((first, first + 10000) if name in FOLLOWS else (first,))
        if opens(port)
    ]
    if taken:
        raise Trouble(f"somebody listens already on port {', '.join(taken)}; --free-ports takes others")
    return PORTS


def start_broker(folder, ports):
    kafka = kafka_bed.Kafka(os.path.join(folder, "kafka"))
    broker = kafka.brokers[0]
    broker.port, broker.controller_port = ports["broker"], ports["controller"]
    kafka.format()
    with open(broker.config, "w", encoding="utf-8") as f:  # the ports may be others than at first
        f.writelines(f"{k}={v}\n" for k, v in broker.properties().items())
    broker.start()
    return kafka


def make_topic(kafka):
    kafka.wait_ready()
    if TOPIC not in kafka.admin().list_topics(timeout=10).topics:
        kafka.create_topic(TOPIC, partitions=PARTITIONS)


def start_bucket(folder, ports):
    server = s3_servers.Seaweed(os.path.join(folder, "s3"))
    server.port = ports["s3"]
    server.ports = {name: ports[name] for name in ("master", "volume", "filer")}
    server.start()
    if BUCKET not in [b["Name"] for b in server.client.list_buckets()["Buckets"]]:
        server.client.create_bucket(Bucket=BUCKET)
    return server


def store(endpoint):
    """--set of a trace_store in the bucket."""
    keys = {
        "endpoint": endpoint.split("//")[1], "bucket": BUCKET, "access_key": s3_servers.ACCESS,
        "secret_key": s3_servers.SECRET, "insecure": "true", "forcepathstyle": "true",
    }  # fmt: skip
    at = "extensions.trace_store."
    return {at + "backend": "s3", at + "blocklist_poll": "2s"} | {at + f"s3.{k}": v for k, v in keys.items()}


class Part:
    """One process in the shape of configs/NAME.yaml, in a folder of its own."""

    def __init__(self, folder, name, sample, ports, settings, env=None):
        self.name, self.dir, self.ports = name, os.path.join(folder, name), ports
        settings = self.addresses() | settings
        sample = os.path.join(ROOT, "configs", sample)
        self.command = [BINARY, "--config", sample]
        self.command += [f"--set={key}={value}" for key, value in settings.items()]
        self.env = {**os.environ, **(env or {})}
        self.process = None

    def addresses(self):
        """--set of every address it listens on."""
        keys = {
            "grpc": "receivers.otlp.protocols.grpc.endpoint",
            "http": "receivers.otlp.protocols.http.endpoint",
            "zipkin": "receivers.zipkin.endpoint",
            "query": "extensions.query.endpoint",
            "health": "extensions.health_check.endpoint",
            "metrics": "service.telemetry.metrics.address",
        }
        return {keys[name]: f"127.0.0.1:{port}" for name, port in self.ports.items()}

    @property
    def carries_spans(self):
        return self.name in ("agent", "gateway", "builder")

    @property
    def log(self):
        return os.path.join(self.dir, "log")

    def start(self):
        os.makedirs(self.dir, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir, env=self.env
            )

    def last_words(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-5:])

    def is_ready(self):
        import requests

        if self.process.poll() is not None:
            raise Trouble(f"{self.name} exited {self.process.returncode}:\n{self.last_words()}")
        try:
            return requests.get(f"http://127.0.0.1:{self.ports['health']}/", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.returncode != 0:
            print(f"{self.name} exited {self.process.returncode}: {self.last_words()}", flush=True)
        elif self.carries_spans:
            books = self.last_words().rpartition("spanmill stopped ")[2].strip()
            print(f"  {self.name:<9} {books}", flush=True)


def parts_of(folder, ports, endpoint):
    broker = {"KAFKA_BROKER": f"127.0.0.1:{ports['kafka']['broker']}", "KAFKA_TOPIC": TOPIC}
    builders = {"extensions.query.builders": f"[127.0.0.1:{ports['builder']['query']}]"}
    return [
        # cut often: there is something to see, and to compact
        Part(folder, "builder", "block-builder.yaml", ports["builder"],
             store(endpoint) | {"exporters.blocks.max_block_age": "5s"}, broker),
        Part(folder, "compactor", "compactor.yaml", ports["compactor"], store(endpoint)),
        Part(folder, "query", "query.yaml", ports["query"], store(endpoint) | builders),
        Part(folder, "agent", "agent.yaml", ports["agent"], {}, broker),
        Part(folder, "gateway", "gateway.yaml", ports["gateway"], {}, broker),
    ]  # fmt: skip


def say(folder, ports, parts, endpoint):
    at = {name: {n: f"127.0.0.1:{p}" for n, p in own.items()} for name, own in ports.items()}
    metrics = "   ".join(f"{p.name} http://{at[p.name]['metrics']}/metrics" for p in parts)
    flags = "" if ports is PORTS else f" --endpoint {at['agent']['grpc']}"
    get = "" if ports is PORTS else f" --endpoint http://{at['query']['query']}"
    print(
        f"""Ready: agent and gateway -> Kafka -> block builder -> bucket (and compactor) -> query. Stop it with ctrl-c.
  send    agent    OTLP gRPC {at["agent"]["grpc"]}   OTLP HTTP http://{at["agent"]["http"]}/v1/traces
          gateway  OTLP gRPC {at["gateway"]["grpc"]}   OTLP HTTP http://{at["gateway"]["http"]}/v1/traces
                   Zipkin http://{at["gateway"]["zipkin"]}/api/v2/spans
  try     build/spanmill gen --traces 1{flags}          (prints a trace id)
  look    build/spanmill get{get} --wait 10s <trace id>   or  curl -s http://{at["query"]["query"]}/api/traces/<trace id>
  broker  {at["kafka"]["broker"]}, topic {TOPIC}, {PARTITIONS} partitions
  bucket  {endpoint}/{BUCKET}   access key {s3_servers.ACCESS}   secret key {s3_servers.SECRET}
  watch   {metrics}
  files   {folder}: queues, logs, the broker's and the bucket's data; remove it to begin anew""",
        flush=True,
    )


class Run:
    """Everything that was started, to be stopped in order."""

    def __init__(self, folder):
        self.folder, self.parts, self.kafka, self.server = folder, [], None, None

    def start(self, anywhere):
        ports = choose_ports(anywhere)
        os.makedirs(self.folder, exist_ok=True)
        print("starting a Kafka broker and an S3 server", flush=True)
        self.kafka = start_broker(self.folder, ports["kafka"])
        self.server = start_bucket(self.folder, ports["s3"])
        make_topic(self.kafka)
        with open(os.path.join(self.folder, "ports.json"), "w", encoding="ascii") as f:
            json.dump(ports, f)
        print("starting spanmill", flush=True)
        self.parts = parts_of(self.folder, ports, self.server.endpoint)
        for part in self.parts:
            part.start()
        for part in self.parts:
            kafka_bed.wait_for(f"{part.name} to be ready: {part.log}", part.is_ready, 60)
        say(self.folder, ports, self.parts, self.server.endpoint)

    def watch(self, stopping):
        """Until somebody says stop, or a part ends by itself."""
        while not stopping.wait(0.5):
            for part in self.parts:
                if part.process.poll() is not None:
                    raise Trouble(f"{part.name} exited {part.process.returncode}:\n{part.last_words()}")
            self.kafka.brokers[0].check_alive()

    def stop(self):
        print("stopping", flush=True)
        for part in sorted(self.parts, key=lambda p: p.name not in ("agent", "gateway")):
            part.stop()
        for broker in self.kafka.brokers if self.kafka else ():
            broker.stop(timeout=5)
        if self.server and self.server.process:
            self.server.process.terminate()
            try:
                self.server.process.wait(10)
            except subprocess.TimeoutExpired:
                self.server.kill()


def work(args):
    """In the session of its own: run until the other process closes the pipe."""
    stopping = threading.Event()

    def wait_for_the_end():
        os.read(0, 1)
        stopping.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    run = Run(args.dir)
    try:
        run.start(args.free_ports)
        run.watch(stopping)
        return 0
    except (Trouble, AssertionError) as e:
        if not stopping.is_set():
            print(f"run-kafka: {e}", file=sys.stderr, flush=True)
            return 1
        return 0
    finally:
        run.stop()


def main():
    parser = argparse.ArgumentParser(prog="run-kafka", description="The whole pipeline on this machine.")
    parser.add_argument("--dir", default=os.path.join(ROOT, "data", "run-kafka"))
    parser.add_argument("--free-ports", action="store_true", help="choose ports that are free")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.dir = os.path.abspath(args.dir)
    if args.worker:
        return work(args)
    worker = subprocess.Popen(
        [sys.executable, __file__, "--worker", *sys.argv[1:]], stdin=subprocess.PIPE, start_new_session=True
    )
    stop = lambda *_: worker.stdin.closed or worker.stdin.close()  # noqa: E731
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    while worker.poll() is None:
        time.sleep(0.1)
    return worker.returncode


if __name__ == "__main__":
    sys.exit(main())
