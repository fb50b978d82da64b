"""Settings of a model that is as small as possible."""

from __future__ import annotations

from fdta.experiment.settings import Settings
from fdta.settings import read_settings


def tiny_settings(**overrides: dict[str, object]) -> Settings:
    tiny: dict[str, dict[str, object] | int] = {
        "history": 4,
        "backbone": {"block": "basic", "norm": "group", "stem_width": 16, "widths": [16] * 4, "blocks": [1] * 4},
        "detector": {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 16}
        | {"queries": 6, "norm_groups": 4},
        "spatial": {"bins": 5, "feedforward": 16},
        "temporal": {"layers": 1, "heads": 2, "feedforward": 16},
        "association": {"labels": 8, "label_width": 16, "layers": 1, "heads": 2},
        # Every query is an object.
        "tracker": {"short_side": 64, "long_side": 96, "detection_threshold": 0, "newborn_threshold": 0}
        | {"record_threshold": 0},
    }
    for name, values in overrides.items():
        tiny[name] = {**tiny.get(name, {}), **values}
    return read_settings(Settings, tiny, "", "test")
