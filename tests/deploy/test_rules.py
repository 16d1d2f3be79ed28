"""Rules and dashboard are what the code makes of them, Prometheus' own tool accepts them, every alert is tried."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from deploy_tools import prometheus_tool

from deploy.generator.__main__ import DEPLOY, files
from deploy.generator.alerts import ALERTS
from deploy.generator.dashboards import PANELS
from deploy.generator.rules import RECORDED
from simservice.fidelity import thresholds
from simservice.telemetry import NAMES

ROOT = DEPLOY.parent
SUFFIXES = ("_bucket", "_sum", "_count", "")
QUERIES = [
    *RECORDED.values(),
    *(alert.expression for alert in ALERTS),
    *(q for p in PANELS for q in p.queries.values()),
]


def drawn():
    return json.loads((DEPLOY / "grafana/simservice.json").read_text(encoding="utf-8"))["panels"]


@pytest.mark.parametrize("path", files())
def test_what_is_committed_is_what_the_code_makes(path):
    committed = (DEPLOY / path).read_text(encoding="utf-8")
    assert committed == files()[path], f"deploy/{path} is old; run: python -m deploy.generator"


def test_every_query_names_only_what_is_published():
    published = {name.name + suffix for name in NAMES for suffix in SUFFIXES}
    used = set(re.findall(r"\bsimservice_\w+", " ".join(QUERIES)))
    assert used <= published, used - published
    recorded = set(re.findall(r"\bworld:[\w:]+", " ".join(QUERIES)))
    assert recorded == set(RECORDED), recorded ^ set(RECORDED)


def test_bars_are_those_of_the_verdict():
    conditions = {alert.name: alert.condition for alert in ALERTS}
    assert conditions["WorldEndsWrong"] == f"< {thresholds.TERMINATION_F1:g}"
    assert conditions["WorldFalseSuccess"] == f"> {thresholds.FALSE_SUCCESS:g}"
    assert conditions["WorldExploited"] == f"> {thresholds.EXPLOITATION:g}"
    assert f"{thresholds.RETURN_GAP:g}" in conditions["WorldReturnGapHigh"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_has_a_runbook_that_tells_what_to_do(alert):
    page = (ROOT / alert.runbook).read_text(encoding="utf-8")
    assert page.startswith(f"# {alert.name}\n")
    for heading in ("## What it means", "## Look first", "## What to do"):
        assert heading in page, heading


def test_there_is_no_runbook_without_an_alert():
    pages = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} - {"README"}
    assert pages == {alert.name for alert in ALERTS}


def test_prometheus_accepts_rules_and_settings():
    promtool = prometheus_tool("promtool")
    subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", DEPLOY / "prometheus/rules.yml"], check=True
    )
    subprocess.run([promtool, "check", "config", "--syntax-only", DEPLOY / "prometheus/prometheus.yml"], check=True)


def test_every_alert_fires_and_rests_where_it_should():
    promtool = prometheus_tool("promtool")
    done = subprocess.run(
        [promtool, "test", "rules", DEPLOY / "prometheus/rules_test.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = yaml.safe_load((DEPLOY / "prometheus/rules_test.yml").read_text())["tests"]
    for alert in ALERTS:
        expected = [case["alert_rule_test"][0] for case in cases if case["name"].startswith(f"{alert.name} ")]
        assert [bool(case["exp_alerts"]) for case in expected] == [True, False]


def test_unknown_is_grey_and_said_on_every_panel():
    panels = [
        panel
        for panel in json.loads((DEPLOY / "grafana/simservice.json").read_text())["panels"]
        if panel["type"] != "row"
    ]
    assert len(panels) == len(PANELS)
    assert all(panel["fieldConfig"]["defaults"]["noValue"] == "unknown" for panel in panels)


def test_panels_do_not_overlap():
    taken = set()
    for panel in json.loads((DEPLOY / "grafana/simservice.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_settings_read_the_files_that_replicas_write():
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    assert config["rule_files"] == ["rules.yml"]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs["simservice"]["file_sd_configs"][0]["files"] == ["/metrics/*.json"]
    serve = (DEPLOY / "serve.yaml").read_text()
    assert re.search(r"metrics_folder: /metrics\b", serve)
    assert Path(DEPLOY / "prometheus" / config["rule_files"][0]).is_file()
