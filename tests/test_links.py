"""Links lead somewhere: in README.md and docs, and in the docstrings and comments of the code."""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
OTHERS = [
    *(ROOT / name for name in ("Makefile", "Snakefile", "params.yaml", "tests/golden/README.md")),
    *sorted(path for pattern in ("workflow/**/*.*", "src/fdta/**/*.yaml") for path in ROOT.glob(pattern)),
]
SOURCES = sorted(path for folder in ("src/fdta", "benchmarks", "tests") for path in ROOT.glob(f"{folder}/**/*.py"))

LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|^\[[^\]]+\]:\s*(\S+)|\b(?:src|href)=\"([^\"]+)\"", re.MULTILINE)
MENTION = re.compile(
    r"(?<![\w/.*{}<-])(?:\.\./)*"
    r"((?:docs|workflow|tests|src/fdta)/(?:[\w./*-]|\{[\w,. -]+\})*[\w*}/]|(?:[\w-]+/)*[\w-]+\.md\b|params\.yaml\b)"
)
SECTION = re.compile(r"\bdocs/([\w-]+\.md), (?=[A-Z])")
MODULE = re.compile(r"`(fdta(?:\.\w+)+)[`(]")
RESULTS = "results/"
"""Start of the paths of files that the workflow makes, which are not in the repository."""
FILE = re.compile(r"(?<![\w/.*-])((?:[\w-]+/)*[\w-]+\.(?:py|yaml|html))\b")


def headings(page: Path) -> list[str]:
    """Text of all headings, without markup."""
    found = re.findall(r"^#{1,6} +(.+?)[ #]*$", without_fences(page.read_text()), re.MULTILINE)
    return [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in found]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings on GitHub."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in headings(page):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def without_fences(text: str) -> str:
    return re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)


def dead_links(page: Path, root: Path) -> Iterator[str]:
    """Relative targets of links and images that do not exist, or have no such heading."""
    for targets in LINK.findall(without_fences(page.read_text())):
        target = next(filter(None, targets))
        if re.match(r"[a-z][a-z+.-]*:|//", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (root / path.lstrip("/") if path.startswith("/") else page.parent / path) if path else page
        if not file.exists():
            yield f"{target}: no such file"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"{target}: {file.name} has no such heading"


def dead_mentions(text: str, folders: list[Path]) -> Iterator[str]:
    """Paths in `text` that are in none of `folders`; `*` and `{a,b}` as in a shell."""
    for mention in MENTION.findall(text):
        if not mention.startswith(RESULTS):
            for pattern in alternatives(mention.rstrip("/")):
                if not any([*folder.glob(pattern)] for folder in folders):
                    yield f"{pattern}: no such file"


def alternatives(pattern: str) -> list[str]:
    """`pattern` with each combination of what its braces hold."""
    parts = [part.strip("{}").split(",") if part[:1] == "{" else [part] for part in re.split(r"(\{[^}]*\})", pattern)]
    return ["".join(part.strip() for part in parts) for parts in itertools.product(*parts)]


def dead_sections(text: str, docs: Path) -> Iterator[str]:
    """Mentions of a page and a section, such as "docs/architecture.md, Layout", without such a heading."""
    text = " ".join(text.split())
    for match in SECTION.finditer(text):
        page, rest = docs / match[1], text[match.end() :]
        if not page.is_file() or not any(re.match(rf"{re.escape(heading)}(?!\w)", rest) for heading in headings(page)):
            yield f"{match[0]}{rest[:40]}: no such heading"


def dead_modules(text: str, package: Path) -> Iterator[str]:
    """Modules in backticks that are not in `package`, and names that do not occur in their module."""
    for name in MODULE.findall(text):
        place, rest = package, name.split(".")[1:]
        while rest and ((place / rest[0]).is_dir() or (place / f"{rest[0]}.py").is_file()):
            part = rest.pop(0)
            place = place / part if (place / part).is_dir() else place / f"{part}.py"
        file = place / "__init__.py" if place.is_dir() else place
        if rest and not (file.is_file() and re.search(rf"\b{rest[0]}\b", file.read_text())):
            yield f"{name}: no such module or name"


def dead_files(page: Path, roots: list[Path]) -> Iterator[str]:
    """Files in the tables of `page`, and files with a folder anywhere in it, that are below none of `roots`."""
    for line in page.read_text().splitlines():
        for file in FILE.findall(line):
            named = not file.startswith(RESULTS) and ("/" in file or line.startswith("|"))
            if named and not any((root / file).is_file() for root in roots):
                yield f"{file}: no such file"


def prose(source: Path) -> str:
    """Docstrings and comments of a Python file, without the marks of comments."""
    text = source.read_text()
    strings = [
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join([*strings, *(token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_mentions_of_a_page_exist(page: Path):
    text = page.read_text()
    dead = [*dead_links(page, ROOT), *dead_mentions(text, [ROOT, page.parent]), *dead_sections(text, ROOT / "docs")]
    assert [*dead, *dead_modules(text, ROOT / "src/fdta")] == []


def test_mentions_in_docstrings_and_comments_exist():
    dead = []
    for source in (*SOURCES, *OTHERS):
        text = prose(source) if source.suffix == ".py" else source.read_text()
        found = [*dead_mentions(text, [ROOT, ROOT / "docs", source.parent]), *dead_sections(text, ROOT / "docs")]
        dead += [f"{name_of(source)}: {what}" for what in (*found, *dead_modules(text, ROOT / "src/fdta"))]
    assert dead == []


def test_files_of_the_architecture_exist():
    assert [*dead_files(ROOT / "docs/architecture.md", [ROOT, ROOT / "src/fdta"])] == []


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """A repository with one page, one package and one module."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("# A page\n\n## Files & `names`\n\n## Again\n\n## Again\n")
    (tmp_path / "src/fdta/model").mkdir(parents=True)
    (tmp_path / "src/fdta/model/layers.py").write_text("WIDTH = 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("link", "dead"),
    [
        ("[a](page.md) [b](#again-1) [c](page.md#files--names) ![d](../src/fdta) [e](https://x.org/y.md)", 0),
        ("```\n[a](gone.md)\n```", 0),
        ("[a](gone.md)", 1),
        ("![a](../docs/gone.webp)", 1),
        ("[a](page.md#gone) [b](#again-2)", 2),
        ("[a]: gone.md", 1),
    ],
)
def test_dead_link_is_found(made_up: Path, link: str, dead: int):
    page = made_up / "docs/page.md"
    page.write_text(f"{page.read_text()}\n{link}\n")
    assert len([*dead_links(page, made_up)]) == dead


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("see docs/page.md, `page.md`, src/fdta/model/ and src/fdta/*/layers.py; results/tables.md is made", 0),
        ("src/fdta/{model,loss}/layers.py", 1),
        ("see docs/gone.md.", 1),
        ("GONE.md, README.md, params.yaml", 3),
        ("workflow/rules/*.smk (tests/gone)", 2),
    ],
)
def test_dead_mention_is_found(made_up: Path, text: str, dead: int):
    assert len([*dead_mentions(text, [made_up, made_up / "docs"])]) == dead


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("(docs/page.md, Files &\n    names; docs/page.md, Again) as docs/page.md, which has it", 0),
        ("(docs/page.md, Gone)", 1),
        ("(docs/page.md, Agains)", 1),
        ("(docs/gone.md, Again)", 1),
    ],
)
def test_dead_section_is_found(made_up: Path, text: str, dead: int):
    assert len([*dead_sections(text, made_up / "docs")]) == dead


@pytest.mark.parametrize(
    ("text", "dead"),
    [("`fdta.model.layers.WIDTH` `fdta.model`", 0), ("`fdta.gone`", 1), ("`fdta.model.layers.HEIGHT`", 1)],
)
def test_dead_module_is_found(made_up: Path, text: str, dead: int):
    assert len([*dead_modules(text, made_up / "src/fdta")]) == dead


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("| it | model/layers.py |", 0),
        ("| it | model/layers.py, gone.py |", 1),
        ("it is in loss/gone.py or gone.py", 1),
    ],
)
def test_dead_file_is_found(made_up: Path, text: str, dead: int):
    page = made_up / "docs/page.md"
    page.write_text(text)
    assert len([*dead_files(page, [made_up, made_up / "src/fdta"])]) == dead


def test_prose_is_docstrings_and_comments(tmp_path: Path):
    source = tmp_path / "module.py"
    source.write_text('"""See docs/a.md."""\nX = "docs/b.md"  # docs/c.md,\n# Section\n')
    assert prose(source).split() == ["See", "docs/a.md.", "docs/c.md,", "Section"]
