"""TLS and client certificates on every HTTP listener, and beside them on gRPC, with real clients."""

import json
import socket
import ssl
import subprocess
import time

import grpc
import pytest
import requests
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_exporter
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_exporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import otlp
from mill import Mill, forwarder, merged, run, wait_for
from nexthop import NextHop
from pki import Authority


def with_tls(pki, **otlp_extra):
    """What makes every listener of `forwarder` speak TLS; otlp asks for client certificates."""
    cert, key = pki.server
    plain = {"cert_file": cert, "key_file": key}
    mutual = {**plain, "client_ca_file": pki.ca.pem, **otlp_extra}
    return {
        "receivers": {"otlp": {"protocols": {"grpc": {"tls": mutual}, "http": {"tls": mutual}}}},
        "extensions": {"health_check": {"tls": plain}},
    }


class Pki:
    def __init__(self, folder):
        self.ca = Authority(folder)
        self.server = self.ca.issue("server")
        self.client = self.ca.issue("client")
        self.stranger = Authority(folder, "another-ca").issue("stranger")


class TlsMill(Mill):
    """A mill whose listeners speak TLS."""

    ca = None

    def url(self, port, path=""):
        return super().url(port, path).replace("http:", "https:" if port != "metrics" else "http:")

    def is_ready(self):
        assert self.process.poll() is None, self.stderr()[-4000:]
        try:
            return requests.get(self.url("health", "/"), verify=self.ca, timeout=30).ok
        except requests.ConnectionError:
            return False


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def hop():
    hop = NextHop()
    yield hop.start()
    hop.stop()


@pytest.fixture(scope="module")
def secure(pki, hop, tmp_path_factory):
    zipkin = {"tls": {"cert_file": pki.server[0], "key_file": pki.server[1]}}
    mill = TlsMill(
        tmp_path_factory.mktemp("secure"),
        lambda ports: merged(
            forwarder(ports, hop.target),
            {
                "receivers": {"zipkin": {"endpoint": f"127.0.0.1:{ports['zipkin']}", **zipkin}},
                "service": {"pipelines": {"traces": {"receivers": ["otlp", "zipkin"]}}},
            },
        ),
        with_tls(pki),
    )
    mill.ca = pki.ca.pem
    try:
        yield mill.start()
        mill.stop()
    finally:
        mill.kill()


def post(mill, pki, body, cert=True, **keys):
    return requests.post(
        mill.url("http", "/v1/traces"),
        data=body.SerializeToString(),
        headers={"Content-Type": otlp.PROTOBUF},
        verify=pki.ca.pem,
        cert=pki.client if cert is True else cert,
        timeout=30,
        **keys,
    )


def n_spans(hop):
    return sum(hop.span_counts().values())


def context(pki, alpn=("http/1.1",), cert=True):
    c = ssl.create_default_context(cafile=pki.ca.pem)
    c.set_alpn_protocols(list(alpn))
    if cert:
        c.load_cert_chain(*pki.client)
    return c


def connect(mill, c, port="http", **keys):
    raw = socket.create_connection(("127.0.0.1", mill.ports[port]), timeout=10)
    return c.wrap_socket(raw, server_hostname="127.0.0.1", **keys)


def test_http_clients_with_a_certificate(secure, pki, hop):
    before = n_spans(hop)
    assert post(secure, pki, otlp.request(n_spans=5)).status_code == 200
    # A body of many TLS records, with and without the pause for 100 Continue.
    big = otlp.request(n_spans=3000, attributes=10)
    assert post(secure, pki, big).status_code == 200
    done = subprocess.run(
        ["curl", "-sS", "--cacert", pki.ca.pem, "--cert", pki.client[0], "--key", pki.client[1]]
        + ["-H", f"Content-Type: {otlp.PROTOBUF}", "--data-binary", "@-", "-w", "%{http_code} %{ssl_verify_result}"]
        + [secure.url("http", "/v1/traces")],
        input=big.SerializeToString(),
        capture_output=True,
    )
    assert done.stdout.decode() == "200 0", done
    assert n_spans(hop) - before == 5 + 3000 + 3000


@pytest.mark.parametrize("who", ["nobody", "a stranger"])
def test_http_clients_without_one_of_ours(secure, pki, who):
    with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)):
        post(secure, pki, otlp.request(), cert=None if who == "nobody" else pki.stranger)
    reason = "peer did not return a certificate" if who == "nobody" else "certificate: "
    wait_for("the reason in the log", lambda: reason in secure.stderr())


def test_zipkin_and_health_over_tls(secure, pki):
    span = {"traceId": "a" * 16, "id": "b" * 16, "name": "x", "localEndpoint": {"serviceName": "s"}}
    answer = requests.post(
        secure.url("zipkin", "/api/v2/spans"), json=[span], verify=pki.ca.pem, timeout=10
    )
    assert answer.status_code == 202, answer.text
    assert requests.get(secure.url("health", "/"), verify=pki.ca.pem, timeout=30).status_code == 200


def test_query_over_tls_and_with_a_password(pki, tmp_path):
    plain = {"cert_file": pki.server[0], "key_file": pki.server[1]}
    mill = TlsMill(
        tmp_path / "mill",
        None,
        {
            "receivers": {"otlp": {"protocols": {"http": {"tls": plain}}}},
            "extensions": {
                "query": {"tls": plain, "auth": {"authenticator": "basicauth"}},
                "health_check": {"tls": plain},
                "basicauth": {"htpasswd": {"inline": "grafana:tempo"}},
            },
            "service": {"extensions": ["trace_store", "query", "health_check", "basicauth"]},
        },
    )
    mill.ca = pki.ca.pem
    try:
        mill.start()
        sent = otlp.request(n_spans=2)
        assert post(mill, pki, sent, cert=None).status_code == 200
        trace_id = next(otlp.spans_of(sent)).trace_id.hex()
        url = mill.url("query", f"/api/traces/{trace_id}")
        assert requests.get(url, verify=pki.ca.pem, timeout=30).status_code == 401
        got = requests.get(url, verify=pki.ca.pem, auth=("grafana", "tempo"), timeout=30)
        assert got.status_code == 200 and len(got.json()["batches"]) == 1
        mill.stop()
    finally:
        mill.kill()


def test_grpc_with_and_without_a_certificate(secure, pki):
    def read(path):
        with open(path, "rb") as f:
            return f.read()

    def export(key=None, cert=None):
        credentials = grpc.ssl_channel_credentials(read(pki.ca.pem), key, cert)
        with grpc.secure_channel(f"127.0.0.1:{secure.ports['grpc']}", credentials) as channel:
            call = channel.unary_unary(otlp.EXPORT)
            return call(otlp.request().SerializeToString(), timeout=30)

    assert export(read(pki.client[1]), read(pki.client[0])) == b""
    for key, cert in ((None, None), (read(pki.stranger[1]), read(pki.stranger[0]))):
        with pytest.raises(grpc.RpcError) as e:
            export(key, cert)
        assert e.value.code() == grpc.StatusCode.UNAVAILABLE


def test_the_sdk_of_opentelemetry(secure, pki, hop, monkeypatch):
    # requests lets these overrule what the SDK is told.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)

    def read(path):
        with open(path, "rb") as f:
            return f.read()

    exporters = [
        http_exporter.OTLPSpanExporter(
            endpoint=secure.url("http", "/v1/traces"),
            certificate_file=pki.ca.pem,
            client_certificate_file=pki.client[0],
            client_key_file=pki.client[1],
        ),
        grpc_exporter.OTLPSpanExporter(
            endpoint=f"https://127.0.0.1:{secure.ports['grpc']}",
            credentials=grpc.ssl_channel_credentials(
                read(pki.ca.pem), read(pki.client[1]), read(pki.client[0])
            ),
        ),
    ]
    for exporter in exporters:
        before = n_spans(hop)
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("t").start_as_current_span("over tls"):
            pass
        provider.shutdown()
        assert n_spans(hop) == before + 1


def test_alpn_and_versions(secure, pki):
    with connect(secure, context(pki, ("h2", "http/1.1"))) as s:
        assert s.selected_alpn_protocol() == "http/1.1"
    with connect(secure, context(pki, ())) as s:
        assert s.selected_alpn_protocol() is None and s.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        connect(secure, context(pki, ("h2",)))
    old = context(pki)
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        connect(secure, old)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed(secure, pki, version):
    """With client certificates OpenSSL fails these unless the server names its context."""
    c = context(pki)
    c.minimum_version = c.maximum_version = version
    session = None
    for turn in range(2):
        with connect(secure, c, session=session) as s:
            s.sendall(b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n")
            assert s.recv(65536).startswith(b"HTTP/1.1 404")
            assert s.session_reused == (turn == 1)
            session = s.session


def test_plain_text_on_a_tls_port(secure):
    with socket.create_connection(("127.0.0.1", secure.ports["http"]), timeout=10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not s.recv(65536).startswith(b"HTTP/1.1 200")


def test_silent_clients_do_not_hold_up_others(secure, pki):
    """More of them than handshakes may be under way: the oldest go, the newcomer is served."""
    silent = [
        socket.create_connection(("127.0.0.1", secure.ports["http"]), timeout=10) for _ in range(600)
    ]
    time.sleep(0.6)  # until then they have only just come
    begin = time.monotonic()
    assert post(secure, pki, otlp.request()).status_code == 200
    assert time.monotonic() - begin < 9, "that was the time of a handshake"
    for s in silent:
        s.close()


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        ({"cert_file": "/nowhere.pem", "key_file": "/nowhere.key"}, 'cert_file \\"/nowhere.pem'),
        ({"cert_file": "CERT", "key_file": "OTHER"}, "key values mismatch"),
        ({"cert_file": "CERT", "key_file": "KEY", "client_ca_file": "/none"}, 'client_ca_file \\"/none'),
    ],
)
def test_a_bad_file_stops_the_start(make_mill, pki, tls, text):
    names = {"CERT": pki.server[0], "KEY": pki.server[1], "OTHER": pki.client[1]}
    mill = make_mill(
        overlay={
            "receivers": {
                "otlp": {"protocols": {"http": {"tls": {k: names.get(v, v) for k, v in tls.items()}}}}
            }
        },
        start=False,
    )
    mill.start(ready=False)
    assert mill.wait_exit(10) == 2
    mill.process = None
    assert text in mill.stderr()


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        ({}, "receivers.otlp.protocols.http.tls: a server needs a certificate"),
        ({"cert_file": "x"}, "tls.key_file: TLS configuration must include both certificate and key"),
        ({"cert_file": "x", "key_file": "y", "min_version": "1.3", "max_version": "1.2"}, "min_version"),
        ({"cert_file": "x", "key_file": "y", "cipher_suites": ["RC4"]}, 'suite: "RC4"'),
        ({"cert_file": "x", "key_file": "y", "curve_preferences": ["P1"]}, 'curve type: "P1"'),
    ],
)
def test_mistakes_in_the_block(tmp_path, tls, text):
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"tls": tls}}}},
        "exporters": {"debug": {}},
        "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}}},
    }
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(config))
    status, _, err = run("validate", "--config", str(path))
    assert status == 1 and text in err, err


def test_certificates_inside_the_configuration(make_mill, pki):
    def read(path):
        with open(path, encoding="ascii") as f:
            return f.read()

    cert, key = map(read, pki.server)
    tls = {"cert_pem": cert, "key_pem": key}
    mill = make_mill(overlay={"receivers": {"otlp": {"protocols": {"http": {"tls": tls}}}}})
    url = mill.url("http", "/v1/traces").replace("http:", "https:")
    answer = requests.post(url, json={}, verify=pki.ca.pem, timeout=30)
    assert answer.status_code == 200
    _, printed, _ = run("print-config", "--config", mill.config_path)
    assert "PRIVATE KEY" not in printed and "REDACTED" in printed
