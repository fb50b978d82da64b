"""The three data sets in their published form, and a fourth: downloaded or imported, converted, verified."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.loopback import serving
from helpers.published_forms import published_files, write_archive, write_folder, write_published_archives

from fdta.acquire import convert, splits
from fdta.cli import main
from fdta.data.motchallenge import read_split
from fdta.experiment.params import Experiment

for module in ("filelock", "requests"):
    pytest.importorskip(module)

ROOT = Path(__file__).parents[2]
DATASETS = ("dancetrack", "sportsmot", "bft")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A server with the miniature archives, and what params.yaml needs of it."""
    folder = tmp_path_factory.mktemp("published")
    with serving(folder) as server:
        yield server, write_published_archives(folder, server.url)


@pytest.fixture
def workspace(published, tmp_path, monkeypatch):
    """An empty folder with a params.yaml, as the place to work."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, published[1])
    published[0].requests.clear()
    return tmp_path


def write_params(folder: Path, overrides: dict) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(raw | {"benchmark": "paper"} | overrides, sort_keys=False))


def refused(capsys, *arguments: str) -> str:
    """The one line that the command says."""
    assert main(["data", *arguments]) == 2
    line = [text for text in capsys.readouterr().err.splitlines() if text.startswith("fdta: ")]
    assert len(line) == 1
    return line[0]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dataset", DATASETS)
def test_get(workspace, published, capsys, dataset):
    for split in ("train", "val", "test"):
        assert main(["data", "get", dataset, split]) == 0
        folder = Path("data") / dataset / split
        sequences = read_split(folder)
        names = [sequence.name for sequence in sequences]
        assert (folder.parent / "seqmaps" / f"{split}.txt").read_text().split() == ["name", *names]
        assert len(sequences) == 2
        for sequence in sequences:
            assert (sequence.frames, sequence.width, sequence.height) == (6, 96, 64)
            assert sequence.rate == (20 if dataset == "dancetrack" else 25)
            assert sequence.image_digits == (8 if dataset == "dancetrack" else 6)
            assert sequence.image_folder == "img1" and sequence.image(6).shape == (64, 96, 3)
            if split != "test" or dataset == "bft":
                boxes = sequence.ground_truth()
                assert len(boxes.frames) == 18 and set(boxes.scores) == {1}
                assert boxes.identities.min() == (0 if dataset == "sportsmot" else 1)
        assert sorted(path.name for path in folder.glob("[!.]*")) == names
    assert len(published[0].requests) == {"dancetrack": 5, "sportsmot": 3, "bft": 1}[dataset]
    assert len(yaml.safe_load(Path("checksums.json").read_text())) == len(published[0].requests)
    assert sorted(path.name for path in Path("data", dataset).iterdir() if not path.name.endswith(".lock")) == [
        "seqmaps", "test", "train", "val",
    ]  # fmt: skip
    capsys.readouterr()
    assert main(["data", "check", dataset, "--decode"]) == 0
    assert capsys.readouterr().out.count("2 sequences, 12 frames") == 3
    assert main(["data", "get", dataset, "train"]) == 0  # there already
    assert len(published[0].requests) == {"dancetrack": 5, "sportsmot": 3, "bft": 1}[dataset]


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("form", ["unpacked", "archives"])
def test_import(workspace, published, capsys, dataset, form):
    for archive, members in published_files()[dataset].items():
        if form == "archives":
            (workspace / "mine").mkdir(exist_ok=True)
            shutil.copy(published[0].folder / archive, workspace / "mine")
        else:
            write_folder(workspace / "mine", members)
    before = tree(workspace / "mine")
    assert main(["data", "import", dataset, "mine"]) == 0
    assert capsys.readouterr().out.count("whole: ") == 3
    assert tree(workspace / "mine") == before
    for split in ("train", "val", "test"):
        assert len(read_split(Path("data") / dataset / split)) == 2
    assert main(["data", "check", dataset]) == 0
    assert published[0].requests == []
    if form == "unpacked":
        (image, *_) = sorted(Path("data", dataset, "train").rglob("*1.jpg"))
        assert image.stat().st_nlink == 2  # no copy
        annotation = Path("data", dataset, "train").glob("*/gt/gt.txt")
        assert all(path.stat().st_nlink == 1 for path in annotation)  # mended without changing the user's
    # Imported and downloaded are the same.
    assert main(["data", "get", dataset, "val", "--root", "other"]) == 0
    assert tree(workspace / "data" / dataset / "val") == tree(workspace / "other" / dataset / "val")


def test_what_users_have(workspace, capsys):
    """Halves joined to one folder; BFT converted as the published code does; a split's own folder; depth maps."""
    for members in list(published_files()["dancetrack"].values())[:2]:
        write_folder(workspace / "mine", {re.sub(r"^train\d", "train", name): data for name, data in members.items()})
    depth = {"train/dancetrack0001/depth/00000001.png": b"p"}
    write_folder(workspace / "mine", depth)
    assert "depth/00000001.png: no image" in refused(capsys, "import", "dancetrack", "mine", "--split", "train")
    shutil.rmtree("data")
    shutil.rmtree(workspace / "mine" / "train" / "dancetrack0001" / "depth")
    assert main(["data", "import", "dancetrack", "mine"]) == 0
    assert "not taken: val, test" in capsys.readouterr().out

    converted = {}
    for name, content in published_files()["bft"]["BFT.zip"].items():
        _, *folders, file = name.split("/")
        if folders[0] == "annotations_mot":
            converted[f"{folders[1]}/{file[:-4]}/gt/gt.txt"] = content.replace(b"-1,-1,-1,-1", b"1,1,1")
        else:
            converted["/".join([*folders, "img1", file])] = content
    write_folder(workspace / "birds", converted)
    assert main(["data", "import", "bft", "birds/val", "--split", "val"]) == 0
    assert main(["data", "import", "bft", "birds"]) == 0
    assert "val: is there already, left as it is" in capsys.readouterr().err

    write_folder(workspace / "loose", published_files()["bft"]["BFT.zip"])
    assert main(["data", "import", "bft", "loose/BFT/test", "--split", "test", "--root", "again"]) == 0
    assert tree(workspace / "again" / "bft" / "test") == tree(workspace / "data" / "bft" / "test")


def test_a_split_imported_with_defects_is_verified_by_the_same_command(workspace, capsys):
    write_folder(workspace / "mine", published_files()["sportsmot"]["val.tar"])
    (damaged, *_) = sorted((workspace / "mine").rglob("gt.txt"))
    right = damaged.read_text()
    damaged.write_text(right + "1,9,3,3,-5,5,1,1,1\n")
    command = ("import", "sportsmot", "mine")
    assert "correct them there and repeat this command" in refused(capsys, *command)
    assert "1 defects" in refused(capsys, *command)
    assert not Path("data/sportsmot/seqmaps/val.txt").exists()
    (imported,) = Path("data/sportsmot/val").glob(f"{damaged.parents[1].name}/gt/gt.txt")
    imported.write_text(right)
    assert main(["data", *command]) == 0
    assert "val: is there already, only verified" in capsys.readouterr().err
    assert Path("data/sportsmot/seqmaps/val.txt").is_file()
    assert "is there already; remove it first" in refused(capsys, *command, "--split", "val")


def test_copies_where_links_cannot_be(workspace, capsys, monkeypatch):
    write_folder(workspace / "mine", published_files()["sportsmot"]["val.tar"])

    def link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(convert.os, "link", link)
    assert main(["data", "import", "sportsmot", "mine", "--split", "val"]) == 0
    assert "copied, not linked" in capsys.readouterr().err
    (image, *_) = sorted(Path("data", "sportsmot", "val").rglob("*1.jpg"))
    assert image.stat().st_nlink == 1


def test_a_split_that_the_user_put_there_is_verified_and_left_alone(workspace, published, capsys):
    write_folder(workspace / "data" / "dancetrack", published_files()["dancetrack"]["val.zip"])
    wrong = workspace / "data" / "dancetrack" / "val" / "dancetrack0101" / "gt" / "gt.txt"
    right = wrong.read_text()
    wrong.write_text(right + "1,9,3,3,-5,5,1,1,1\n7,9,3,3,5,5,1,1,1\n")
    told = refused(capsys, "get", "dancetrack", "val")
    assert "dancetrack0101/gt/gt.txt, line 19: " in told and "2 defects in data/dancetrack/val" in told
    assert not Path("data/dancetrack/seqmaps/val.txt").exists()
    wrong.write_text(right)
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.jpg")}
    assert main(["data", "get", "dancetrack", "val"]) == 0
    assert Path("data/dancetrack/seqmaps/val.txt").is_file() and published[0].requests == []
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.jpg")} == before
    shutil.rmtree("data/dancetrack/val/dancetrack0102")
    Path("data/dancetrack/seqmaps/val.txt").unlink()
    assert "1 sequences instead of 2" in refused(capsys, "get", "dancetrack", "val")
    assert main(["data", "check", "dancetrack", "val"]) == 2
    assert "1 sequences instead of 2" in capsys.readouterr().out


def test_interrupted_get_leaves_nothing_and_goes_on(workspace, published, capsys, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(splits, "unpack", stop)
        assert main(["data", "get", "bft", "val"]) == 130
    assert not Path("data/bft/val").exists() and Path("downloads/bft/BFT.zip").is_file()
    stale = Path("data/bft/.val.unpacked")
    stale.mkdir()
    (stale / "killed").touch()
    assert main(["data", "get", "bft", "val"]) == 0
    assert not stale.exists() and len(published[0].requests) == 1


def test_refusals(workspace, published, capsys):
    write_folder(workspace / "mine", {"readme.txt": b"nothing"})
    (workspace / "mine" / "val.zip").write_text("no archive")
    (workspace / "mine" / "sub").mkdir()
    cases = {
        ("get", "mot20", "train"): "not in the catalogue, which has dancetrack, sportsmot, bft",
        ("get", "dancetrack", "dev"): "split 'dev': dancetrack has train, val, test",
        ("import", "dancetrack", "nowhere"): "nowhere: no such file or folder",
        ("import", "dancetrack", "mine/sub"): "no sequences of DanceTrack found; expected train1/, train2/, val/",
        ("import", "dancetrack", "mine", "--split", "val"): "mine/val.zip: no whole zip or tar archive",
        ("import", "sportsmot", "mine/readme.txt"): "mine/readme.txt: no sequences of SportsMOT found",
        ("import", "bft", "mine/readme.txt", "--split", "val"): "mine/readme.txt: no sequences of BFT",
        ("check", "dancetrack"): "no split is there yet",
        ("check", "mot20"): "mot20: neither a folder nor a data set",
        ("check", "mine"): "no sequence in it",
        ("check", "dancetrack", "dev"): "split 'dev'",
    }
    for arguments, told in cases.items():
        assert told in refused(capsys, *arguments)
    assert not [path for path in Path("data").rglob("*") if path.suffix != ".lock" and path.is_file()]


def test_another_data_set_under_the_name(workspace, published, capsys):
    write_folder(workspace / "mine", {f"x/{name}": b for name, b in published_files()["sportsmot"]["val.tar"].items()})
    assert "names of 6 digits instead of 8" in refused(capsys, "import", "dancetrack", "mine", "--split", "val")
    more = published_files(sequences=4)["bft"]["BFT.zip"]
    write_folder(workspace / "more", more)
    assert "val has 4 sequences instead of 2" in refused(capsys, "import", "bft", "more", "--split", "val")
    assert not Path("data/dancetrack/val").exists() and not Path("data/bft/val").exists()


def test_archives_that_changed_are_not_taken(workspace, published, capsys):
    assert main(["data", "get", "sportsmot", "val"]) == 0
    shutil.rmtree("data")
    archive = Path("downloads/sportsmot/val.tar")
    archive.write_bytes(archive.read_bytes() + b"\0" * 512)
    assert "bytes instead of the" in refused(capsys, "get", "sportsmot", "val")
    assert not archive.exists()
    assert main(["data", "get", "sportsmot", "val"]) == 0
    shutil.rmtree("data")
    shutil.copy(published[0].folder / "train.tar", "val.tar")
    assert "val.tar: another file than checksums.json tells" in refused(
        capsys, "import", "sportsmot", "val.tar", "--split", "val"
    )
    assert Path("val.tar").is_file()  # the user's own is kept


def documented() -> dict:
    """The YAML block of docs/datasets.md that adds MOT17."""
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "datasets.md").read_text(), re.S)[1])


@pytest.mark.parametrize("local", [False, True])
def test_the_documented_fourth_data_set(published, tmp_path, monkeypatch, capsys, local):
    monkeypatch.chdir(tmp_path)
    dancing = published_files(sequences=14)["dancetrack"]
    members = {}
    for split in ("train", "test"):
        half = [name for name in dancing if name.startswith(split)]
        joined = {name: data for archive in half for name, data in dancing[archive].items()}
        for name, data in joined.items():
            _, sequence, *rest = name.split("/")
            rest[-1] = re.sub(r"^\d\d(\d{6})\.jpg", r"\1.jpg", rest[-1])
            if rest[-1] == "gt.txt":  # a car, and a person who does not count
                data += b"1,8,1,1,5,5,1,3,1\n1,9,1,1,5,5,0,1,1\n"
            number = int(sequence[-4:]) % 100
            if number > 7:
                continue
            for detector in ("DPM", "FRCNN", "SDP"):
                members["/".join(["MOT17", split, f"MOT17-{number:02d}-{detector}", *rest])] = data
    write_archive(published[0].folder / "MOT17.zip", members)
    overrides = documented()
    (entry,) = overrides["catalogue"]["datasets"].values()
    if local:
        write_folder(tmp_path / "disk", members)
        del entry["archives"]
        entry["folder"] = "disk"
    else:
        entry["archives"]["MOT17.zip"]["url"] = f"{published[0].url}/MOT17.zip"
    line = re.search(r"^ {6}(mot17: .*)$", (ROOT / "docs" / "datasets.md").read_text(), re.M)[1]
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["benchmarks"]["paper"]["datasets"] |= yaml.safe_load(line)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw | overrides | {"benchmark": "paper"}, sort_keys=False))
    for split in ("train", "test"):
        assert main(["data", "get", "mot17", split]) == 0
    assert [path.name for path in sorted(Path("data/mot17/train").glob("[!.]*"))] == [
        f"MOT17-{number:02d}-FRCNN" for number in range(1, 8)
    ]
    for sequence in read_split(Path("data/mot17/train")):
        truth = sequence.ground_truth()
        # Cars and people who do not count stay for the scoring, and are not learned.
        assert set(truth.identities[truth.scores != 0]) == {1, 2, 3}
        assert set(truth.identities) == {1, 2, 3, 8, 9}
    assert not Experiment(Path("params.yaml")).settings("mot17", "full").clip.uncounted_boxes
    capsys.readouterr()
    assert main(["data", "check", "mot17"]) == 0
    assert "data/mot17/train: 7 sequences, 42 frames, 140 boxes" in capsys.readouterr().out


def test_weights(workspace, published, capsys):
    (published[0].folder / "a.pth").write_bytes(b"weights")
    overrides = {"catalogue": {"checkpoints": {"a.pth": {"url": f"{published[0].url}/a.pth", "licence": "MIT"}}}}
    write_params(workspace, overrides)
    for _ in range(2):
        assert main(["weights", "get", "a.pth"]) == 0
        assert capsys.readouterr().out == "a.pth: MIT\ncomplete: pretrained/a.pth\n"
    assert Path("pretrained/a.pth").read_bytes() == b"weights" and len(published[0].requests) == 1
    assert main(["weights", "get", "a.pth", "--output", "b/c.pth"]) == 0
    assert Path("b/c.pth").is_file()
    assert main(["weights", "get", "b.pth"]) == 2
    assert "b.pth: not in the catalogue; did you mean a.pth?" in capsys.readouterr().err
