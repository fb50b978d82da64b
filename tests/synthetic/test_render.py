from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fdta.acquire.check import check_split
from fdta.data.motchallenge import read_split
from fdta.data.rendered import ATTRIBUTES, read_true_depth
from fdta.errors import InputError
from fdta.synthetic.backdrops import Backdrop
from fdta.synthetic.bodies import Costumes, Outlines
from fdta.synthetic.render import MINIMUM_SIDE, paint, render_split
from fdta.synthetic.scenes import Scene, choreograph
from fdta.synthetic.settings import RenderSettings

DANCE = RenderSettings("dance", frames=8)
SCENES = [
    DANCE,
    RenderSettings("sports", frames=8, objects=(5, 8)),
    RenderSettings("flock", frames=8, objects=(8, 12), object_height=(16, 28)),
    RenderSettings("appearance", frames=4, cue=3.0),
]


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def plain_scene(squares: list[tuple[float, float, float]], inverse_depth: list[float], size: int = 40) -> Scene:
    """Upright squares (left, top, side) in plain colours on a black wall."""
    polygons = np.empty((1, len(squares), 1, 4, 2))
    for index, (x, y, side) in enumerate(squares):
        polygons[0, index, 0] = [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]
    colours = np.array([[[[250.0, 0, 0]], [[0, 250.0, 0]], [[0, 0, 250.0]]]])[:, : len(squares)]
    outlines = Outlines(polygons, colours, np.zeros((1, len(squares), 1), dtype=int))
    backdrop = Backdrop(np.zeros((size, size, 3), np.uint8), np.full((size, size), 0.25, np.float32))
    return Scene(outlines, np.array([inverse_depth]), None, Costumes({}, np.zeros(0)), backdrop, np.zeros(1))


def painted(scene: Scene, size: int = 40):
    return paint(replace(DANCE, width=size, height=size, frames=1), scene)


@pytest.mark.parametrize("settings", SCENES, ids=lambda s: s.scene)
def test_same_settings_give_the_same_bytes(tmp_path, settings) -> None:
    threads = cv2.getNumThreads()
    try:
        for folder, count in (("a", 1), ("b", 4)):
            cv2.setNumThreads(count)
            render_split(settings, "train", 2, tmp_path / folder / "train")
    finally:
        cv2.setNumThreads(threads)
    first = all_bytes(tmp_path / "a")
    assert first == all_bytes(tmp_path / "b")
    names = [f"{settings.scene}-train-{n:04d}" for n in (1, 2)]
    assert {name.split("/")[1] for name in first} == set(names)
    images = [first[f"train/{name}/img1/00000001.jpg"] for name in names]
    render_split(settings, "val", 1, tmp_path / "a" / "val")
    render_split(replace(settings, seed=1), "train", 1, tmp_path / "c" / "train")
    images.append((tmp_path / "a" / "val" / f"{settings.scene}-val-0001" / "img1" / "00000001.jpg").read_bytes())
    images.append((tmp_path / "c" / "train" / names[0] / "img1" / "00000001.jpg").read_bytes())
    assert len(set(images)) == 4


@pytest.mark.parametrize("settings", SCENES, ids=lambda s: s.scene)
def test_a_split_is_a_whole_motchallenge_split(tmp_path, settings) -> None:
    folder = tmp_path / "train"
    render_split(settings, "train", 2, folder)
    assert [str(defect) for report in check_split(folder, decode=True) for defect in report.defects] == []
    for sequence in read_split(folder):
        assert (sequence.frames, sequence.width, sequence.height) == (settings.frames, 160, 96)
        boxes = sequence.ground_truth()
        assert len(boxes.frames) >= settings.frames
        left_top, right_bottom = boxes.boxes_xywh[:, :2], boxes.boxes_xywh[:, :2] + boxes.boxes_xywh[:, 2:]
        assert (left_top >= 0).all() and (right_bottom <= np.array([160, 96]) + 0.011).all()
        assert (boxes.boxes_xywh[:, 2:] >= MINIMUM_SIDE - 0.01).all()
        rows = np.loadtxt(sequence.folder / "gt" / "gt.txt", delimiter=",", ndmin=2)
        assert (rows[:, 8] >= settings.minimum_visible - 0.001).all() and (rows[:, 8] <= 1).all()
        depth = read_true_depth(sequence.folder)
        assert depth.shape == (settings.frames, 96, 160) and depth.dtype == np.float16
        attributes = json.loads((sequence.folder / "attributes.json").read_text())
        assert set(boxes.identities.tolist()) <= {int(identity) for identity in attributes}
        for classes in attributes.values():
            assert list(classes) == list(ATTRIBUTES)
            assert all(-1 <= value < ATTRIBUTES[name] for name, value in classes.items())


def test_depth_of_a_real_sequence_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="only rendered sequences"):
        read_true_depth(tmp_path)


def test_nearer_is_painted_over_farther() -> None:
    # The list order must not matter: red is nearer than green, which it half covers.
    result = painted(plain_scene([(10, 10, 12), (16, 10, 12)], [0.75, 0.5]))
    image, depth = result.images[0].astype(int), result.inverse_depth[0]
    assert (image[16, 19] > [200, -1, -1]).all() and depth[16, 19] == 0.75
    assert image[16, 25, 1] > 200 and depth[16, 25] == 0.5
    assert image[16, 35].tolist() == [0, 0, 0] and depth[16, 35] == 0.25
    np.testing.assert_allclose(result.visibility[0], [1, 0.5], atol=0.05)
    np.testing.assert_allclose(result.boxes_xyxy[0], [[10, 10, 22, 22], [16, 10, 28, 22]])


def test_visibility_and_boxes_at_the_border() -> None:
    result = painted(plain_scene([(-6, 10, 12), (60, 10, 12), (30, 34, 12)], [0.5, 0.6, 0.7]))
    np.testing.assert_allclose(result.visibility[0], [0.5, 0, 10 * 6 / 144], atol=0.06)
    np.testing.assert_allclose(result.boxes_xyxy[0, [0, 2]], [[0, 10, 6, 22], [30, 34, 40, 40]])


def test_boxes_are_tight() -> None:
    scene = choreograph(replace(DANCE, objects=(1, 1)), np.random.default_rng(3))
    scene = replace(scene, shadows=None, backdrop=replace(scene.backdrop, image=np.full((96, 160, 3), 255, np.uint8)))
    result = paint(DANCE, scene)
    for image, (box,) in zip(result.images, result.boxes_xyxy, strict=True):
        rows, columns = np.nonzero((image < 250).any(axis=-1))
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(drawn, box, atol=1.1)


@pytest.mark.parametrize("settings", SCENES[:3], ids=lambda s: s.scene)
def test_depth_agrees_with_what_is_seen(settings) -> None:
    scene = choreograph(settings, np.random.default_rng(0))
    result = paint(settings, scene)
    for frame, inverse_depth in enumerate(result.inverse_depth):
        for figure, box in enumerate(result.boxes_xyxy[frame]):
            if result.visibility[frame, figure] < 0.5:
                continue
            x1, y1, x2, y2 = np.round(box).astype(int)
            own = np.float16(scene.inverse_depth[frame, figure])
            assert (inverse_depth[y1:y2, x1:x2] == own).mean() > 0.08
    if settings.scene != "flock":
        # Lower on the stage is nearer, and nearer is larger.
        nearness = scene.inverse_depth.ravel()
        row, height = scene.shadows[..., 1].ravel(), np.ptp(scene.outlines.polygons[..., 1], axis=(2, 3)).ravel()
        assert np.corrcoef(nearness, row)[0, 1] > 0.99
        assert np.corrcoef(nearness, height)[0, 1] > 0.5


def test_hidden_objects_have_no_box(tmp_path) -> None:
    settings = replace(DANCE, frames=30, objects=(8, 8), minimum_visible=0.3)
    render_split(settings, "train", 1, tmp_path / "train")
    (sequence,) = read_split(tmp_path / "train")
    boxes = sequence.ground_truth()
    assert len(boxes.frames) < 30 * 8
    render_split(replace(settings, minimum_visible=0.0), "train", 1, tmp_path / "all" / "train")
    (everyone,) = read_split(tmp_path / "all" / "train")
    everybody = np.loadtxt(everyone.folder / "gt" / "gt.txt", delimiter=",")
    visible = everybody[everybody[:, 8] >= 0.3]
    np.testing.assert_array_equal(visible[:, :2], np.stack([boxes.frames, boxes.identities], axis=1))


def test_players_leave_and_come_back(tmp_path) -> None:
    settings = replace(SCENES[1], frames=40)
    returned = entered = left = 0
    for seed in range(4):
        scene = choreograph(settings, np.random.default_rng(seed))
        extents = scene.outlines.boxes_xyxy()
        outside = (extents[..., 2] < 0) | (extents[..., 0] > settings.width)
        entered += int((outside[:-1] & ~outside[1:]).sum())
        left += int((~outside[:-1] & outside[1:]).sum())
        for figure in outside.T:
            changes = np.flatnonzero(np.diff(figure.astype(int)))
            returned += int(not figure[0] and len(changes) >= 2)
        assert np.ptp(scene.pan) > 0.1 * settings.width
        assert scene.pan.min() >= 0
        assert scene.pan.max() + settings.width <= scene.backdrop.image.shape[1]
    assert entered and left and returned


def test_dancers_change_places() -> None:
    settings = replace(DANCE, frames=40)
    changes = 0
    for seed in range(4):
        x = choreograph(settings, np.random.default_rng(seed)).shadows[..., 0]
        changes += len({tuple(order) for order in np.argsort(x[::8], axis=1)}) - 1
    assert changes >= 8


def test_cue_zero_means_the_same_costume() -> None:
    alike = choreograph(replace(DANCE, cue=0.0), np.random.default_rng(0)).costumes
    cued = choreograph(DANCE, np.random.default_rng(0)).costumes
    for part in alike.colours:
        assert np.ptp(alike.colours[part], axis=0).max() == 0
    assert np.ptp(alike.stripe_height) == 0
    assert np.ptp(cued.colours["hat"], axis=0).max() > 20 and np.ptp(cued.stripe_height) > 0.2


def test_appearance_has_independent_strong_colours() -> None:
    settings = replace(SCENES[3], objects=(8, 8))
    costumes = [choreograph(settings, np.random.default_rng(seed)).costumes for seed in range(12)]
    hat, top = (np.concatenate([c.colours[part] for c in costumes]) for part in ("hat", "top"))
    assert hat.std(axis=0).min() > 55
    assert np.abs(np.corrcoef(hat.T, top.T)[:3, 3:]).max() < 0.35
    classes = [list(c.attributes(i).values()) for c in costumes for i in range(8)]
    for values, number in zip(np.array(classes).T, ATTRIBUTES.values(), strict=True):
        assert set(values) == set(range(number))


def test_attribute_classes() -> None:
    colours = {part: np.array([[0.0, 43, 255]]) for part in ("hat", "stripe", "top", "leg")}
    classes = Costumes(colours, np.array([0.8])).attributes(0)
    assert (classes["hat_red"], classes["top_green"], classes["leg_blue"], classes["stripe_height"]) == (0, 1, 5, 3)
    assert len(classes) == 13


def test_a_killed_rendering_resumes_with_whole_sequences(tmp_path) -> None:
    folder = tmp_path / "train"
    settings = replace(DANCE, frames=2)
    render_split(settings, "train", 3, folder)
    marks = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    before = all_bytes(folder)
    for path in sorted((folder / "dance-train-0002").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "dance-train-0002").rmdir()
    render_split(settings, "train", 3, folder)
    assert all_bytes(folder) == before
    assert {path.parts[-3] for path in marks if path.stat().st_mtime_ns != marks[path]} == {"dance-train-0002"}


def test_other_sizes_and_single_frames() -> None:
    for scene in ("dance", "sports", "flock"):
        settings = RenderSettings(scene, width=201, height=131, frames=1, objects=(1, 3), object_height=(40, 40))
        result = paint(settings, choreograph(settings, np.random.default_rng(0)))
        assert result.images.shape == (1, 131, 201, 3)
        assert np.isfinite(result.inverse_depth).all() and (result.inverse_depth >= 0).all()
