#!/usr/bin/env python3
"""Makes ``dashboard.json``: the panels of ``panels.py``, and all that Grafana wants beside them.

::

    python deploy/grafana/make_dashboard.py > deploy/grafana/dashboard.json

Panels stand from left to right, and in the next line where one is full.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from panels import SECTIONS, Panel

COLUMNS: Final = 24  # of Grafana's grid
HEIGHTS: Final = {"stat": 4, "timeseries": 8, "table": 8}
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """The whole, as Grafana imports it."""
    return {
        "uid": "gammawear",
        "title": "gammawear",
        "description": "Made by deploy/grafana/make_dashboard.py: change panels.py there.",
        "tags": ["gammawear"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                _variable("gateway", "Gateway", "label_values(gammawear_streaming_devices, instance)"),
                _variable("device", "Device", "label_values(gammawear_device_packets_total, device)"),
                _variable("bridge", "Bridge", "label_values(gammawear_bridge_adapter_up, instance)"),
            ]
        },
        "panels": list(_panels()),
    }


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes: devices come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels() -> Iterator[dict[str, Any]]:
    number = y = 0
    for title, panels in SECTIONS.items():
        number += 1
        yield {
            "id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        }  # fmt: skip
        x, y, height = 0, y + 1, 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            height = max(height, HEIGHTS[panel.kind])
            number += 1
            place = {"x": x, "y": y, "w": panel.width, "h": HEIGHTS[panel.kind]}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            x += panel.width
        y += height


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    options: dict[str, Any] = {}
    if panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "area"}
    elif panel.kind == "timeseries":
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        bottom = {} if panel.unit == "dBm" else {"min": 0}
        defaults |= bottom | ({"max": panel.top} if panel.top is not None else {})
        if panel.stacked:
            defaults["custom"] = {"stacking": {"mode": "normal"}, "fillOpacity": 30}
    table = {"format": "table", "instant": True, "range": False} if panel.kind == "table" else {}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expression, "legendFormat": legend, **table}
            for n, (expression, legend) in enumerate(panel.queries)
        ],
        **({"transformations": [{"id": "merge", "options": {}}]} if panel.kind == "table" else {}),
    }


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    json.dump(dashboard(), sys.stdout, indent=2, ensure_ascii=False)
    print()
