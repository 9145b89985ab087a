"""Real Kafka brokers in KRaft mode: 1 to 3 of them in a directory, on ports of their own.

    with Kafka(tmp, n=1) as kafka:
        kafka.create_topic("spans", partitions=4)
        ...
        records = kafka.consume_all("spans")

A broker is ready when its cluster's metadata says so, not when its port opens. The brokers come from
tests/tools/install-kafka; the Python client is confluent-kafka. `kafka_bed.py --archive FILE` runs
one broker to make the class-data archive (what install-kafka does); `--serve DIR TOPIC=PARTITIONS..`
runs one with these topics, says its address, and ends when its input does (what benches do).
"""

import collections
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOME = os.path.join(ROOT, "build", "kafka")
ARCHIVE = os.path.join(HOME, "kafka.jsa")
CLUSTER_ID = "c3Bhbm1pbGwtdGVzdC1iZQ"  # 16 bytes in base64
USER, PASSWORD = "mill", "mill-secret"

# of a cluster that can forbid something
ACLS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}

Record = collections.namedtuple("Record", "topic partition offset key value headers timestamp")


def installed():
    """The class path of the brokers; installs them when they are not there."""
    subprocess.run([os.path.join(ROOT, "tests", "tools", "install-kafka")], check=True)
    return class_path()


def class_path():
    with open(os.path.join(HOME, "classpath"), encoding="utf-8") as f:
        return f.read().strip()


def java(main, *args, options=(), heap="256m"):
    """The command line of a Java program of the brokers' class path."""
    flags = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Xmx{heap}", "-Xshare:auto"]
    return ["java", *flags, *options, "-cp", class_path(), main, *args]


def free_port():
    for _ in range(200):
        port = random.SystemRandom().randrange(15000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


def wait_for(what, condition, timeout=60.0, step=0.05):
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(step)


def newer_librdkafka(tmp):
    """An environment in which the program loads the librdkafka of the Python client instead of
    Debian's, whose SCRAM Kafka 4 refuses."""
    import confluent_kafka

    libs = os.path.join(os.path.dirname(os.path.dirname(confluent_kafka.__file__)), "confluent_kafka.libs")
    found = [f for f in os.listdir(libs) if f.startswith("librdkafka")]
    os.makedirs(tmp, exist_ok=True)
    os.symlink(os.path.join(libs, found[0]), os.path.join(str(tmp), "librdkafka.so.1"))
    return {"LD_LIBRARY_PATH": str(tmp)}


class Broker:
    """One process, broker and controller in one. It keeps its ports and its data over restarts."""

    def __init__(self, kafka, node):
        self.kafka, self.node = kafka, node
        self.dir = os.path.join(kafka.dir, f"broker{node}")
        self.choose_ports()
        self.log = os.path.join(self.dir, "log")
        self.config = os.path.join(self.dir, "server.properties")
        self.process = None

    def choose_ports(self):
        self.port, self.controller_port = free_port(), free_port()
        self.secure_port = free_port() if self.kafka.secure else None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def properties(self):
        kafka = self.kafka
        replicas = min(len(kafka.brokers), 3)
        own = [("PLAINTEXT", self.port), ("CONTROLLER", self.controller_port)]
        if kafka.secure:
            own.append(("SASL_SSL", self.secure_port))
        listeners = [f"{name}://127.0.0.1:{port}" for name, port in own]
        voters = [f"{b.node}@127.0.0.1:{b.controller_port}" for b in kafka.brokers]
        out = {
            "process.roles": "broker,controller",
            "node.id": self.node,
            "controller.quorum.voters": ",".join(voters),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(a for a in listeners if "CONTROLLER" not in a),
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
            "log.dirs": os.path.join(self.dir, "data"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.num.partitions": 2,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.num.partitions": 2,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            "log.cleaner.dedupe.buffer.size": 8388608,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "background.threads": 2,
            "controlled.shutdown.enable": "true",
        }
        if kafka.secure:
            out.update(kafka.secure.properties())
        out.update(kafka.config)
        return out

    def format(self):
        """Write the configuration and start to format the data directory; None when that was done."""
        if os.path.exists(os.path.join(self.dir, "data", "meta.properties")):
            return None
        os.makedirs(self.dir, exist_ok=True)
        with open(self.config, "w", encoding="utf-8") as f:
            f.writelines(f"{k}={v}\n" for k, v in self.properties().items())
        command = java(
            "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", self.config,
            *(self.kafka.secure.format_arguments() if self.kafka.secure else ()),
            options=self.kafka.java_options,
        )  # fmt: skip
        with open(self.log, "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def start(self):
        assert self.process is None, f"broker {self.node} runs already"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                java("kafka.Kafka", self.config, options=self.kafka.java_options),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.dir,
            )  # fmt: skip
        return self

    def check_alive(self):
        status = self.process.poll()
        assert status is None, f"broker {self.node} exited {status}:\n{self.tail()}"
        return True

    def tail(self, n=4000):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()[-n:]

    def freeze(self):
        """SIGSTOP: connections stay, nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        """kill -9, as the power going."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, timeout=30):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        self.kill()


class Secure:
    """A listener with TLS and SASL (PLAIN, SCRAM, OAUTHBEARER with unsecured tokens) beside the
    plain one: user `mill`, password `mill-secret`. mtls: clients must show a certificate too."""

    def __init__(self, tmp, mtls=False):
        self.dir, self.mtls = os.path.join(str(tmp), "tls"), mtls
        self.ca = os.path.join(self.dir, "ca.pem")
        self.client_cert = os.path.join(self.dir, "client.pem")
        self.client_key = os.path.join(self.dir, "client.key")
        os.makedirs(self.dir, exist_ok=True)
        self.make_authority()
        self.make_certificate("server")
        self.make_certificate("client")
        # Kafka reads one PEM file with the PKCS#8 key and its chain
        with open(os.path.join(self.dir, "server-both.pem"), "w", encoding="ascii") as out:
            for name in ("server.key", "server.pem"):
                with open(os.path.join(self.dir, name), encoding="ascii") as f:
                    out.write(f.read())

    def openssl(self, *args):
        done = subprocess.run(["openssl", *args], cwd=self.dir, capture_output=True, text=True)
        assert done.returncode == 0, f"openssl {args}: {done.stderr}"

    def make_authority(self):
        self.openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-keyout", "ca.key",
            "-out", "ca.pem", "-subj", "/CN=spanmill test authority",
        )  # fmt: skip

    def make_certificate(self, name):
        with open(os.path.join(self.dir, f"{name}.ext"), "w", encoding="ascii") as f:
            f.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self.openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}",
        )  # fmt: skip
        self.openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip

    def properties(self):
        at = "listener.name.sasl_ssl."
        security = "org.apache.kafka.common.security."
        handlers = security + "oauthbearer.internals.unsecured."
        return {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            at + "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            at + "plain.sasl.jaas.config":
                f'{security}plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            at + "scram-sha-256.sasl.jaas.config": f"{security}scram.ScramLoginModule required;",
            at + "scram-sha-512.sasl.jaas.config": f"{security}scram.ScramLoginModule required;",
            at + "oauthbearer.sasl.jaas.config":
                f'{security}oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="{USER}";',
            at + "oauthbearer.sasl.server.callback.handler.class":
                handlers + "OAuthBearerUnsecuredValidatorCallbackHandler",
            at + "ssl.keystore.type": "PEM",
            at + "ssl.keystore.location": os.path.join(self.dir, "server-both.pem"),
            at + "ssl.truststore.type": "PEM",
            at + "ssl.truststore.location": self.ca,
            at + "ssl.client.auth": "required" if self.mtls else "none",
        }  # fmt: skip

    def format_arguments(self):
        out = []
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            out += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
        return out


class Kafka:
    """A cluster. config: further broker properties, as Kafka spells them."""

    def __init__(self, tmp, n=1, config=None, secure=None, java_options=None):
        self.dir = str(tmp)
        self.config = config or {}
        self.secure = secure
        if java_options is None:
            java_options = [f"-XX:SharedArchiveFile={ARCHIVE}"] if os.path.exists(ARCHIVE) else []
        self.java_options = java_options
        self.brokers = []
        self.brokers += [Broker(self, node) for node in range(1, n + 1)]

    # -- life ---------------------------------------------------------------------------------------------------------

    def format(self):
        running = [(b, p) for b in self.brokers if (p := b.format()) is not None]
        for broker, process in running:
            assert process.wait(60) == 0, f"format:\n{broker.tail()}"

    def start(self, ready=True):
        is_first = not os.path.exists(self.brokers[0].config)
        self.format()
        for broker in self.brokers:
            broker.start()
        try:
            if ready:
                self.wait_ready()
        except AssertionError:
            if not is_first or not any("Address already in use" in b.tail(1 << 20) for b in self.brokers):
                raise
            self.start_over()
        return self

    def start_over(self):
        """Somebody took a port between its choice and its use."""
        self.kill()
        for broker in self.brokers:
            shutil.rmtree(broker.dir)
            broker.choose_ports()
        self.start()

    def wait_ready(self, timeout=90):
        """Until the metadata names every broker that runs."""
        wanted = sum(b.process is not None for b in self.brokers)
        wait_for(f"metadata with {wanted} brokers", lambda: self.n_alive() >= wanted, timeout)

    def n_alive(self):
        from confluent_kafka import KafkaException

        for broker in self.brokers:
            if broker.process is not None:
                broker.check_alive()
        try:
            return len(self.admin(quiet=True).list_topics(timeout=2).brokers)
        except KafkaException:
            return 0

    def stop(self):
        for broker in self.brokers:
            if broker.process is not None:
                broker.process.send_signal(signal.SIGCONT)
                broker.process.send_signal(signal.SIGTERM)
        for broker in self.brokers:
            broker.stop(timeout=10)

    def kill(self):
        for broker in self.brokers:
            broker.kill()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_):
        self.kill()  # nothing of it is wanted any more

    # -- clients ------------------------------------------------------------------------------------------------------

    @property
    def addresses(self):
        return [b.address for b in self.brokers]

    @property
    def bootstrap(self):
        return ",".join(self.addresses)

    @property
    def secure_addresses(self):
        return [f"127.0.0.1:{b.secure_port}" for b in self.brokers]

    def admin(self, quiet=False):
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.bootstrap, **({"log_level": 0} if quiet else {})})

    def create_topic(self, name=None, partitions=1, replication=None, **config):
        """Returns the name; without one it is unique. config: keys with _ for the dots."""
        from confluent_kafka.admin import NewTopic

        name = name or f"t-{uuid.uuid4().hex[:12]}"
        admin = self.admin()
        topic = NewTopic(
            name, partitions, replication or len(self.brokers),
            config={k.replace("_", "."): str(v) for k, v in config.items()},
        )  # fmt: skip
        admin.create_topics([topic])[name].result(30)
        wait_for(f"leaders of {name}", lambda: self.has_leaders(admin, name, partitions))
        return name

    @staticmethod
    def has_leaders(admin, name, partitions):
        topic = admin.list_topics(name, timeout=10).topics[name]
        return len(topic.partitions) == partitions and all(
            p.leader > 0 for p in topic.partitions.values()
        )

    def grow_topic(self, name, partitions):
        from confluent_kafka.admin import NewPartitions

        admin = self.admin()
        admin.create_partitions([NewPartitions(name, partitions)])[name].result(30)
        wait_for(f"leaders of {name}", lambda: self.has_leaders(admin, name, partitions))

    def delete_topic(self, name):
        admin = self.admin()
        admin.delete_topics([name])[name].result(30)
        wait_for(f"{name} to go", lambda: name not in admin.list_topics(timeout=10).topics)

    def set_topic_config(self, name, **config):
        from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

        entries = [
            ConfigEntry(k.replace("_", "."), str(v), incremental_operation=AlterConfigOpType.SET)
            for k, v in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        admin = self.admin()  # the answer is lost with it
        admin.incremental_alter_configs([resource])[resource].result(30)

    def forbid(self, topic, operation):
        """Nobody may do this (READ, WRITE, ...) with the topic; needs config=ACLS."""
        from confluent_kafka import admin as a

        acl = a.AclBinding(
            a.ResourceType.TOPIC, topic, a.ResourcePatternType.LITERAL, "User:*", "*",
            a.AclOperation[operation], a.AclPermissionType.DENY,
        )  # fmt: skip
        admin = self.admin()
        admin.create_acls([acl])[acl].result(30)

    def allow(self, topic):
        """What was forbidden may be done again."""
        from confluent_kafka import admin as a

        acls = a.AclBindingFilter(
            a.ResourceType.TOPIC, topic, a.ResourcePatternType.LITERAL, None, None,
            a.AclOperation.ANY, a.AclPermissionType.ANY,
        )  # fmt: skip
        admin = self.admin()
        admin.delete_acls([acls])[acls].result(30)

    def partitions(self, topic):
        return sorted(self.admin().list_topics(topic, timeout=10).topics[topic].partitions)

    def leader(self, topic, partition=0):
        """The Broker that leads a partition."""
        node = self.admin().list_topics(topic, timeout=10).topics[topic].partitions[partition].leader
        return next(b for b in self.brokers if b.node == node)

    def in_sync(self, topic):
        """The in-sync replicas of the partition that has fewest."""
        partitions = self.admin().list_topics(topic, timeout=10).topics[topic].partitions
        return min(len(p.isrs) for p in partitions.values())

    def committed(self, group, topic):
        """{partition: committed offset} of a consumer group; partitions without one are left out."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        try:
            at = consumer.committed([TopicPartition(topic, p) for p in self.partitions(topic)], 20)
        finally:
            consumer.close()
        return {p.partition: p.offset for p in at if p.offset >= 0}

    def end_offsets(self, topic):
        """{partition: offset of the record that will come next}."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "spanmill-bed"})
        try:
            return {
                p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1]
                for p in self.partitions(topic)
            }
        finally:
            consumer.close()

    def produce(self, topic, records, **config):
        """records: bytes, or dicts for Producer.produce (value, key, headers, partition). Returns
        when all are acknowledged."""
        from confluent_kafka import Producer

        failed = []
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "enable.idempotence": True,
             "message.max.bytes": 64 << 20, **config}
        )  # fmt: skip
        for record in records:
            record = record if isinstance(record, dict) else {"value": record}
            producer.produce(
                topic, on_delivery=lambda e, _: failed.append(e) if e else None, **record
            )
            producer.poll(0)
        assert producer.flush(60) == 0, "records are left in the producer"
        assert not failed, failed[:3]

    def consume_all(self, topic, timeout=60, **config):
        """Every Record that is in the topic now, in order of partition and offset; headers as a
        dict of name to bytes."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": f"bed-{uuid.uuid4().hex}",
             "enable.auto.commit": False, "auto.offset.reset": "earliest",
             "fetch.message.max.bytes": 64 << 20, "receive.message.max.bytes": 256 << 20, **config}
        )  # fmt: skip
        out = []
        try:
            ends = {}
            for p in self.partitions(topic):
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20)
                if high > low:
                    ends[p] = high
            consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in ends])
            deadline = time.monotonic() + timeout
            while ends:
                assert time.monotonic() < deadline, f"{topic}: not read to {ends} in {timeout} s"
                for m in consumer.consume(1000, timeout=0.2):
                    if m.error():
                        raise KafkaException(m.error())
                    if m.partition() not in ends:
                        continue
                    out.append(
                        Record(m.topic(), m.partition(), m.offset(), m.key(), m.value(),
                               dict(m.headers() or []), m.timestamp()[1])
                    )  # fmt: skip
                # control records leave gaps, so the position tells, not the last record
                for p in consumer.position([TopicPartition(topic, p) for p in ends]):
                    if p.offset >= ends[p.partition]:
                        del ends[p.partition]
        finally:
            consumer.close()
        return sorted(out, key=lambda r: (r.partition, r.offset))


NOT_YET = 14, 15, 16  # the coordinator reads its groups still, is not there, does not know of it


class RawMember:
    """A member of a group, spoken by hand (JoinGroup v2), that does only what the test says: no client
    library can be held between two requests."""

    def __init__(self, kafka, group, topic, session_ms=60_000, strategy="cooperative-sticky"):
        self.group, self.session_ms, self.strategy, self.id = group, session_ms, strategy, ""
        self.subscription = struct.pack(">hi", 0, 1) + self.text(topic) + struct.pack(">i", 0)
        self.socket = socket.create_connection(("127.0.0.1", kafka.brokers[0].port), timeout=60)

    @staticmethod
    def text(s):
        return struct.pack(">h", len(s)) + s.encode()

    def call(self, key, version, body):
        request = struct.pack(">hhi", key, version, 7) + self.text("raw") + body
        self.socket.sendall(struct.pack(">i", len(request)) + request)
        answer = self.socket.makefile("rb")
        return answer.read(struct.unpack(">i", answer.read(4))[0])[4:]

    def join(self):
        """How many members the new generation has, when we lead it; 0 when another does. Waits for them."""
        body = (
            self.text(self.group) + struct.pack(">ii", self.session_ms, 60_000) + self.text(self.id)
            + self.text("consumer") + struct.pack(">i", 1) + self.text(self.strategy)
            + struct.pack(">i", len(self.subscription)) + self.subscription
        )  # fmt: skip
        error, deadline = NOT_YET[0], time.monotonic() + 60
        while error in NOT_YET and time.monotonic() < deadline:
            self.call(10, 1, self.text(self.group) + b"\0")  # who coordinates it? makes the first group's topic
            answer = self.call(11, 2, body)
            error = struct.unpack_from(">h", answer, 4)[0]
        assert error == 0, f"JoinGroup: error {error}"
        at, texts = 10, []
        for _ in ("protocol", "leader", "member"):
            n = struct.unpack_from(">h", answer, at)[0]
            texts.append(answer[at + 2 : at + 2 + n].decode())
            at += 2 + n
        self.id = texts[2]
        return struct.unpack_from(">i", answer, at)[0]


def make_archive(path):
    """Run a broker up to its readiness and down again, so that java writes the archive."""
    with tempfile.TemporaryDirectory() as tmp:
        kafka = Kafka(tmp, java_options=[])
        broker = kafka.brokers[0]
        kafka.format()
        kafka.java_options = [f"-XX:ArchiveClassesAtExit={path}"]
        broker.start()
        try:
            wait_for(
                "the broker to start",
                lambda: broker.check_alive() and "Kafka Server started" in broker.tail(1 << 20),
                180,
            )
        except AssertionError as e:
            raise AssertionError(f"{e}\n{broker.tail()}") from None
        finally:
            broker.stop(timeout=60)
    assert os.path.exists(path), broker.log


def serve(folder, topics):
    installed()
    with Kafka(os.path.abspath(folder)) as kafka:
        for topic in topics:
            name, partitions = topic.split("=")
            kafka.create_topic(name, int(partitions))
        print(kafka.bootstrap, flush=True)
        # A bench whose broker died would wait for ever: it sees us go.
        while not select.select([sys.stdin], [], [], 1)[0]:
            kafka.brokers[0].check_alive()


if __name__ == "__main__":
    assert sys.argv[1:2] in (["--archive"], ["--serve"]) and len(sys.argv) >= 3, __doc__
    if sys.argv[1] == "--serve":
        serve(sys.argv[2], sys.argv[3:])
    else:
        make_archive(os.path.abspath(sys.argv[2]))
