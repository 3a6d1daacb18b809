"""docs/cli.md and docs/api.md say what the code says."""

import importlib.util
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "docs/make_reference.py"
spec = importlib.util.spec_from_file_location("make_reference", PROGRAM)
assert spec is not None and spec.loader is not None
make_reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_reference)


@pytest.mark.parametrize("page", make_reference.PAGES)
def test_page_is_what_the_program_writes(page: str) -> None:
    written = (PROGRAM.parent / page).read_text()
    assert written == make_reference.PAGES[page](), "run python docs/make_reference.py"
