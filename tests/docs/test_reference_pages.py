"""docs/cli.md and docs/api.md say what the code says."""

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as they are written now, by a process of its own: other tests register families."""
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run([sys.executable, DOCS / "make_reference.py", folder], check=True)
    return folder


@pytest.mark.parametrize("page", ["cli.md", "api.md"])
def test_page_is_what_the_program_writes(page: str, made: Path) -> None:
    assert (DOCS / page).read_text() == (made / page).read_text(), "run python docs/make_reference.py"
