from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from fdta.acquire.check import check_split
from fdta.acquire.crowdhuman import convert_crowdhuman
from fdta.cli import main
from fdta.data.motchallenge import read_split
from fdta.errors import InputError


def _person(box, tag="person", **extra):
    return {"tag": tag, "fbox": box, "vbox": [0, 0, 1, 1], "hbox": [0, 0, 1, 1], "extra": {"box_id": 0, **extra}}


@pytest.fixture
def source(tmp_path):
    """Two images of persons, one of none, and their annotation."""
    records = [
        {
            "ID": "273271,1a0d6000b9e1f5b7",
            "gtboxes": [
                _person([-5, 10, 30, 40], occ=1),
                _person([20, 5, 12, 30], ignore=1),
                _person([1, 2, 9, 9], tag="mask", ignore=1),
                _person([40, 12, 20, 44], ignore=0),
            ],
        },
        {"ID": "273278,c9db000d5146c15", "gtboxes": [_person([3, 4, 5, 6])]},
        {"ID": "284193,faa9000f2678b5e", "gtboxes": [_person([0, 0, 64, 48], tag="mask", ignore=1)]},
    ]
    (tmp_path / "images").mkdir()
    for record in records:
        cv2.imwrite(str(tmp_path / "images" / f"{record['ID']}.jpg"), np.full((48, 64, 3), 90, np.uint8))
    (tmp_path / "annotation_train.odgt").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def test_persons_become_sequences_of_one_frame(source):
    folder = source / "data/crowdhuman/train"
    assert convert_crowdhuman(source / "annotation_train.odgt", source / "images", folder) == 2
    first, second = read_split(folder)
    assert (first.name, first.frames, first.width, first.height) == ("273271_1a0d6000b9e1f5b7", 1, 64, 48)
    truth = first.ground_truth()
    assert truth.boxes_xywh.tolist() == [[-5, 10, 30, 40], [40, 12, 20, 44]]
    assert len(set(truth.identities.tolist())) == 2 and set(truth.frames.tolist()) == {1}
    assert first.image(1).shape == (48, 64, 3)
    assert not any(report.defects for report in check_split(folder))
    names = (folder.parent / "seqmaps/train.txt").read_text().split()
    assert names == ["name", first.name, second.name]


def test_command_writes_a_split(source, capsys):
    folder = source / "data/crowdhuman/train"
    command = ["data", "crowdhuman", str(source / "annotation_train.odgt"), str(source / "images"), "--output"]
    assert main([*command, str(folder)]) == 0
    assert "2 sequences" in capsys.readouterr().out and len(read_split(folder)) == 2
    assert main([*command[:3], str(source / "nowhere"), *command[4:], str(folder.parent / "val")]) == 2
    error = capsys.readouterr().err
    assert "273271,1a0d6000b9e1f5b7.jpg" in error and error.count("\n") == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == ["seqmaps", "train"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "line 4 is malformed"),
        ('{"ID": "a"}', "gtboxes"),
        ('{"ID": "../a", "gtboxes": []}', "cannot name a picture"),
        ('{"ID": "a", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3]}]}', "3 numbers"),
        ('{"ID": "absent", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3, 4]}]}', "absent.jpg"),
        ('{"ID": "273278,c9db000d5146c15", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3, 4]}]}', "two images become"),
        ('{"ID": "a\\nb", "gtboxes": []}', "cannot name a picture"),
        ('{"ID": ".h", "gtboxes": []}', "cannot name a picture"),
        ('{"ID": "a", "gtboxes": [{"tag": "person", "fbox": [true, "2", 3, 4]}]}', "something else than numbers"),
    ],
)
def test_malformed_annotation_is_refused_with_its_place(source, line, what):
    path = source / "annotation_train.odgt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=what) as refused:
        convert_crowdhuman(path, source / "images", source / "data/crowdhuman/train")
    assert "\n" not in str(refused.value) and not (source / "data/crowdhuman/train").exists()
