"""The page on security lists every limit, as it is in the code."""

import re
from dataclasses import fields
from pathlib import Path

from polc_runtime.limits import Limits, variable

PAGE = Path(__file__).resolve().parents[2] / "docs/security.md"
ROW = re.compile(r"^\| `(max_\w+)` \| (?:2\^(\d+)|([\d ]+))[^|]* \| `(\w+)` \| ", re.MULTILINE)


def test_the_page_lists_every_limit():
    listed = {
        name: (2 ** int(power) if power else int(number.replace(" ", "")), key)
        for name, power, number, key in ROW.findall(PAGE.read_text())
    }
    assert listed == {field.name: (field.default, variable(field.name)) for field in fields(Limits)}
