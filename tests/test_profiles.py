"""The profiles name rules that exist: Snakemake says nothing about others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

WORKFLOW = Path(__file__).parents[1] / "workflow"


@pytest.mark.parametrize("profile", sorted(path.parent.name for path in WORKFLOW.glob("profiles/*/config.yaml")))
def test_every_rule_of_a_profile_exists(profile: str):
    rules = {
        name for path in WORKFLOW.glob("rules/*.smk") for name in re.findall(r"^rule (\w+):", path.read_text(), re.M)
    }
    settings = yaml.safe_load((WORKFLOW / "profiles" / profile / "config.yaml").read_text())
    assert {*settings.get("set-threads", {}), *settings.get("set-resources", {})} <= rules
