"""The tables of docs/model.md have every setting of a run, with its default; docs/settings.md is the generated one."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import yaml

from fdta.experiment.reference import reference
from fdta.experiment.settings import DatasetSettings, Settings
from fdta.settings import to_plain

ELSEWHERE = {"history", "training_splits"}
"""Settings that are in the text, with `detector_training` and `validation`, which have the keys of others."""


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: item for part, inner in value.items() for key, item in flat(inner, f"{name}.{part}".strip(".")).items()
    }


def documented(page: str) -> dict[str, Any]:
    """Defaults of the tables "key, default, meaning" by key."""
    found = {}
    for row in re.findall(r"^\| (`.+?) \| (.+?) \|.*\|$", page, re.MULTILINE):
        keys = re.findall(r"`([\w.]+)`", row[0])
        values = yaml.safe_load(f"[{row[1].replace('`', '')}]")
        found |= zip(
            [keys[0], *(re.sub(r"^(?=\.)", keys[0].split(".")[0], key) for key in keys[1:])], values, strict=False
        )
    return found


def test_every_setting_has_its_default(repository):
    defaults = flat(json.loads(json.dumps(to_plain(Settings()))))
    data = {field.name: field.default for field in dataclasses.fields(DatasetSettings)}
    found = documented((repository / "docs/model.md").read_text())
    expected = {}
    for key, value in defaults.items():
        group, _, rest = key.partition(".")
        if group not in (*ELSEWHERE, "detector_training", "validation"):
            expected[rest if group == "training" else key] = value
    expected["augmentation.short_sides"] = [480, 512, "...", 800]
    expected |= {key: data[key] for key in found if key.startswith("teacher")}
    assert found == expected


def test_the_reference_of_settings_is_that_of_the_code(repository):
    page = (repository / "docs/settings.md").read_text()
    assert page == reference(), "write it anew: fdta params reference > docs/settings.md"
    assert "| `spatial.bins` | whole number from 1 to 100000 | `150` |" in page
