"""Certificates are replaced a hundred times while clients of every kind send: no connection is
refused, no answer fails, and whatever was acknowledged arrives."""

import os
import signal
import ssl
import threading
import time

import grpc
import pytest
import requests

import otlp
from mill import forwarder, merged, wait_for
from pki import replace
from test_tls_http import Pki, TlsMill, connect, context

REPLACED = int(os.environ.get("SPANMILL_CERTIFICATES", "100"))


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


class Client(threading.Thread):
    """Sends until told to stop; keeps what was acknowledged and what went wrong."""

    def __init__(self, send):
        super().__init__()
        self.send, self.acked, self.wrong = send, [], []
        self.over = threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            body = otlp.request(n_spans=3)
            try:
                self.send(body)
                self.acked += otlp.span_ids(body)
            except Exception as e:  # whatever it is, it counts
                self.wrong.append(repr(e))

    def stop(self):
        self.over.set()
        self.join()


def clients_of(mill, pki):
    """New and lasting connections, HTTP and gRPC."""

    def read(path):
        with open(path, "rb") as f:
            return f.read()

    options = {"verify": pki.ca.pem, "cert": pki.client, "timeout": 30}
    session = requests.Session()

    def http(body, via=requests):
        answer = via.post(
            mill.url("http", "/v1/traces"),
            data=body.SerializeToString(),
            headers={"Content-Type": otlp.PROTOBUF},
            **options,
        )
        assert answer.status_code == 200, answer.text

    credentials = grpc.ssl_channel_credentials(
        read(pki.ca.pem), read(pki.client[1]), read(pki.client[0])
    )

    def channel():
        # Without a pool of subchannels each channel connects anew.
        return grpc.secure_channel(
            f"127.0.0.1:{mill.ports['grpc']}",
            credentials,
            options=[("grpc.use_local_subchannel_pool", 1)],
        )

    lasting = channel()

    def rpc(body, via):
        assert via.unary_unary(otlp.EXPORT)(body.SerializeToString(), timeout=30) == b""

    def rpc_anew(body):
        with channel() as fresh:
            rpc(body, fresh)

    return [http, lambda b: http(b, session), rpc_anew, lambda b: rpc(b, lasting)]


def shown(mill, pki, port):
    """The certificate that a new connection is shown."""
    with connect(mill, context(pki, ("h2",) if port == "grpc" else ("http/1.1",)), port) as s:
        return ssl.DER_cert_to_PEM_cert(s.getpeercert(binary_form=True)).strip()


def secure_forwarder(pki, hop, cert, key, reload):
    tls = {
        "cert_file": cert,
        "key_file": key,
        "client_ca_file": pki.ca.pem,
        "client_ca_file_reload": True,
        "reload_interval": reload,
    }
    return lambda ports: merged(
        forwarder(ports, hop.target),
        {
            "receivers": {"otlp": {"protocols": {"grpc": {"tls": tls}, "http": {"tls": tls}}}},
            "extensions": {
                "health_check": {"tls": {"cert_file": pki.server[0], "key_file": pki.server[1]}}
            },
        },
    )


def test_replaced_under_load(pki, next_hop, tmp_path):
    hop = next_hop()
    pairs = [pki.ca.issue(f"server{i}") for i in range(3)]
    texts = [open(cert, encoding="ascii").read().strip() for cert, _ in pairs]
    cert, key = str(tmp_path / "live.pem"), str(tmp_path / "live.key")
    replace(cert, pairs[0][0])
    replace(key, pairs[0][1])
    mill = TlsMill(tmp_path / "mill", secure_forwarder(pki, hop, cert, key, "5ms"))
    mill.ca = pki.ca.pem
    mill.start()
    clients = [Client(send) for send in clients_of(mill, pki)]
    try:
        for i in range(1, REPLACED + 1):
            which = i % len(pairs)
            # Key and certificate do not fit for a moment, and once in a while for longer.
            replace(key, pairs[which][1])
            if i % 25 == 0:
                time.sleep(0.05)
            replace(cert, pairs[which][0])
            for port in ("http", "grpc"):
                wait_for(f"certificate {i}", lambda: shown(mill, pki, port) == texts[which])
    finally:
        for c in clients:
            c.stop()
    try:
        for c in clients:
            assert not c.wrong, c.wrong[:3]
            assert len(c.acked) > 20
        acked = {span_id for c in clients for span_id in c.acked}
        assert acked <= set(hop.span_counts())
        mill.stop()
    finally:
        mill.kill()


def test_a_bad_certificate_keeps_the_old_one_and_is_said_once(pki, next_hop, tmp_path):
    cert, key = str(tmp_path / "live.pem"), str(tmp_path / "live.key")
    replace(cert, pki.server[0])
    replace(key, pki.server[1])
    mill = TlsMill(tmp_path / "mill", secure_forwarder(pki, next_hop(), cert, key, "5ms"))
    mill.ca = pki.ca.pem
    mill.start()
    warning = "certificates could not be read again"

    def warnings():
        return [line for line in mill.stderr().splitlines() if warning in line]

    try:
        old = shown(mill, pki, "http")
        bad = tmp_path / "bad.pem"
        bad.write_text("not a certificate\n")
        replace(cert, str(bad))  # at once: half of it would be another mistake to tell
        # It looks again with a new connection, when 5 ms have passed.
        wait_for("the warning", lambda: shown(mill, pki, "http") == old and warnings())
        for _ in range(20):
            time.sleep(0.006)
            assert shown(mill, pki, "http") == old
        assert len(warnings()) == 1, warnings()
        assert "otlp HTTP" in warnings()[0] and cert in warnings()[0]
        other = pki.ca.issue("other")
        replace(key, other[1])
        replace(cert, other[0])
        wait_for("the new one", lambda: shown(mill, pki, "http") != old)
        mill.stop()
    finally:
        mill.kill()


def test_sighup_reads_certificates_again(pki, next_hop, tmp_path):
    """Without reload_interval, and without a change of the configuration."""
    cert, key = str(tmp_path / "live.pem"), str(tmp_path / "live.key")
    replace(cert, pki.server[0])
    replace(key, pki.server[1])
    mill = TlsMill(tmp_path / "mill", secure_forwarder(pki, next_hop(), cert, key, "0s"))
    mill.ca = pki.ca.pem
    mill.start()
    try:
        old = {port: shown(mill, pki, port) for port in ("http", "grpc")}
        other = pki.ca.issue("sighup")
        replace(key, other[1])
        replace(cert, other[0])
        assert {port: shown(mill, pki, port) for port in old} == old
        mill.process.send_signal(signal.SIGHUP)
        for port in old:
            wait_for(f"the new one on {port}", lambda: shown(mill, pki, port) != old[port])
        mill.stop()
    finally:
        mill.kill()
