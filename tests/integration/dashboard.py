"""The queries of the Grafana dashboard, with its variables filled in as Grafana does."""

import json
import os

import yaml

from mill import ROOT

FOLDER = os.path.join(ROOT, "configs", "grafana")


def dashboard():
    with open(os.path.join(FOLDER, "dashboards", "spanmill.json"), encoding="utf-8") as f:
        return json.load(f)


def provisioned(kind):
    with open(os.path.join(FOLDER, "provisioning", kind, "spanmill.yaml"), encoding="utf-8") as f:
        return yaml.safe_load(f)


def filled_in(expr, interval="10s", span="60s"):
    values = {
        "$service": ".*", "$operation": ".*", "$__rate_interval": interval, "$__range": span,
    }  # fmt: skip
    for name, value in values.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"a variable that is not filled in: {expr}"
    return expr


def targets():
    """(panel, target) of every query."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel, target


def variables():
    """{name: (metric or selector, label)} of label_values() variables."""
    out = {}
    for v in dashboard()["templating"]["list"]:
        if v["type"] == "query":
            inner = v["query"]["query"].removeprefix("label_values(").removesuffix(")")
            selector, _, label = inner.rpartition(",")
            out[v["name"]] = (filled_in(selector), label.strip())
    return out
