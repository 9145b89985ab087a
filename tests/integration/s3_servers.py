"""Real S3 servers, each a process in a directory of its own on ports of its own.

    with Seaweed(tmp) as s3:
        bucket = s3.create_bucket()
        ... s3.overlay(bucket, "prefix") is the trace_store's part of a configuration
        s3.keys(bucket)     # what is in it, by another client: boto3

SeaweedFS comes from a wheel (requirements.txt), S3Proxy from tests/tools/install-s3proxy. A server is
ready when it answers a signed request, not when its port opens.
"""

import itertools
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys

import boto3
import botocore
from botocore.config import Config

from mill import ROOT, free_port, wait_for

ACCESS, SECRET = "AKMILL", "mill/secret+key="
NAMES = itertools.count()


def port_pair():
    """A port p so that p and p + 10000 are free: SeaweedFS takes both."""
    while True:
        port = random.SystemRandom().randrange(12000, 22000)
        try:
            for p in (port, port + 10000):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", p))
            return port
        except OSError:
            continue


def boto(endpoint, **keys):
    """A client that does not try again and adds no checksums of its own."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=15,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **keys,
    )


class Server:
    """What both have in common; a subclass makes the command line."""

    def __init__(self, directory, tls=None):
        """tls: (certificate file, key file, file of the authority)."""
        self.dir = str(directory)
        self.tls = tls
        self.process = None
        self.log = os.path.join(self.dir, "log")

    @property
    def endpoint(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def client(self):
        return boto(self.endpoint, verify=self.tls[2] if self.tls else None)

    def check_alive(self):
        assert self.process.poll() is None, f"the S3 server ended:\n{self.words()}"

    def answers(self):
        self.check_alive()
        try:
            self.client.list_buckets()
            return True
        except botocore.exceptions.BotoCoreError:
            return False
        except botocore.exceptions.ClientError:
            return False

    def words(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()[-4000:]

    def start(self):
        os.makedirs(self.dir, exist_ok=True)
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.dir,
                env={**os.environ, **self.environment()},
            )
        try:
            wait_for("the S3 server", self.answers, 60, 0.1)
        except BaseException:
            self.kill()
            raise
        return self

    def environment(self):
        return {}

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    # -- buckets

    def create_bucket(self):
        name = f"bucket{next(NAMES)}"
        self.client.create_bucket(Bucket=name)
        return name

    def objects(self, bucket, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {o["Key"]: o for page in pages for o in page.get("Contents", [])}

    def keys(self, bucket, prefix=""):
        return sorted(self.objects(bucket, prefix))

    def read(self, bucket, key):
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def uploads(self, bucket):
        """Multipart uploads that nobody finished."""
        answer = self.client.list_multipart_uploads(Bucket=bucket)
        return [u["Key"] for u in answer.get("Uploads", [])]

    def overlay(self, bucket, prefix="", endpoint=None, **keys):
        """The trace_store's keys for this bucket, to lay over a configuration."""
        s3 = {
            "endpoint": endpoint or self.endpoint,
            "bucket": bucket,
            "access_key": ACCESS,
            "secret_key": SECRET,
            "retry_backoff_initial": "20ms",
            **({"prefix": prefix} if prefix else {}),
            **keys,
        }
        s3 = {k: v for k, v in s3.items() if v is not None}
        store = {"backend": "s3", "s3": s3, "blocklist_poll": "1s"}
        return {"extensions": {"trace_store": store}}


class Seaweed(Server):
    """SeaweedFS: master, volume server, filer and gateway in one process."""

    name = "seaweedfs"

    def __init__(self, directory, tls=None):
        super().__init__(directory, tls)
        self.port = port_pair()
        self.ports = {what: port_pair() for what in ("master", "volume", "filer")}

    def command(self):
        identity = {
            "name": "mill",
            "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        with open(os.path.join(self.dir, "s3.json"), "w", encoding="ascii") as f:
            json.dump({"identities": [identity]}, f)
        os.makedirs(os.path.join(self.dir, "data"), exist_ok=True)
        tls = [f"-s3.cert.file={self.tls[0]}", f"-s3.key.file={self.tls[1]}"] if self.tls else []
        return [
            os.path.join(ROOT, "build", "venv", "bin", "weed"),
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self.dir}/data",
            f"-master.port={self.ports['master']}",
            f"-volume.port={self.ports['volume']}",
            "-filer",
            f"-filer.port={self.ports['filer']}",
            "-s3",
            f"-s3.port={self.port}",
            f"-s3.config={self.dir}/s3.json",
            "-s3.port.iceberg=0",  # these have fixed ports otherwise
            "-s3.port.lance=0",
            f"-s3.localSocket={self.dir}/s3.sock",
            f"-filer.localSocket={self.dir}/filer.sock",
            *tls,
            "-master.volumeSizeLimitMB=64",
            "-volume.max=500",  # every bucket takes several
            "-master.telemetry=false",
        ]

    def environment(self):
        return {"HOME": self.dir, "GOMAXPROCS": "2"}


class S3Proxy(Server):
    """S3Proxy over a folder. It is called localhost, and buckets are also names under that."""

    name = "s3proxy"

    def __init__(self, directory, tls=None):
        super().__init__(directory, tls)
        assert tls is None, "S3Proxy wants a Java key store"
        self.port = free_port()

    @property
    def endpoint(self):
        return f"http://localhost:{self.port}"

    def command(self):
        subprocess.run([os.path.join(ROOT, "tests", "tools", "install-s3proxy")], check=True)
        data = os.path.join(self.dir, "data")
        os.makedirs(data, exist_ok=True)
        settings = {
            "s3proxy.endpoint": f"http://127.0.0.1:{self.port}",
            "s3proxy.authorization": "aws-v4",
            "s3proxy.identity": ACCESS,
            "s3proxy.credential": SECRET,
            "s3proxy.virtual-host": "localhost",
            "jclouds.provider": "filesystem-nio2",
            "jclouds.filesystem.basedir": data,
        }
        with open(os.path.join(self.dir, "s3proxy.conf"), "w", encoding="ascii") as f:
            f.writelines(f"{k}={v}\n" for k, v in settings.items())
        with open(os.path.join(self.dir, "logback.xml"), "w", encoding="ascii") as f:
            f.write(
                '<configuration><appender name="E" class="ch.qos.logback.core.ConsoleAppender">'
                "<encoder><pattern>%d %p %c %m%n</pattern></encoder></appender>"
                '<root level="WARN"><appender-ref ref="E"/></root></configuration>'
            )
        with open(os.path.join(ROOT, "build", "s3proxy", "classpath"), encoding="utf-8") as f:
            classes = f.read().strip()
        return [
            "java",
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dlogback.configurationFile={self.dir}/logback.xml",
            "-cp",
            classes,
            "org.gaul.s3proxy.Main",
            "--properties",
            f"{self.dir}/s3proxy.conf",
        ]


class Minio(Server):
    """MinIO over a folder; it is built only for the soak (tests/tools/install-minio)."""

    name = "minio"

    def __init__(self, directory, tls=None):
        super().__init__(directory, tls)
        assert tls is None, "MinIO wants its certificates in a folder of their own"
        self.port = free_port()

    def command(self):
        subprocess.run([os.path.join(ROOT, "tests", "tools", "install-minio")], check=True)
        data = os.path.join(self.dir, "data")
        os.makedirs(data, exist_ok=True)
        program = os.path.join(ROOT, "build", "minio", "minio")
        return [program, "server", "--quiet", "--address", f"127.0.0.1:{self.port}", data]

    def environment(self):
        return {
            "MINIO_ROOT_USER": ACCESS,
            "MINIO_ROOT_PASSWORD": SECRET,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "HOME": self.dir,
            "GOMAXPROCS": "2",
        }


def make_certificates(directory):
    """(certificate of 127.0.0.1, its key, the authority), made with openssl."""
    at = {n: os.path.join(str(directory), n) for n in ("ca.key", "ca.pem", "key.pem", "csr", "pem")}
    extension = os.path.join(str(directory), "ext")
    with open(extension, "w", encoding="ascii") as f:
        f.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")

    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True)

    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *ec, "-keyout", at["ca.key"], "-out", at["ca.pem"], "-subj", "/CN=mill-ca")
    openssl("req", *ec, "-keyout", at["key.pem"], "-out", at["csr"], "-subj", "/CN=127.0.0.1")
    signer = ["-CA", at["ca.pem"], "-CAkey", at["ca.key"], "-CAcreateserial"]
    openssl("x509", "-req", "-in", at["csr"], *signer, "-extfile", extension, "-out", at["pem"])
    return at["pem"], at["key.pem"], at["ca.pem"]


def serve(folder):
    """For programs in C: one SeaweedFS with a bucket until our input ends; prints
    "endpoint bucket access_key secret_key"."""
    with Seaweed(os.path.abspath(folder)) as server:
        print(server.endpoint, server.create_bucket(), ACCESS, SECRET, flush=True)
        # A bench whose server died would wait for ever: it sees us go.
        while not select.select([sys.stdin], [], [], 1)[0]:
            server.check_alive()


if __name__ == "__main__":
    assert sys.argv[1:2] == ["--serve"] and len(sys.argv) == 3, __doc__
    serve(sys.argv[2])
