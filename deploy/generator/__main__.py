"""`python -m deploy.generator` writes deploy/prometheus and deploy/grafana anew; run it from the project's root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from deploy.generator.alerts import ALERTS, GROUPS, Alert, Case
from deploy.generator.dashboards import dashboard
from deploy.generator.rules import RECORDED

DEPLOY = Path(__file__).parents[1]
HEAD = "# Made by `python -m deploy.generator` from the names and bars of the code; change those, not this file.\n"


def files() -> dict[str, str]:
    """Every generated file's text by its path below deploy/."""
    return {
        "prometheus/rules.yml": HEAD + _yaml(_rules()),
        "prometheus/rules_test.yml": HEAD + _yaml(_tests()),
        "grafana/simservice.json": json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n",
    }


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=118, allow_unicode=True)


def _rules() -> dict[str, Any]:
    recorded = [{"record": name, "expr": expression} for name, expression in RECORDED.items()]
    groups: list[dict[str, Any]] = [{"name": "simservice-recorded", "interval": "30s", "rules": recorded}]
    groups += [
        {"name": f"simservice-{name}", "rules": [_alert(alert) for alert in alerts]} for name, alerts in GROUPS.items()
    ]
    return {"groups": groups}


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        **({"for": f"{alert.minutes}m"} if alert.minutes else {}),
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": _summary(alert, {label: f"{{{{ $labels.{label} }}}}" for label in alert.labels}),
            "runbook_url": alert.runbook,
        },
    }


def _summary(alert: Alert, values: dict[str, str]) -> str:
    return alert.summary.format(**values) if values else alert.summary


def _tests() -> dict[str, Any]:
    cases = []
    for alert in ALERTS:
        cases += [_case(alert, alert.fires, fires=True), _case(alert, alert.rests, fires=False)]
    return {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": cases}


def _case(alert: Alert, case: Case, *, fires: bool) -> dict[str, Any]:
    expected = {
        "exp_labels": {"severity": alert.severity, **alert.labels},
        "exp_annotations": {"summary": _summary(alert, alert.labels), "runbook_url": alert.runbook},
    }
    looked = {"eval_time": f"{case.minute}m", "alertname": alert.name, "exp_alerts": [expected] if fires else []}
    return {
        "name": f"{alert.name} {'fires' if fires else 'rests'}",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [looked],
    }


def main() -> None:
    """Writes all files."""
    for path, text in files().items():
        (DEPLOY / path).parent.mkdir(parents=True, exist_ok=True)
        (DEPLOY / path).write_text(text, encoding="utf-8")
        print(f"wrote deploy/{path}")


if __name__ == "__main__":
    main()
