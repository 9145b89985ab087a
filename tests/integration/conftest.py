"""Fixtures: a running spanmill (its own, or one shared by a file's tests) and next hops, stopped
and checked after."""

import os
import sys

import pytest

import kafka_bed
import mill as mill_module
import prometheus_bed
import s3_servers
from fault_proxy import FaultProxy
from mill import Mill
from nexthop import HttpHop, NextHop

sys.setswitchinterval(0.001)


def pytest_collection_modifyitems(items):
    if not os.access(mill_module.BINARY, os.X_OK):
        pytest.exit(f"no {mill_module.BINARY}: run make first", returncode=1)
    items.sort(key=lambda item: "hostile" in item.nodeid)  # what strains the machine comes last


def failed(request):
    report = getattr(request.node, "report", None)
    return report is not None and report.failed


def show(mill):
    """The program's own words beside a failed test."""
    if mill.runs:
        print(f"---- stderr of spanmill, run {mill.runs}\n{mill.stderr()[-6000:]}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.report = outcome.get_result()


@pytest.fixture
def make_mill(tmp_path, request):
    """make_mill(make_config=None, overlay=None, start=True, ...) -> Mill; stopped after the test,
    when it must exit 0 with its counts in balance (unless the test stopped or killed it itself)."""
    made = []

    def make(make_config=None, overlay=None, start=True, **keys):
        mill = Mill(tmp_path / f"mill{len(made)}", make_config, overlay, **keys)
        made.append(mill)
        return mill.start() if start else mill

    yield make
    try:
        for mill in made:
            if failed(request):
                show(mill)  # one failure is enough: what it left behind need not balance
            else:
                mill.stop()
    finally:
        for mill in made:
            mill.kill()


@pytest.fixture
def mill(make_mill):
    """A spanmill in the shape of all-in-one.yaml, for this test alone."""
    return make_mill()


@pytest.fixture(scope="module")
def shared_mill(tmp_path_factory):
    """One spanmill for all tests of a file that do not disturb each other."""
    mill = Mill(tmp_path_factory.mktemp("shared"))
    try:
        mill.start()
        yield mill
        mill.stop()
    finally:
        mill.kill()


@pytest.fixture
def next_hop():
    hops = []

    def make(behave=None, start=True, port=None, http=False):
        hop = (HttpHop if http else NextHop)(behave, port)
        hops.append(hop)
        return hop.start() if start else hop

    yield make
    for hop in hops:
        hop.stop()


@pytest.fixture(scope="session")
def kafka_installed():
    """Kafka is there: installed on the first test that wants it."""
    return kafka_bed.installed()


@pytest.fixture(scope="session")
def kafka(kafka_installed, tmp_path_factory):
    """One broker for all tests that only read and write topics of their own (create_topic() names
    them)."""
    with kafka_bed.Kafka(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def make_kafka(kafka_installed, tmp_path):
    """make_kafka(n=1, config=None, secure=None, start=True) -> Kafka: brokers that this test may
    kill, freeze and restart."""
    made = []

    def make(n=1, start=True, **keys):
        cluster = kafka_bed.Kafka(tmp_path / f"kafka{len(made)}", n, **keys)
        made.append(cluster)
        return cluster.start() if start else cluster

    yield make
    for cluster in made:
        cluster.kill()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory):
    """A SeaweedFS for all tests that stay in buckets of their own (create_bucket() names them)."""
    with s3_servers.Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def s3proxy(tmp_path_factory):
    """An S3Proxy for all tests that stay in buckets of their own."""
    with s3_servers.S3Proxy(tmp_path_factory.mktemp("s3proxy")) as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory):
    """A MinIO likewise; only where SPANMILL_MINIO asks for one, as make soak does."""
    with s3_servers.Minio(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def prometheus_installed():
    """Prometheus and promtool are there: fetched on the first test that wants them."""
    return prometheus_bed.installed()


@pytest.fixture
def make_prometheus(prometheus_installed, tmp_path, request):
    """make_prometheus({job: URL of a page}, ...) -> Prometheus that scrapes every second; stopped
    after the test, which shows what it had to complain of when it failed."""
    made = []

    def make(jobs=None, start=True, **keys):
        server = prometheus_bed.Prometheus(tmp_path / f"prometheus{len(made)}", jobs, **keys)
        made.append(server)
        return server.start() if start else server

    yield make
    for server in made:
        if failed(request) and server.runs:
            print("---- complaints of Prometheus\n" + "\n".join(server.complaints()[-20:]))
        server.stop()


MINIO = bool(os.environ.get("SPANMILL_MINIO"))


@pytest.fixture(scope="session")
def soak_store(request):
    """The bucket server of the oracle: MinIO in the soak, else SeaweedFS."""
    return request.getfixturevalue("minio" if MINIO else "seaweed")


@pytest.fixture(params=["seaweed", "s3proxy"] + (["minio"] if MINIO else []))
def s3(request):
    """Each of the real S3 servers in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def bad_network(seaweed):
    """A proxy in front of SeaweedFS that misbehaves when told to."""
    with FaultProxy(seaweed.port) as proxy:
        yield proxy
