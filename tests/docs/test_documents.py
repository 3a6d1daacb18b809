"""The README and the pages of docs/: the code in them runs, and their links lead somewhere.

A block that cannot run here, or takes minutes, has a line above it that says why:

    <!-- not run: needs a GPU -->
    <!-- slow: exports a model -->

Blocks of one page share a folder, and its Python blocks a namespace. The folder holds `photo.jpg`, `photos/`
and, as a clone does, `models/` and `examples/`.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib.cbook
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*/*.md")])
BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>not run|slow): (?P<reason>.+) -->\n)?```(?P<language>.*)\n(?P<code>(?s:.*?))^```$",
    re.M,
)
LANGUAGES = {"sh", "python", "text", "json", "toml", "cpp", "cmake", "c", "js", "yaml"}
CROPS = {"portrait.png": (100, 20, 356, 212), "flag.png": (0, 300, 192, 556)}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is that of its first line of code."""

    marker: str
    language: str
    code: str
    line: int

    @property
    def is_code(self) -> bool:
        return self.language in ("sh", "python") and self.marker != "not run"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            found["marker"] or "",
            found["language"],
            found["code"],
            text.count("\n", 0, found.start("code")) + 1,
        )
        for found in BLOCK.finditer(text)
    ]


def pages_with(*markers: str) -> list[Path]:
    return [
        page for page in PAGES if any(block.is_code and block.marker in markers for block in blocks(page))
    ]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page's blocks run; its files are those that the pages speak of."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        data = file.read()
    (tmp_path / "photo.jpg").write_bytes(data)
    (tmp_path / "photos").mkdir()
    for file_name, box in CROPS.items():
        Image.open(tmp_path / "photo.jpg").crop(box).save(tmp_path / "photos" / file_name)
    for link in ("models", "examples"):
        (tmp_path / link).symlink_to(ROOT / link)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POLC_BUNDLE", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def run(page: Path, chosen: list[Block]) -> None:
    namespace: dict[str, object] = {}
    for block in chosen:
        where = f"{name(page)}:{block.line}"
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), namespace)
        else:
            done = subprocess.run(["sh", "-euc", block.code], capture_output=True, text=True)
            assert done.returncode == 0, f"{where}\n{block.code}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", pages_with(""), ids=name)
def test_code_of_a_page_runs(page: Path, folder: Path) -> None:
    run(page, [block for block in blocks(page) if block.is_code and not block.marker])


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("slow"), ids=name)
def test_code_that_takes_minutes_runs(page: Path, folder: Path) -> None:
    run(page, [block for block in blocks(page) if block.is_code])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_fenced_blocks_name_their_language(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert page.read_text().count("\n```") == 2 * len(blocks(page))


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{name(page)} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(file), (
                f"{name(page)} links to {target}#{anchor}; there is no such heading"
            )
