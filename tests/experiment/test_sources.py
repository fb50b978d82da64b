"""Which changes of the code a digest notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fdta.experiment import sources

MAIN = '''"""Docstring."""
from typing import TYPE_CHECKING

from fdta.part import half
from fdta.settings import S
if TYPE_CHECKING:
    from fdta.typed import T

MARK = "#1"

def run(x):
    """Run."""
    return half(x)
'''
PART = '''TEXT = """
# not a comment
"""

def half(x):
    from fdta.deep.inner import PAGE
    return x / 2
'''
FILES = {
    "__init__.py": "",
    "main.py": MAIN,
    "part.py": PART,
    "deep/__init__.py": "",
    "deep/inner.py": 'PAGE = "page.html"\n',
    "deep/page.html": "<p>one</p>",
    "deep/unused.html": "<p>two</p>",
    "settings.py": "class S: ...\n",
    "typed.py": "class T: ...\n",
    "other.py": "from fdta.main import run\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / "fdta"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(sources, "PACKAGE", root)
    _forget()
    yield root
    _forget()


def _forget() -> None:
    sources.code_digests.cache_clear()
    sources._parsed.cache_clear()


def digests(without: tuple[str, ...] = ()) -> dict[str, str]:
    _forget()
    return dict(sources.code_digests("fdta.main", without))


def test_what_a_module_imports_counts(package: Path):
    assert set(digests()) == {"fdta.main", "fdta.part", "fdta.deep.inner", "deep/page.html"}
    assert set(digests(("fdta.deep",))) == {"fdta.main", "fdta.part"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("main.py", '"""Docstring."""', '"""Another docstring."""'),
        ("main.py", '    """Run."""\n', '    """Run.\n\n    Further.\n    """\n'),
        ("main.py", "return half(x)", "return half(x)  # of x"),
        ("main.py", "\ndef run", "\n\n# A comment.\ndef run"),
        ("settings.py", "class S: ...", "class S:\n    x = 1"),
        ("typed.py", "class T: ...", "class T:\n    x = 1"),
        ("other.py", "run", "run as other"),
        ("deep/unused.html", "two", "three"),
    ],
)
def test_what_makes_no_difference(package: Path, name: str, old: str, new: str):
    before = digests()
    _replace(package / name, old, new)
    assert digests() == before


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("main.py", "half(x)", "half(x + 1)", "fdta.main"),
        ("main.py", '"#1"', '"#2"', "fdta.main"),
        ("part.py", "# not a comment", "# still not a comment", "fdta.part"),
        ("deep/inner.py", 'PAGE = "page.html"', 'PAGE = "page.html"[:]', "fdta.deep.inner"),
        ("deep/page.html", "one", "two", "deep/page.html"),
    ],
)
def test_what_is_noticed(package: Path, name: str, old: str, new: str, changed: str):
    before = digests()
    _replace(package / name, old, new)
    after = digests()
    assert {module for module in after if after[module] != before[module]} == {changed}
    assert sources.combined(after) != sources.combined(before)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("entry", "has", "lacks"),
    [
        ("fdta.train.detector", "fdta.loss.detection", ("fdta.track", "fdta.synthetic", "fdta.report", "fdta.cli")),
        ("fdta.track.run", "fdta.model.fdta", ("fdta.train", "fdta.loss", "fdta.report")),
        ("fdta.synthetic.render", "fdta.synthetic.bodies", ("fdta.model", "fdta.train", "fdta.track")),
        ("fdta.report.tables", "experiment/paper.yaml", ("fdta.train", "fdta.cli")),
        ("fdta.report.page", "report/page.html", ("fdta.train", "fdta.cli")),
    ],
)
def test_steps_depend_on_their_own_rooms(entry: str, has: str, lacks: tuple[str, ...]):
    found = sources.code_digests(entry)
    assert has in found
    assert not [module for module in found for room in lacks if module.startswith(f"{room}.")]
