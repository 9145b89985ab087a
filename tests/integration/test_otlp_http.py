"""The otlp_http exporter: statuses, Retry-After, codings, JSON, endpoints, TLS. What it shares with the
otlp exporter (queue, disk, deadlines, partial success) is in test_nexthop.py, for both."""

import ssl
import time
from email.utils import formatdate

import cramjam
import pytest
from google.rpc import status_pb2

import otlp
import signals_data
from mill import forwarder, free_port, run
from pki import Authority

CODERS = {
    "gzip": lambda b: bytes(cramjam.gzip.compress(b)),
    "zlib": lambda b: bytes(cramjam.zlib.compress(b)),
    "deflate": lambda b: bytes(cramjam.zlib.compress(b)),
    "zstd": lambda b: bytes(cramjam.zstd.compress(b)),
    "snappy": lambda b: bytes(cramjam.snappy.compress_raw(b)),
    "x-snappy-framed": lambda b: bytes(cramjam.snappy.compress(b)),
    "lz4": lambda b: bytes(cramjam.lz4.compress(b)),
}


@pytest.fixture
def forward(make_mill, tmp_path):
    def make(target, exporter=None, overlay=None):
        return make_mill(lambda ports: forwarder(ports, target, exporter), overlay)

    return make


SOON = {"receivers": {"otlp": {"ack_timeout": "500ms"}}}  # then it is told to come again


def once(status, headers=None, body=b""):
    """The first request is answered so, later ones are taken."""

    def behave(request, seen, hop):
        return (status, headers or {}, body) if len(hop.calls) == 1 else None

    return behave


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retryable(forward, next_hop, status):
    hop = next_hop(once(status), http=True)
    answer = otlp.send_grpc(forward(hop.target), otlp.request(), timeout=30)
    assert answer.partial_success.rejected_spans == 0
    assert len(hop.calls) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after(forward, next_hop, form):
    """Not before it says so, in seconds or as a date (which has whole seconds)."""

    def behave(request, seen, hop):
        if len(hop.calls) > 1:
            return None
        value = "1" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)
        return (503, {"Retry-After": value}, b"")

    hop = next_hop(behave, http=True)
    otlp.send_grpc(forward(hop.target), otlp.request(), timeout=30)
    assert len(hop.calls) == 2
    assert hop.calls[1][0] - hop.calls[0][0] >= (0.98 if form == "seconds" else 1.9)


@pytest.mark.parametrize("status", [400, 401, 404, 405, 415, 301, 500, 501])
def test_permanent(forward, next_hop, status):
    """Not repeated; the client hears of it in partial_success, the log names status and reason."""
    said = status_pb2.Status(code=3, message="the reason is here").SerializeToString()
    hop = next_hop(once(status, body=said), http=True)
    mill = forward(hop.target)
    answer = otlp.send_grpc(mill, otlp.request(n_spans=3), timeout=30)
    assert answer.partial_success.rejected_spans == 3
    assert len(hop.calls) == 1
    assert mill.metric("otelcol_exporter_send_failed_spans", exporter="otlp_http") == 3
    balance = mill.stop()
    assert (balance["accepted"], balance["dropped"]) == (3, 3)
    assert f"HTTP status {status}" in mill.stderr() and "the reason is here" in mill.stderr()


def test_secrets_of_a_url_are_not_told(forward, next_hop):
    """User and query of an endpoint are in no log line, whether it refuses or is away."""
    hop = next_hop(once(400), http=True)
    hop.signal_of = lambda path: "traces"
    url = hop.target.replace("http://", "http://user:hidden1@") + "/in?token=hidden2"
    mill = forward(hop.target, exporter={"traces_endpoint": url}, overlay=SOON)
    otlp.send_grpc(mill, otlp.request(), timeout=30)
    hop.stop()
    with pytest.raises(otlp.grpc.RpcError):
        otlp.send_grpc(mill, otlp.request(), timeout=30)
    mill.stop()
    assert "HTTP status 400" in mill.stderr() and "hidden" not in mill.stderr()


def test_too_large_is_halved(forward, next_hop):
    """413: smaller and smaller until it is taken; one span that is too large is dropped alone."""
    limit = 2500

    def behave(request, seen, hop):
        return (413, {}, b"") if request.ByteSize() > limit else None

    hop = next_hop(behave, http=True)
    mill = forward(hop.target)
    sent = otlp.request(n_spans=40)
    answer = otlp.send_grpc(mill, sent, timeout=30)
    assert answer.partial_success.rejected_spans == 0
    assert sorted(hop.span_counts()) == sorted(otlp.span_ids(sent))
    answer = otlp.send_grpc(mill, otlp.request(size=2 * limit), timeout=30)
    assert answer.partial_success.rejected_spans == 1


@pytest.mark.parametrize("encoding", ["proto", "json"])
@pytest.mark.parametrize(
    "coding", ["none", "gzip", "zstd", "zlib", "deflate", "snappy", "x-snappy-framed", "lz4"]
)
def test_codings(forward, next_hop, encoding, coding):
    """Every field of the kitchen sink arrives in every encoding and coding."""
    hop = next_hop(http=True)
    mill = forward(hop.target, exporter={"encoding": encoding, "compression": coding})
    sent = otlp.kitchen_sink()
    otlp.send_grpc(mill, sent, timeout=30)
    otlp.assert_same(hop.message(), sent)
    seen = hop.metadata[0]
    assert seen.get("content-encoding") == (None if coding == "none" else coding)
    assert seen["content-type"] == (
        "application/json" if encoding == "json" else "application/x-protobuf"
    )
    assert seen["user-agent"].startswith("spanmill/")


def test_endpoints(forward, next_hop):
    """endpoint may have a path and a slash at its end; traces_endpoint is used as it is."""
    hop = next_hop(http=True)
    hop.signal_of = lambda path: "traces"
    mill = forward(hop.target + "/base/")
    otlp.send_grpc(mill, otlp.request(), timeout=30)
    mill = forward(hop.target, exporter={"traces_endpoint": hop.target + "/in?x=1"})
    otlp.send_grpc(mill, otlp.request(), timeout=30)
    assert hop.paths == ["/base/v1/traces", "/in?x=1"]


def test_connections_are_kept(forward, next_hop):
    hop = next_hop(http=True)
    mill = forward(hop.target, exporter={"sending_queue": {"num_consumers": 1}})
    for _ in range(20):
        otlp.send_grpc(mill, otlp.request(), timeout=30)
    assert len(hop.connections) == 1
    mill = forward(hop.target, exporter={"disable_keep_alives": True})
    hop.connections.clear()
    for _ in range(3):
        otlp.send_grpc(mill, otlp.request(), timeout=30)
    assert len(hop.connections) == 3


def test_an_answer_that_is_no_http(forward):
    """A port where somebody speaks another protocol: retryable, never delivered."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            while True:
                try:
                    c, _ = listener.accept()
                except OSError:
                    return
                c.recv(65536)
                c.sendall(b"220 mail.example ESMTP\r\n")
                c.close()

        threading.Thread(target=talk, daemon=True).start()
        mill = forward(f"http://127.0.0.1:{listener.getsockname()[1]}", overlay=SOON)
        with pytest.raises(otlp.grpc.RpcError) as e:
            otlp.send_grpc(mill, otlp.request(), timeout=30)
        assert e.value.code().name == "UNAVAILABLE"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def secure_hop(next_hop, authority):
    """A hop that asks for a certificate of the authority."""
    hop = next_hop(http=True, start=False)
    hop.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    hop.tls.load_cert_chain(*authority.issue("server"))
    hop.tls.load_verify_locations(authority.pem)
    hop.tls.verify_mode = ssl.CERT_REQUIRED
    return hop.start()


def tls_of(authority, **changed):
    cert, key = authority.issue("client")
    out = {"insecure": False, "ca_file": authority.pem, "cert_file": cert, "key_file": key}
    return {"tls": {**out, **changed}}


@pytest.mark.parametrize(
    "changed, ok",
    [
        ({}, True),
        ({"min_version": "1.3"}, True),
        ({"ca_file": None, "insecure_skip_verify": True}, True),
        ({"ca_file": None}, False),
        ({"cert_file": None, "key_file": None}, False),
    ],
    ids=["mutual", "1.3", "skip verify", "unknown authority", "no certificate"],
)
def test_tls(forward, secure_hop, authority, changed, ok):
    overlay = None if ok else SOON
    mill = forward(secure_hop.target, exporter=tls_of(authority, **changed), overlay=overlay)
    if ok:
        otlp.send_grpc(mill, otlp.request(), timeout=30)
        assert len(secure_hop.calls) == 1
        return
    with pytest.raises(otlp.grpc.RpcError) as e:
        otlp.send_grpc(mill, otlp.request(), timeout=30)
    assert e.value.code().name == "UNAVAILABLE"
    assert not secure_hop.calls
    # Without one the server hangs up behind the handshake: TLS 1.3 does not tell the client why.
    assert ("certificate" if "ca_file" in changed else "otlp_http error=") in mill.stderr()


def test_tls_version_too_low(forward, secure_hop, authority):
    secure_hop.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    mill = forward(
        secure_hop.target, exporter=tls_of(authority, min_version="1.3"), overlay=SOON
    )
    with pytest.raises(otlp.grpc.RpcError):
        otlp.send_grpc(mill, otlp.request(), timeout=30)
    assert not secure_hop.calls


def test_proxy(forward, next_hop):
    """proxy_url: the proxy is asked for the whole URL of a host that nobody resolves."""
    proxy = next_hop(http=True)
    proxy.signal_of = lambda path: "traces"
    mill = forward("http://collector.invalid:4318", exporter={"proxy_url": proxy.target})
    otlp.send_grpc(mill, otlp.request(), timeout=30)
    assert proxy.paths == ["http://collector.invalid:4318/v1/traces"]


CONFIG = """\
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}}}}
exporters: {otlp_http: EXPORTER}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_http]}}}
"""


@pytest.mark.parametrize(
    "exporter, words",
    [
        ("{}", "at least one endpoint must be specified"),
        ("{endpoint: 'localhost:4318'}", '"localhost:4318" is no URL of http or https'),
        ("{endpoint: 'http:///x'}", "there is no host in it"),
        ("{endpoint: 'http://a:1', compression: lz5}", "lz5"),
        ("{endpoint: 'http://a:1', encoding: xml}", "xml"),
        ("{traces_endpoint: 'ftp://a'}", "exporters.otlp_http.traces_endpoint"),
        ("{endpoint: 'https://a', tls: {server_name_override: b}}", "server_name_override"),
    ],
)
def test_options(tmp_path, exporter, words):
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.replace("EXPORTER", exporter))
    status, _, err = run("validate", "--config", str(path))
    assert status == 1 and words in err, err


def test_unreachable(forward):
    mill = forward(f"http://127.0.0.1:{free_port()}", overlay=SOON)
    with pytest.raises(otlp.grpc.RpcError) as e:
        otlp.send_grpc(mill, otlp.request(), timeout=30)
    assert e.value.code().name == "UNAVAILABLE"


@pytest.mark.parametrize("coding", sorted(CODERS))
@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_codings_in(make_mill, next_hop, coding, signal):
    """Each content coding of the Collector's servers is taken, and its damage told from it."""
    hop = next_hop()

    def config(ports):
        out = forwarder(ports, hop.target)
        out["service"]["pipelines"]["logs"] = out["service"]["pipelines"]["traces"]
        return out

    mill = make_mill(config)
    sent = otlp.kitchen_sink() if signal == "traces" else signals_data.log_requests(3)
    body = CODERS[coding](sent.SerializeToString())
    heads = {"Content-Encoding": coding}
    path = f"/v1/{signal}"
    answer = otlp.send_http(mill, body, headers=heads, path=path)
    assert answer.status_code == 200, answer.text
    assert hop.joined(signal).ByteSize() == sent.ByteSize()
    answer = otlp.send_http(mill, body[:-3], headers=heads, path=path)
    assert answer.status_code == 400, answer.text
    assert len(hop.calls) == 1
