from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.plan import page_figures
from fdta.report.page import marked, write_page

pytest.importorskip("jinja2")

VOID = {"meta", "img", "br", "link"}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Page(HTMLParser):
    """What a page holds; refuses tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str]] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(values)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[name] for name in ("src", "href", "srcset", "data", "action") if name in values]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(params: Experiment, root: Path) -> str:
    output = root / "results" / "report.html"
    write_page(params, root, output)
    return output.read_text()


def write_figures(params: Experiment, root: Path) -> None:
    for name in page_figures(params):
        path = root / "results" / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PIXEL)
        words = {"title": f"Title {name}", "caption": f"See `{name}` & <b>", "alt": f'"{name}"'}
        path.with_suffix(".json").write_text(json.dumps(words))


def test_every_table_and_figure_is_there_and_nothing_comes_from_elsewhere(params: Experiment, root: Path):
    write_figures(params, root)
    text = written(params, root)
    page = Page(text)
    assert {*params.tables, "similarity", *(f"figure-{name}" for name in page_figures(params))} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert len(page.images) == len(page_figures(params)) == 7
    for image in page.images:
        assert image["alt"] and (image["width"], image["height"]) == ("1", "1")
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert all(f"#{name}" in page.addresses for name in ("figures", "tables", "settings", "cite"))
    assert not re.search(r"url\(|@import|https?://", text)
    assert "See <code>depth</code> &amp; &lt;b&gt;" in text
    assert "Made for a test." in text and "temporal.enabled: false" in text and "@article" in text


def test_numbers_stand_beside_the_papers_with_their_difference(params: Experiment, root: Path):
    text = written(params, root)
    table = text.partition('<section id="table-4"')[2].partition("</section>")[0]
    row = next(line for line in table.splitlines() if ">SA + TA + IA<" in line)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[:4] == ["<code>full</code>", "71.7", "61.0", "+2.3"]
    assert cells[4].startswith("+3.0 ± ") and cells[-2:] == ["81.0", "66.0"]
    assert 'data-value="61.0"' in row and 'class="best"' in row
    cited = next(line for line in table.splitlines() if ">SA<" in line)
    assert cited.startswith('<tr class="cited">') and ">70.2<" in cited
    glance = text.partition('id="glance"')[2].partition("</section>")[0]
    assert "bot-sort 42.0" in glance and "<strong>61.0</strong>" in glance


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
@pytest.mark.parametrize(("width", "cut"), [(1400, False), (700, True)])
def test_no_table_is_cut_off_without_a_cue(params: Experiment, root: Path, width: int, cut: bool):
    """In a browser: tables fit at 1400 pixels with rows folded and shown; at 700 the wide ones say that they go on."""
    page = root / "results" / "report.html"
    page.parent.mkdir(exist_ok=True)
    look = """<script>addEventListener("load", () => setTimeout(() => {
      document.querySelectorAll("button.fold").forEach(button => button.click());
      setTimeout(() => { document.title = JSON.stringify([...document.querySelectorAll(".scroll")].map(frame =>
        [frame.scrollWidth > frame.clientWidth + 1, getComputedStyle(frame.nextElementSibling).display != "none"]));
      }, 300);
    }, 100))</script></body>"""
    page.write_text(written(params, root).replace("</body>", look))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += ["--virtual-time-budget=3000", f"--user-data-dir={root / 'browser'}", "--dump-dom", page.as_uri()]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    frames = json.loads(html.unescape(told.partition("<title>")[2].partition("</title>")[0]))
    assert len(frames) >= 8 and all(wide == cued for wide, cued in frames)
    assert any(wide for wide, _ in frames) == cut


def test_what_is_absent_is_told(params: Experiment, root: Path):
    text = written(params, root)
    assert not Page(text).images
    assert "snakemake --cores all results/figures/tracks-dance.png" in text
    empty = written(params, root.parent / "empty")
    assert "—" in empty.partition('id="glance"')[2].partition("</section>")[0]


def test_a_file_that_is_no_figure_is_named(params: Experiment, root: Path):
    write_figures(params, root)
    path = root / "results" / "figures" / "depth.png"
    path.write_bytes(b"GIF")
    with pytest.raises(InputError, match=r"figures/depth\.png: no figure"):
        written(params, root)
    assert not (root / "results" / "report.html").exists()


def test_marks_become_tags_and_nothing_else_does():
    text = "**a *b* `x<y`** *c* 2 * 3 * 4"
    assert marked(text) == "<strong>a <em>b</em> <code>x&lt;y</code></strong> <em>c</em> 2 * 3 * 4"
