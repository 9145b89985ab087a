"""A real Prometheus for one test: configured for what it scrapes, on a port of its own, with exemplar
storage, native histograms and the remote-write receiver; and promtool.

    with Prometheus(tmp, {"mill": mill.url("metrics", "/metrics")}) as prometheus:
        prometheus.wait_scraped("mill")
        prometheus.value("sum(otelcol_receiver_accepted_spans)")
        prometheus.exemplars("traces_span_metrics_duration_milliseconds_bucket")
        prometheus.assert_no_complaints()

The programs come from tests/tools/install-prometheus.
"""

import collections
import os
import re
import signal
import subprocess
import time
import urllib.parse

import requests
import yaml

from mill import ROOT, free_port, wait_for

HOME = os.path.join(ROOT, "build", "prometheus")
FEATURES = "exemplar-storage,native-histograms"
# of a log line: what Prometheus did not like of what it was given
COMPLAINT = re.compile(r"\blevel=(warn|error)\b")

Exemplar = collections.namedtuple("Exemplar", "series trace_id span_id value timestamp labels")


def installed():
    """The folder of the programs; fetches them when they are not there."""
    subprocess.run([os.path.join(ROOT, "tests", "tools", "install-prometheus")], check=True)
    return HOME


def promtool(*args, stdin=None):
    """One run of promtool: (exit status, what it said on both outputs)."""
    done = subprocess.run(
        [os.path.join(HOME, "promtool"), *args],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def lints(page):
    """What `promtool check metrics` has against a text page, line by line."""
    status, said = promtool("check", "metrics", stdin=page)
    lines = [line for line in said.splitlines() if line.strip()]
    assert status in (0, 3), said  # 1: it could not even read it
    return lines


def scrape_job(name, url):
    """scrape_configs entry for one page; url may end in another path than /metrics."""
    at = urllib.parse.urlsplit(url)
    return {
        "job_name": name,
        "scheme": at.scheme,
        "metrics_path": at.path or "/metrics",
        # labels that a page brings itself (job, instance of a service) stay as they are
        "honor_labels": True,
        "static_configs": [{"targets": [at.netloc]}],
    }


class Prometheus:
    """jobs: {name: URL of a page}; more: laid over the configuration (rule_files, ...)."""

    def __init__(self, tmp, jobs=None, interval="1s", features=FEATURES, more=None):
        self.tmp = str(tmp)
        self.port = free_port()
        self.features = features
        self.process = None
        self.runs = 0
        self.config = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "storage": {"exemplars": {"max_exemplars": 500000}},
            "scrape_configs": [scrape_job(n, url) for n, url in (jobs or {}).items()],
            **(more or {}),
        }

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # -- life -----------------------------------------------------------------------------------------

    def start(self):
        os.makedirs(self.tmp, exist_ok=True)
        config = os.path.join(self.tmp, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as f:
            yaml.safe_dump(self.config, f, sort_keys=False)
        self.runs += 1
        self.log_path = os.path.join(self.tmp, f"log.{self.runs}")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [
                    os.path.join(HOME, "prometheus"),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={os.path.join(self.tmp, 'tsdb')}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--web.enable-remote-write-receiver",
                    "--web.enable-lifecycle",
                    f"--enable-feature={self.features}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.tmp,
            )
        wait_for("Prometheus to be ready", self.is_ready, timeout=60, step=0.05)
        return self

    def is_ready(self):
        assert self.process.poll() is None, f"Prometheus ended:\n{self.log()[-3000:]}"
        try:
            return requests.get(self.url("/-/ready"), timeout=30).status_code == 200
        except requests.RequestException:
            return False

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def url(self, path=""):
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def remote_write_url(self):
        return self.url("/api/v1/write")

    # -- what it says -----------------------------------------------------------------------------------

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def complaints(self):
        """Log lines of warnings and errors: out-of-order samples and exemplars, duplicates, ..."""
        return [line for line in self.log().splitlines() if COMPLAINT.search(line)]

    def assert_no_complaints(self):
        """Nothing in the log, and no target's last scrape failed."""
        assert not self.complaints(), "\n".join(self.complaints()[:20])
        for target in self.targets():
            assert target["health"] == "up", f"{target['scrapeUrl']}: {target['lastError']}"

    def api(self, path, **params):
        answer = requests.get(self.url(f"/api/v1/{path}"), params=params, timeout=30)
        body = answer.json()
        assert body["status"] == "success", f"{path} {params}: {body}"
        assert not body.get("warnings"), f"{path} {params}: {body['warnings']}"
        return body["data"]

    def query(self, expr, at=None):
        """Instant query: [(labels, value)]; a scalar comes with labels {}."""
        data = self.api("query", query=expr, **({"time": at} if at is not None else {}))
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [
            (r["metric"], float(r["value"][1]) if "value" in r else r["histogram"][1])
            for r in data["result"]
        ]

    def value(self, expr):
        """The one value of an expression; None while it has none."""
        found = self.query(expr)
        assert len(found) <= 1, f"{expr} has {len(found)} values"
        return found[0][1] if found else None

    def exemplars(self, expr, start=None, end=None):
        """Every stored exemplar of the series an expression selects."""
        now = time.time()
        data = self.api(
            "query_exemplars",
            query=expr,
            start=start if start is not None else now - 86400,
            end=end if end is not None else now + 3600,
        )
        return [
            Exemplar(
                tuple(sorted(series["seriesLabels"].items())),
                e["labels"].get("trace_id"),
                e["labels"].get("span_id"),
                float(e["value"]),
                float(e["timestamp"]),
                e["labels"],
            )
            for series in data
            for e in series["exemplars"]
        ]

    def targets(self):
        return self.api("targets", state="active")["activeTargets"]

    def rules(self):
        """{name: rule} of every loaded recording and alerting rule."""
        return {r["name"]: r for g in self.api("rules")["groups"] for r in g["rules"]}

    def n_scrapes(self, job):
        """How many scrapes of a job are stored, failed ones too."""
        return self.value(f'sum(count_over_time(up{{job="{job}"}}[1h]))') or 0

    def wait_scraped(self, job, times=1, timeout=60):
        """Until a job's page was read `times` times more, starting from now (whole scrapes only)."""
        self.wait_up(job, timeout)
        want = self.n_scrapes(job) + times
        wait_for(f"{times} scrapes of {job}", lambda: self.n_scrapes(job) >= want, timeout, 0.1)

    def wait_up(self, job, timeout=60):
        wait_for(f"{job} to be up", lambda: self.value(f'sum(up{{job="{job}"}})'), timeout, 0.1)
