"""Who is let in: bearertokenauth and basicauth on gRPC and HTTP listeners, and the credentials that
exporters send; CORS and response headers of the HTTP block; nothing secret in what is printed."""

import base64
import hashlib
import json
import os
import signal
import subprocess
import threading
import time

import grpc
import pytest
import requests
import yaml

import otlp
from mill import Mill, forwarder, free_port, merged, opens, run, wait_for

SECRETS = ("hunter2", "correct-horse", "battery-staple", "swordfish")


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def bcrypt(password):
    """Cost 10: some 50 ms."""
    script = "import ctypes,sys;l=ctypes.CDLL('libcrypt.so.1');l.crypt.restype=ctypes.c_char_p;"
    script += "print(l.crypt(sys.argv[1].encode(),b'$2y$10$abcdefghijklmnopqrstuu').decode())"
    return subprocess.check_output(["python3", "-c", script, password], text=True).strip()


def post(mill, headers=None, port="http", body=None):
    return requests.post(
        mill.url(port, "/v1/traces"),
        data=(body or otlp.request()).SerializeToString(),
        headers={"Content-Type": otlp.PROTOBUF, **(headers or {})},
        timeout=30,
    )


def export(mill, *metadata):
    with grpc.insecure_channel(f"127.0.0.1:{mill.ports['grpc']}") as channel:
        call = channel.unary_unary(otlp.EXPORT)
        return call(otlp.request().SerializeToString(), metadata=metadata, timeout=30)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """gRPC by token, HTTP by password; spans go on to a listener of its own that wants the token which
    the exporter sends."""
    folder = tmp_path_factory.mktemp("guarded")
    tokens = folder / "tokens"
    tokens.write_text("correct-horse\nbattery-staple\n")
    users = folder / "users"
    users.write_text(f"slow:{bcrypt('swordfish')}\n")
    sha = base64.b64encode(hashlib.sha1(b"hunter2").digest()).decode()

    def config(ports):
        c = forwarder(ports, f"127.0.0.1:{ports['query']}")
        inner = f"127.0.0.1:{ports['query']}"
        return merged(
            c,
            {
                "extensions": {
                    "bearertokenauth": {"filename": str(tokens)},
                    "basicauth": {
                        "htpasswd": {"file": str(users), "inline": f"quick:hunter2\nsha:{{SHA}}{sha}"}
                    },
                },
                "receivers": {
                    "otlp": {
                        "protocols": {
                            "grpc": {"auth": {"authenticator": "bearertokenauth"}},
                            "http": {
                                "auth": {"authenticator": "basicauth"},
                                "response_headers": {"X-Served-By": "mill"},
                                "cors": {
                                    "allowed_origins": ["https://*.example.com", "http://here:1"],
                                    "allowed_headers": ["x-team", "Authorization"],
                                    "exposed_headers": ["x-served-by"],
                                    "max_age": 600,
                                },
                            },
                        }
                    },
                    "otlp/inner": {
                        "protocols": {
                            "grpc": {"endpoint": inner, "auth": {"authenticator": "bearertokenauth"}}
                        }
                    },
                },
                "exporters": {"otlp": {"auth": {"authenticator": "bearertokenauth"}}, "nop": {}},
                "service": {
                    "extensions": ["health_check", "bearertokenauth", "basicauth"],
                    "pipelines": {"traces/inner": {"receivers": ["otlp/inner"], "exporters": ["nop"]}},
                },
            },
        )

    mill = Mill(folder, config)
    mill.tokens, mill.users = tokens, users
    try:
        yield mill.start()
        text = mill.stderr()
        for secret in SECRETS:
            assert secret not in text
        mill.stop()
    finally:
        mill.kill()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (basic("quick", "hunter2"), 200),
        (basic("quick", "hunter"), 401),
        (basic("sha", "hunter2"), 200),
        (basic("slow", "swordfish"), 200),
        (basic("slow", "swordfish"), 200),
        (basic("slow", "hunter2"), 401),
        (basic("nobody", "hunter2"), 401),
        (bearer("correct-horse"), 401),
        ({"Authorization": "basic " + basic("quick", "hunter2")["Authorization"][6:]}, 200),
        ({"Authorization": "Basic !!!"}, 401),
        ({"Authorization": "Basic " + "A" * 20000}, 401),
    ],
)
def test_basic_over_http(guarded, headers, status):
    answer = post(guarded, headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["X-Served-By"] == "mill"
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert answer.headers["Content-Type"] == otlp.PROTOBUF
        assert answer.content[:2] == b"\x08\x10"  # google.rpc.Status.code = UNAUTHENTICATED


@pytest.mark.parametrize(
    ("metadata", "ok"),
    [
        ((), False),
        ((("authorization", "Bearer correct-horse"),), True),
        ((("authorization", "Bearer battery-staple"),), True),
        ((("authorization", "bearer  battery-staple"),), True),
        ((("authorization", "Bearer battery-stapl"),), False),
        ((("authorization", "Bearer"),), False),
        ((("authorization", "battery-staple"),), False),
    ],
)
def test_bearer_over_grpc(guarded, metadata, ok):
    """What is let in goes on by the exporter, whose token the inner listener wants."""
    if ok:
        assert export(guarded, *metadata) == b""
        return
    with pytest.raises(grpc.RpcError) as e:
        export(guarded, *metadata)
    assert e.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "credentials" in e.value.details()


def test_tokens_and_users_are_read_again(guarded):
    def tokens(text):
        fresh = str(guarded.tokens) + ".new"
        with open(fresh, "w", encoding="ascii") as f:
            f.write(text)
        os.rename(fresh, guarded.tokens)

    def works(token):
        try:
            export(guarded, ("authorization", f"Bearer {token}"))
            return True
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.UNAUTHENTICATED
            return False

    tokens("another\n")
    wait_for("the new token", lambda: works("another"))
    assert not works("correct-horse")
    said = "tokens could not be read again"
    tokens("with a blank\n")  # no good: the old one stays, and it is said once
    wait_for("the warning", lambda: works("another") and said in guarded.stderr())
    assert works("another")
    tokens("correct-horse\nbattery-staple\n")
    wait_for("the old token", lambda: works("correct-horse"))
    guarded.users.write_text("late:battery-staple\n")
    wait_for("the new user", lambda: post(guarded, basic("late", "battery-staple")).ok)
    assert post(guarded, basic("slow", "swordfish")).status_code == 401


def test_guessing_passwords_does_not_hold_up_others(guarded):
    """Slow hashes are checked beside the loops: who is known is served while others guess."""
    guarded.users.write_text(f"slow:{bcrypt('swordfish')}\n")
    wait_for("the slow user", lambda: post(guarded, basic("slow", "swordfish")).ok)
    stop = threading.Event()
    statuses, guesses = set(), []

    def guess(n):
        with requests.Session() as s:
            i = 0
            while not stop.is_set():
                i += 1
                begin = time.monotonic()
                statuses.add(
                    s.post(
                        guarded.url("http", "/v1/traces"),
                        data=b"",
                        headers={"Content-Type": otlp.PROTOBUF, **basic("slow", f"{n}-{i}")},
                        timeout=30,
                    ).status_code
                )
                guesses.append(time.monotonic() - begin)

    threads = [threading.Thread(target=guess, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    try:
        wait_for("guesses", lambda: len(guesses) > 8)
        took = []
        for _ in range(20):
            begin = time.monotonic()
            assert post(guarded, basic("slow", "swordfish")).status_code == 200
            took.append(time.monotonic() - begin)
    finally:
        stop.set()
        for t in threads:
            t.join()
    # A guess waits behind seven others; who is known must not.
    assert sorted(took)[10] < sorted(guesses)[len(guesses) // 2] / 2, (took, guesses)
    assert statuses <= {401, 503} and 401 in statuses


def preflight(mill, origin, headers="content-type, x-team", method="POST"):
    return requests.options(
        mill.url("http", "/v1/traces"),
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        },
        timeout=30,
    )


@pytest.mark.parametrize(
    ("origin", "headers", "allowed"),
    [
        ("https://a.example.com", "content-type, x-team", True),
        ("https://A.example.com", "Authorization", True),
        ("http://here:1", "", True),
        ("http://a.example.com", "content-type", False),
        ("https://example.com.evil.org", "content-type", False),
        ("https://a.example.com", "x-other", False),
        ("null", "content-type", False),
    ],
)
def test_preflight(guarded, origin, headers, allowed):
    """Answered before credentials are asked for, as browsers send none."""
    answer = preflight(guarded, origin, headers)
    assert answer.status_code == 204
    assert "Origin" in answer.headers["Vary"]
    if not allowed:
        assert "Access-Control-Allow-Origin" not in answer.headers
        return
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers.get("Access-Control-Allow-Headers", "") == headers
    assert answer.headers["Access-Control-Max-Age"] == "600"


def test_answers_to_pages_of_other_origins(guarded):
    answer = post(guarded, {"Origin": "https://a.example.com", **basic("quick", "hunter2")})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example.com"
    assert answer.headers["Access-Control-Expose-Headers"] == "x-served-by"
    refused = post(guarded, {"Origin": "https://a.example.com"})
    assert refused.status_code == 401 and refused.headers["Access-Control-Allow-Origin"]
    strange = post(guarded, {"Origin": "https://evil.org", **basic("quick", "hunter2")})
    assert strange.status_code == 200 and "Access-Control-Allow-Origin" not in strange.headers


@pytest.fixture(scope="module")
def all_guarded(tmp_path_factory):
    """Every receiver and extension that listens, behind one token."""
    auth = {"auth": {"authenticator": "bearertokenauth"}}
    ports = {name: free_port() for name in ("jaeger_grpc", "jaeger_http")}

    def config(at):
        grpc_at, http_at = (f"127.0.0.1:{ports[n]}" for n in ("jaeger_grpc", "jaeger_http"))
        return merged(
            forwarder(at, "unused:1"),
            {
                "extensions": {"bearertokenauth": {"token": "correct-horse"}},
                "receivers": {
                    "otlp": {"protocols": {"grpc": auth, "http": auth}},
                    "zipkin": {"endpoint": f"127.0.0.1:{at['zipkin']}", **auth},
                    "jaeger": {
                        "protocols": {
                            "grpc": {"endpoint": grpc_at, **auth},
                            "thrift_http": {"endpoint": http_at, **auth},
                        }
                    },
                },
                "exporters": {"nop": {}},
                "service": {
                    "extensions": ["health_check", "bearertokenauth"],
                    "pipelines": {
                        "traces": {"receivers": ["otlp", "zipkin", "jaeger"], "exporters": ["nop"]}
                    },
                },
            },
        )

    mill = Mill(tmp_path_factory.mktemp("all"), config)
    mill.ports = {**mill.ports, **ports}
    try:
        yield mill.start()
        mill.stop()
    finally:
        mill.kill()


@pytest.mark.parametrize(
    ("port", "method"),
    [("grpc", otlp.EXPORT), ("jaeger_grpc", "/jaeger.api_v2.CollectorService/PostSpans")],
)
def test_every_grpc_listener_asks(all_guarded, port, method):
    with grpc.insecure_channel(f"127.0.0.1:{all_guarded.ports[port]}") as channel:
        call = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as e:
            call(b"", timeout=30)
        assert e.value.code() == grpc.StatusCode.UNAUTHENTICATED
        call(b"", metadata=(("authorization", "Bearer correct-horse"),), timeout=30)


@pytest.mark.parametrize(
    ("port", "path"),
    [("http", "/v1/traces"), ("zipkin", "/api/v2/spans"), ("jaeger_http", "/api/traces")],
)
def test_every_http_listener_asks(all_guarded, port, path):
    def status(**headers):
        url = f"http://127.0.0.1:{all_guarded.ports[port]}{path}"
        headers["Content-Type"] = "application/json"
        return requests.post(url, data=b"[]", headers=headers, timeout=30).status_code

    assert status() == 401
    assert status(Authorization="Bearer correct-horse") != 401


def test_a_request_without_credentials_costs_no_body(guarded):
    """401 comes before the body is read."""
    before = guarded.metric("spanmill_memory_bytes")
    big = otlp.request(n_spans=20000)
    assert post(guarded, {}, body=big).status_code == 401
    assert guarded.metric("spanmill_memory_bytes") - before < 2 << 20


def test_an_exporter_over_http_sends_credentials(make_mill):
    port = free_port()
    inner = {
        "receivers": {
            "otlp": {
                "protocols": {
                    "http": {
                        "endpoint": f"127.0.0.1:{port}",
                        "auth": {"authenticator": "basicauth/server"},
                    }
                }
            }
        },
        "exporters": {"nop": {}},
        "extensions": {"basicauth/server": {"htpasswd": {"inline": "me:hunter2"}}},
        "service": {"extensions": ["basicauth/server"]},
    }

    def config(ports):
        c = forwarder(ports, "unused:1")
        c["exporters"] = {
            "otlp_http": {
                "endpoint": f"http://127.0.0.1:{port}",
                "auth": {"authenticator": "basicauth/client"},
            },
        }
        c["extensions"]["basicauth/client"] = {
            "client_auth": {"username": "me", "password": "hunter2"}
        }
        c["service"]["extensions"].append("basicauth/client")
        c["service"]["pipelines"] = {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}}
        return c

    far = make_mill(
        lambda ports: merged(
            {
                "extensions": {"health_check": {"endpoint": f"127.0.0.1:{ports['health']}"}},
                "service": {
                    "telemetry": {"metrics": {"address": f"127.0.0.1:{ports['metrics']}"}},
                    "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["nop"]}},
                },
            },
            merged(inner, {"service": {"extensions": ["health_check", "basicauth/server"]}}),
        )
    )
    near = make_mill(config)
    assert post(near, body=otlp.request(n_spans=7)).status_code == 200
    assert far.metric("otelcol_receiver_accepted_spans_total") == 7 or far.metric(
        "otelcol_receiver_accepted_spans"
    ) == 7


def config_with(extension, **auth):
    return {
        "extensions": extension,
        "receivers": {"otlp": {"protocols": {"http": {"auth": auth or {"authenticator": next(iter(extension))}}}}},
        "exporters": {"debug": {}},
        "service": {
            "extensions": list(extension),
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
        },
    }


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (config_with({"bearertokenauth": {}}), "no bearer token provided"),
        (config_with({"bearertokenauth": {"token": "a b hunter2"}}), "the token has blanks"),
        (config_with({"bearertokenauth": {"token": "hunter2", "filename": "/x"}}), "not both"),
        (config_with({"bearertokenauth": {"tokens": ["hunter2", "", "x"]}}), "token 2 is empty"),
        (config_with({"basicauth": {}}), "no credential source provided"),
        (config_with({"basicauth": {"htpasswd": {"inline": "hunter2"}}}), "line 1 is not user:hash"),
        (
            config_with({"basicauth": {"htpasswd": {"inline": "a:hunter2"}, "client_auth": {"username": "x"}}}),
            "cannot set both `client_auth` and `htpasswd`",
        ),
        (config_with({"health_check": {}}), 'extension "health_check" is not an authenticator'),
        (config_with({"basicauth": {"htpasswd": {"inline": "a:hunter2"}}}, authenticator="other"), '"other"'),
        (config_with({"bearertokenauth": {"token": 5}}), 'put it in quotes: "..."'),
    ],
)
def test_mistakes(tmp_path, config, text):
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(config))
    status, out, err = run("validate", "--config", str(path))
    assert status == 1 and text in err, err
    assert "hunter2" not in out + err


@pytest.mark.parametrize(
    ("extension", "text"),
    [
        ({"basicauth": {"client_auth": {"username": "x"}}}, "has nothing to check clients by"),
        ({"bearertokenauth": {"filename": "/nowhere/tokens"}}, "/nowhere/tokens: No such file"),
        ({"basicauth": {"htpasswd": {"file": "/nowhere/users"}}}, "/nowhere/users: No such file"),
    ],
)
def test_what_stops_the_start(tmp_path, extension, text):
    path = tmp_path / "c.yaml"
    config = config_with(extension)
    config["service"]["telemetry"] = {"metrics": {"level": "none"}}
    config["receivers"]["otlp"]["protocols"]["http"]["endpoint"] = f"127.0.0.1:{free_port()}"
    path.write_text(json.dumps(config))
    status, _, err = run("--config", str(path))
    assert status == 2 and text in err, err


def test_secrets_are_not_printed(tmp_path):
    config = config_with(
        {
            "bearertokenauth/a": {"token": "hunter2"},
            "bearertokenauth/b": {"tokens": ["correct-horse", "battery-staple"]},
            "basicauth": {"htpasswd": {"inline": "a:swordfish"}},
            "basicauth/c": {"client_auth": {"username": "u", "password": "hunter2"}},
        },
        authenticator="basicauth",
    )
    config["receivers"]["otlp"]["protocols"]["http"]["response_headers"] = {"x": "swordfish"}
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(config))
    status, out, err = run("print-config", "--config", str(path))
    assert status == 0
    for secret in SECRETS:
        assert secret not in out + err
    tree = yaml.safe_load(out)["extensions"]
    assert tree["bearertokenauth/b"]["tokens"] == ["[REDACTED]"] * 2
    assert tree["basicauth"]["htpasswd"]["inline"] == "[REDACTED]"


def test_another_authenticator_by_sighup(make_mill):
    """Its listeners and exporters are made anew with it, under load, and nobody gets in by neither."""

    def config(token):
        return lambda ports: merged(
            forwarder(ports, "unused:1"),
            {
                # health_check is listed first, and asks it, too.
                "extensions": {
                    "health_check": {"auth": {"authenticator": "bearertokenauth"}},
                    "bearertokenauth": {"token": token},
                },
                "receivers": {"otlp": {"protocols": {"http": {"auth": {"authenticator": "bearertokenauth"}}}}},
                "exporters": {"nop": {}},
                "service": {
                    "extensions": ["health_check", "bearertokenauth"],
                    "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["nop"]}},
                },
            },
        )

    mill = make_mill(config("first"), start=False)
    mill.start(ready=False)
    wait_for("the first token", lambda: opens(mill.ports["http"]) and post(mill, bearer("first")).ok)
    seen = set()
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            for token in ("first", "second", "third"):
                try:
                    seen.add((token, post(mill, bearer(token)).status_code))
                except requests.ConnectionError:
                    pass  # a connection that was idle as its listener drained

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for token in ("second", "first", "second"):
            mill.config = merged(mill.config, {"extensions": {"bearertokenauth": {"token": token}}})
            mill.write_config()
            mill.process.send_signal(signal.SIGHUP)
            other = "first" if token == "second" else "second"
            wait_for("the new token", lambda: post(mill, bearer(token)).status_code == 200)
            assert post(mill, bearer(other)).status_code == 401
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert {s for t, s in seen if t == "third"} == {401}
    assert requests.get(mill.url("health", "/"), timeout=30).status_code == 401
    assert requests.get(mill.url("health", "/"), headers=bearer("second"), timeout=30).ok
