"""Blocks in a bucket: the promises of a backend on real S3 servers, spans in and out, who is refused
and with which words."""

import glob
import json
import os
import random
import re
import subprocess

import pytest
import yaml

import ledger
import otlp
import s3_servers
import tempo
from mill import ROOT, SANITIZED, merged, query_node, run, wait_for

CONTRACT = os.path.join(ROOT, "build", "tests", "contract", "test_backends")


def check(mill, acked, tenant=None):
    """A bucket that is slow makes an answer incomplete: it is asked again."""
    ledger.check(mill, acked, tenant, tempo.settled)


def blocks_of(server, bucket, prefix=""):
    """Folders with a meta.json: visible blocks."""
    return sorted(
        k.rsplit("/", 1)[0] for k in server.keys(bucket, prefix) if k.endswith("/meta.json")
    )


def send(mill, n_traces=1, n_spans=3, **keys):
    """Acknowledged requests by trace id."""
    out = {}
    for _ in range(n_traces):
        request = otlp.request(n_spans=n_spans)
        otlp.send_grpc(mill, request, **keys)
        out[next(otlp.spans_of(request)).trace_id] = request
    return out


def refusal(make_mill, overlay, env=None):
    """What the program says when it cannot start with this."""
    mill = make_mill(start=False, overlay=overlay)
    mill.env.update(env or {})
    mill.start(ready=False)
    status = mill.wait_exit(20)
    mill.process = None
    assert status == 2, mill.stderr()
    lines = [line for line in mill.stderr().splitlines() if " error " in line]
    assert s3_servers.SECRET not in mill.stderr()
    return lines[-1]


# -- the contract


def run_contract(server, bucket, endpoint=None):
    subprocess.run(["make", "-s", CONTRACT[len(ROOT) + 1 :]], cwd=ROOT, check=True)
    where = f"{endpoint or server.endpoint} {bucket} {s3_servers.ACCESS} {s3_servers.SECRET}"
    done = subprocess.run(
        [CONTRACT],
        env={**os.environ, "SPANMILL_TEST_S3": where},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    lists_uploads = "does not list its uploads" not in done.stdout
    assert lists_uploads == (server.name != "minio"), done.stdout
    assert server.keys(bucket) == []
    assert server.uploads(bucket) == [], "a multipart upload was left behind"


def test_a_bucket_keeps_the_contract(s3):
    run_contract(s3, s3.create_bucket())


def test_the_contract_holds_on_a_bad_network(seaweed, bad_network):
    """What the store did not see may be sent again: nothing of that shows."""
    rng = random.Random(7)
    bad_network.behave = lambda request: rng.choices(
        [None, "503", "cut", 0.03], [80, 10, 5, 5]
    )[0]
    run_contract(seaweed, seaweed.create_bucket(), bad_network.endpoint)
    assert bad_network.seen["503"] > 10 and bad_network.seen["cut"] > 5, bad_network.seen


# -- spans in, blocks there, spans out


def test_spans_become_blocks_in_the_bucket(make_mill, s3):
    bucket = s3.create_bucket()
    mill = make_mill(overlay=s3.overlay(bucket, "traces/prod"))
    sent = send(mill, 5)
    other = send(mill, 2, tenant="team a's(1)".replace(" ", "-"))
    wait_for("blocks", lambda: len(blocks_of(s3, bucket)) >= 2)
    check(mill, sent)
    keys = s3.keys(bucket)
    assert all(k.startswith("traces/prod/") for k in keys), keys
    block = next(b for b in blocks_of(s3, bucket) if b.startswith("traces/prod/single-tenant/"))
    names = {k[len(block) + 1 :] for k in keys if k.startswith(block + "/")}
    assert names == {"data", "index", "bloom-0", "meta.json"}
    meta = json.loads(s3.read(bucket, f"{block}/meta.json"))
    assert meta["tenantID"] == "single-tenant" and block.endswith(meta["blockID"])
    assert meta["size"] == s3.objects(bucket)[f"{block}/data"]["Size"]
    assert any(k.startswith("traces/prod/_spanmill/commits/") for k in keys)
    assert not any("/probe/" in k for k in keys)
    # the log is local, the blocks are not
    assert os.listdir(mill.data) == ["_spanmill"]
    assert mill.metric("spanmill_s3_requests") > 10
    assert mill.metric("spanmill_s3_failures") == 0
    mill.stop()
    # Another process with nothing but the bucket: a query node.
    reader = make_mill(
        lambda ports: merged(
            query_node(ports, str(mill.tmp) + "/none"), s3.overlay(bucket, "traces/prod")
        )
    )
    check(reader, sent)
    check(reader, other, tenant="team-a's(1)")
    assert tempo.settled(reader, "0" * 31 + "1") is None
    assert not os.path.exists(str(mill.tmp) + "/none")


def test_large_blocks_go_in_parts(make_mill, seaweed):
    bucket = seaweed.create_bucket()
    mill = make_mill(
        overlay=merged(
            seaweed.overlay(bucket, part_size="5MiB"),
            {"exporters": {"blocks": {"max_block_age": "1h", "compression": "none"}}},
        )
    )
    sent = {}
    for _ in range(14):
        request = otlp.request(n_spans=2)
        for span in otlp.spans_of(request):
            span.attributes.add(key="pad").value.string_value = os.urandom(250_000).hex()
        otlp.send_grpc(mill, request)
        sent[next(otlp.spans_of(request)).trace_id] = request
    mill.stop()
    data = {k: o for k, o in seaweed.objects(bucket).items() if k.endswith("/data")}
    assert sum(o["Size"] for o in data.values()) > 14_000_000
    parts = [int(o["ETag"].strip('"').rsplit("-", 1)[1]) for o in data.values() if "-" in o["ETag"]]
    assert parts and max(parts) >= 2, data
    assert seaweed.uploads(bucket) == []
    mill.start()
    check(mill, sent)


def test_libcurl_is_for_buckets_only(make_mill, seaweed):
    def has_curl(mill):
        with open(f"/proc/{mill.process.pid}/maps", encoding="ascii") as f:
            return "libcurl" in f.read()

    assert not has_curl(make_mill())
    assert has_curl(make_mill(overlay=seaweed.overlay(seaweed.create_bucket())))


# -- addressing, TLS, credentials


def test_a_bucket_as_a_host_name(make_mill, s3proxy):
    bucket = s3proxy.create_bucket()
    mill = make_mill(overlay=s3proxy.overlay(bucket, bucket_lookup_type="dns"))
    sent = send(mill)
    wait_for("a block", lambda: blocks_of(s3proxy, bucket))
    check(mill, sent)


def test_tls_with_an_authority_of_ones_own(make_mill, tmp_path):
    certificates = s3_servers.make_certificates(tmp_path)
    with s3_servers.Seaweed(tmp_path / "seaweed", tls=certificates) as server:
        bucket = server.create_bucket()
        overlay = server.overlay(bucket, tls_ca_path=certificates[2])
        mill = make_mill(overlay=overlay)
        sent = send(mill)
        wait_for("a block", lambda: blocks_of(server, bucket))
        check(mill, sent)
        mill.stop()
        said = refusal(make_mill, server.overlay(bucket))
        assert "certificate" in said, said
        said = refusal(make_mill, server.overlay(bucket, tls_ca_path="/nowhere/ca.pem"))
        assert "/nowhere/ca.pem" in said, said
        make_mill(overlay=server.overlay(bucket, tls_insecure_skip_verify=True))


def test_keys_from_the_environment_and_from_a_file(make_mill, seaweed, tmp_path):
    overlay = seaweed.overlay(seaweed.create_bucket(), access_key=None, secret_key=None)
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[other]\naws_access_key_id = {s3_servers.ACCESS}\n"
        f"aws_secret_access_key = {s3_servers.SECRET}\n"
    )
    keys = {
        "AWS_ACCESS_KEY_ID": s3_servers.ACCESS,
        "AWS_SECRET_ACCESS_KEY": s3_servers.SECRET,
    }
    file = {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_PROFILE": "other"}
    for env, source in ((keys, "environment"), (file, '"credentials file"')):
        mill = make_mill(overlay=overlay, env=env)
        assert f"s3 credentials found source={source}" in mill.stderr()
        assert s3_servers.SECRET not in mill.stderr()
        mill.stop()
    nothing = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    said = refusal(make_mill, overlay, nothing)
    assert "no credentials: set s3.access_key and s3.secret_key" in said


# -- refusals


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"secret_key": "wrong"}, "the secret key (from configuration) is wrong"),
        ({"access_key": "AKNONE"}, "the store does not know the access key (from configuration)"),
        ({"bucket": "no-such-bucket"}, "create the bucket or correct s3.bucket"),
        ({"endpoint": "http://127.0.0.1:1"}, "connect 127.0.0.1:1: connection refused"),
        ({"endpoint": "http://no.invalid"}, "resolve no.invalid: no address"),
    ],
)
def test_a_store_that_refuses_is_named(make_mill, seaweed, wrong, words):
    overlay = seaweed.overlay(seaweed.create_bucket())
    overlay["extensions"]["trace_store"]["s3"].update(wrong)
    said = refusal(make_mill, overlay)
    assert words in said and "trace_store" in said, said


def test_wrong_keys_on_the_second_server(make_mill, s3proxy):
    bucket = s3proxy.create_bucket()
    said = refusal(make_mill, s3proxy.overlay(bucket, secret_key="wrong"))
    assert "the secret key (from configuration) is wrong" in said, said
    said = refusal(make_mill, s3proxy.overlay("no-such-bucket"))
    assert "create the bucket or correct s3.bucket" in said, said


def test_a_clock_that_is_off_is_named(make_mill, seaweed):
    library = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not library or SANITIZED:
        pytest.skip("no libfaketime, or a program that takes no preloaded library")
    env = {
        "LD_PRELOAD": library[0],
        "FAKETIME": "-2h",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    said = refusal(make_mill, seaweed.overlay(seaweed.create_bucket()), env)
    found = re.search(r"RequestTimeTooSkewed: the clock of this host is (\d+) s behind", said)
    assert found and 7190 < int(found[1]) < 7210, said


def test_a_store_without_conditional_put_is_refused(make_mill, seaweed, bad_network):
    """A store that ignores If-None-Match, played by a proxy that makes 200 of every 412; readers do
    not mind."""
    bucket = seaweed.create_bucket()

    def ignore(request):
        names = {n.lower() for n, _ in request.headers}
        return (200, b"") if request.method == "PUT" and "if-none-match" in names else None

    bad_network.behave = ignore
    overlay = seaweed.overlay(bucket, endpoint=bad_network.endpoint)
    said = refusal(make_mill, overlay)
    assert "the store ignores If-None-Match on PUT" in said and bad_network.endpoint in said, said
    assert seaweed.keys(bucket) == []
    make_mill(lambda ports: merged(query_node(ports, "/nonexistent"), overlay))


@pytest.mark.parametrize(
    "s3, parts",
    [
        (
            {
                "endpoint": "http://host/path",
                "prefix": "/x",
                "access_key": "a",
                "part_size": "1MiB",
                "sse": {"kms_key_id": "k"},
            },
            [
                "endpoint: ",
                "bucket: is missing",
                "prefix: ",
                "secret_key: is missing",
                "part_size: S3 takes no smaller parts",
                "sse.kms_key_id: ",
            ],
        ),
        ({"buckt": "b", "signature_v2": True}, ["buckt: ", "signature_v2: "]),
    ],
)
def test_configuration_mistakes_are_told_at_once(tmp_path, s3, parts):
    config = {
        "extensions": {"trace_store": {"backend": "s3", "s3": s3}},
        "service": {"extensions": ["trace_store"]},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    status, _, err = run("validate", "--config", str(path))
    assert status == 1
    for part in parts:
        assert f"extensions.trace_store.s3.{part}" in err, err
    assert len(err.splitlines()) == len(parts), err


def test_secrets_are_not_printed(tmp_path, seaweed):
    config = query_node({"query": 1, "metrics": 2}, "/x")
    config = merged(config, seaweed.overlay("b", session_token="token-secret"))
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    status, out, err = run("print-config", "--config", str(path))
    assert status == 0, err
    printed = yaml.safe_load(out)["extensions"]["trace_store"]
    assert printed["s3"]["secret_key"] == printed["s3"]["session_token"] == "[REDACTED]"
    assert s3_servers.SECRET not in out + err and "token-secret" not in out + err
