"""configs/prometheus and configs/grafana: promtool takes the configuration, the rules do what they are
for, and the dashboard is one that Grafana finds its way through. That its queries give data is shown
in test_exemplar_guarantee.py, beside a running spanmill."""

import os

import pytest

from dashboard import dashboard, provisioned, targets, variables
from mill import ROOT
from prometheus_bed import promtool

PROMETHEUS = os.path.join(ROOT, "configs", "prometheus")
RULE_TESTS = os.path.join(ROOT, "tests", "integration", "prometheus_rules")


def test_promtool_takes_the_configuration(prometheus_installed):
    status, said = promtool("check", "config", "--lint-fatal",
                            os.path.join(PROMETHEUS, "prometheus.yml"))  # fmt: skip
    assert status == 0, said
    assert "8 rules found" in said and "7 rules found" in said, said


def test_rules_fire_on_what_they_are_for(prometheus_installed):
    status, said = promtool("test", "rules", os.path.join(RULE_TESTS, "alerts.yml"))
    assert status == 0, said


@pytest.mark.parametrize("wrong", ["5 * quantile", "> 0.05 and", 'result=~"missing|partial"}[1h]'])
def test_the_rule_tests_can_fail(prometheus_installed, tmp_path, wrong):
    """A threshold or a factor changed: the tests of the rules say so."""
    with open(os.path.join(PROMETHEUS, "alert-rules.yml"), encoding="utf-8") as f:
        rules = f.read()
    changed = {"5 * quantile": "500 * quantile", "> 0.05 and": "> 0.5 and"}.get(
        wrong, 'result=~"ok"}[1h]')  # fmt: skip
    assert wrong in rules
    (tmp_path / "alert-rules.yml").write_text(rules.replace(wrong, changed))
    with open(os.path.join(RULE_TESTS, "alerts.yml"), encoding="utf-8") as f:
        tests = f.read()
    tests = tests.replace("../../../configs/prometheus/recording-rules.yml",
                          os.path.join(PROMETHEUS, "recording-rules.yml"))  # fmt: skip
    tests = tests.replace("../../../configs/prometheus/alert-rules.yml", "alert-rules.yml")
    (tmp_path / "alerts.yml").write_text(tests)
    status, said = promtool("test", "rules", str(tmp_path / "alerts.yml"))
    assert status == 1 and "FAILED" in said, said


def test_exemplars_of_the_dashboard_lead_to_the_traces():
    """The label of an exemplar names the trace, its destination is the data source that has it."""
    sources = {s["type"]: s for s in provisioned("datasources")["datasources"]}
    (destination,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert destination == {"name": "trace_id", "datasourceUid": sources["tempo"]["uid"]}
    assert sources["tempo"]["url"] == "http://localhost:3200"
    assert [p["type"] for p in provisioned("dashboards")["providers"]] == ["file"]


def test_the_dashboard_is_whole():
    board = dashboard()
    ids = [p["id"] for p in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert set(variables()) == {"service", "operation"}
    for panel, target in targets():
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [t["refId"] for t in panel["targets"]]
        assert len(set(refs)) == len(refs), panel["title"]
    with_dots = {p["title"] for p, t in targets() if t["exemplar"]}
    assert {"Calls", "Errors", "Latency", "Latency, quantiles"} <= with_dots
