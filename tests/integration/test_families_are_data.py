"""A codec is data: neither the runtime nor the exporter names a family in its code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("runtime/polc_runtime", "export/polc_export")
FAMILIES = sorted(
    path.name for path in (REPOSITORY / "polc/families").iterdir() if (path / "__init__.py").is_file()
)
MODELS = ["mbt2018", "bmshj2018", "cheng2020", "elic2022", "transtic", "icmh", "polc-base", "polc-tiny"]
NAMES = re.compile("|".join([*FAMILIES, *MODELS]), re.IGNORECASE)
"""Families, and models of theirs. `nano`, the packaged bundle, is the name of a folder."""

PACKAGE = "compressai"
"""Also a package on PyPI, whose version reports name; as a text of its own it is that."""

PROSE = {"epilog", "help"}
"""Arguments of commands that hold examples for people."""


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and texts of identifiers, imports and strings that name a family; not docstrings and examples."""
    prose = {
        id(value)
        for node in ast.walk(tree)
        for value in (
            [node.value] if isinstance(node, ast.Expr)
            else [child for part in node.keywords if part.arg in PROSE for child in ast.walk(part)]
            if isinstance(node, ast.Call)
            else []
        )
    }  # fmt: skip
    for node in ast.walk(tree):
        texts: list[str] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            texts = [node.value]
        elif isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            texts = [node.module or "", *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            texts = [alias.name for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            texts = [node.name]
        for text in texts:
            if NAMES.search(text) and text != PACKAGE:
                yield getattr(node, "lineno", 0), text


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_names_a_family(package: str) -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {text!r}"
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        for line, text in named(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


def test_names_of_families_are_found() -> None:
    """So that the test above can fail."""
    assert {"tinylic", "compressai"} <= set(FAMILIES)
    code = (
        'from polc.families.tinylic import x\n"doc of tinylic"\nf(kind="mbt2018-mean", help="see tinylic")\n'
    )
    assert [text for _, text in named(ast.parse(code))] == ["polc.families.tinylic", "mbt2018-mean"]
