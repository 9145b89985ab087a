"""Listeners on unix sockets, with the clients that speak to them: curl, gRPC."""

import os
import shutil
import stat
import subprocess
import tempfile

import grpc
import pytest

import otlp
from mill import forwarder, merged
from pki import Authority


@pytest.fixture
def folder():
    """The path of a socket has 107 characters at the most."""
    path = tempfile.mkdtemp(prefix="mill-")
    yield path
    shutil.rmtree(path)


def on_sockets(folder, hop, tls=None):
    http = {"endpoint": f"{folder}/http.sock", "transport": "unix"}
    if tls:
        http["tls"] = {"cert_file": tls[0], "key_file": tls[1]}
    return lambda ports: merged(
        forwarder(ports, hop.target),
        {
            "receivers": {
                "otlp": {
                    "protocols": {
                        "grpc": {"endpoint": f"{folder}/grpc.sock", "transport": "unix"},
                        "http": http,
                    }
                }
            }
        },
    )


def curl(folder, url, *args):
    done = subprocess.run(
        ["curl", "-sS", "--unix-socket", f"{folder}/http.sock", "--data-binary", "@-"]
        + ["-H", f"Content-Type: {otlp.PROTOBUF}", "-w", "%{http_code}", "-o", "/dev/null"]
        + [*args, url],
        input=otlp.request(n_spans=2).SerializeToString(),
        capture_output=True,
        timeout=30,
    )
    return done.stdout.decode() or done.stderr.decode()


def test_http_and_grpc(make_mill, next_hop, folder):
    hop = next_hop()
    mill = make_mill(on_sockets(folder, hop))
    assert curl(folder, "http://localhost/v1/traces") == "200"
    with grpc.insecure_channel(f"unix:{folder}/grpc.sock") as channel:
        sent = otlp.request(n_spans=3).SerializeToString()
        assert channel.unary_unary(otlp.EXPORT)(sent, timeout=30) == b""
    assert len(hop.span_counts()) == 5
    for name in ("http.sock", "grpc.sock"):
        mode = os.stat(f"{folder}/{name}").st_mode
        assert stat.S_ISSOCK(mode) and not mode & stat.S_IWOTH
    # It does not take a living process's socket,
    other = make_mill(on_sockets(folder, hop), start=False)
    other.start(ready=False)
    assert other.wait_exit(10) == 2 and "Address already in use" in other.stderr()
    other.process = None
    assert curl(folder, "http://localhost/v1/traces") == "200"
    # but a dead one's.
    mill.kill()
    assert os.path.exists(f"{folder}/http.sock")
    mill.start()
    assert curl(folder, "http://localhost/v1/traces") == "200"
    mill.stop()
    assert os.listdir(folder) == []


def test_tls_on_a_unix_socket(make_mill, next_hop, folder, tmp_path):
    authority = Authority(tmp_path)
    make_mill(on_sockets(folder, next_hop(), authority.issue("server")))
    assert curl(folder, "https://localhost/v1/traces", "--cacert", authority.pem) == "200"
