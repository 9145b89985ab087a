"""docs/clients/*.md and docs/migrate.md: configurations of ours in them are valid, those of others are
at least YAML, and what the pages say a sidecar posts is taken and found."""

import glob
import json
import os
import re

import pytest
import requests
import yaml

import otlp
import tempo
from mill import ROOT, run

PAGES = sorted(glob.glob(os.path.join(ROOT, "docs", "clients", "*.md")))
PAGES.append(os.path.join(ROOT, "docs", "migrate.md"))


def blocks(kind):
    """(page and number, text) of the fenced blocks of a language."""
    out = []
    for path in PAGES:
        with open(path, encoding="utf-8") as f:
            found = re.findall(rf"^```{kind}\n(.*?)^```", f.read(), re.S | re.M)
        out += [
            pytest.param(text, id=f"{os.path.basename(path)}-{i}") for i, text in enumerate(found)
        ]
    assert out
    return out


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml(tmp_path, text):
    tree = yaml.safe_load(text)
    assert isinstance(tree, dict)
    if {"receivers", "service"} <= set(tree):
        (tmp_path / "page.yaml").write_text(text)
        status, out, err = run("validate", "--config", str(tmp_path / "page.yaml"))
        assert status == 0, f"{text}\n{out}{err}"


@pytest.mark.parametrize("text", blocks("json"))
def test_payload(shared_mill, text):
    spans = json.loads(text)
    answer = requests.post(shared_mill.url("zipkin", "/api/v2/spans"), data=text, timeout=30)
    assert answer.status_code == 202, answer.text
    for sp in spans:
        got = tempo.get(shared_mill, sp["traceId"].rjust(32, "0"))
        assert sp["id"] in {back.span_id.hex() for back in otlp.spans_of(got)}


def test_links_and_samples_exist():
    for path in PAGES:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for name in re.findall(r"`((?:configs|docs|tests)/[^` ]+)`", text):
            assert os.path.exists(os.path.join(ROOT, name)), f"{path}: {name}"
        for name in re.findall(r"\]\(([^)#]+)\)", text):
            assert os.path.exists(os.path.join(os.path.dirname(path), name)), f"{path}: {name}"
