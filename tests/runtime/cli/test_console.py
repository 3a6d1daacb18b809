"""What commands print: in a command line's options, aligned, and without harm where nobody hears it."""

import sys
from contextlib import suppress
from pathlib import Path

import pytest

from polc_runtime.cli import COMMANDS, SUMMARIES, _group
from polc_runtime.cli.console import error_text, in_options, say
from polc_runtime.cli.tables import aligned, facts_table
from polc_runtime.limits import override_hint


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("a.png: overwrite it with force=True", "a.png: overwrite it with --force"),
        ("pass with_pixels=True, or tasks=...", "pass --with-pixels, or --tasks"),
        ("quality=... must be positive", "--quality must be positive"),
        ("it was encoded with portable=False", "it was encoded with --portable-bits off"),
        (override_hint("max_pixels"), "raise it by $POLC_MAX_PIXELS or polc --max-pixels"),
        (override_hint("max_side"), "raise it by $POLC_MAX_SIDE"),
        ("a=b and x=Trueish stay, as do x=3 and ==...", "a=b and x=Trueish stay, as do x=3 and ==..."),
    ],
)
def test_parameters_become_options(message, said):
    assert in_options(message) == said


def test_errors_of_the_system_are_told_in_plain_words():
    assert error_text(FileNotFoundError(2, "No such file", "a")) == "a: there is no such file or folder"
    assert error_text(MemoryError()) == "not enough memory"


def test_what_a_broken_standard_error_does_not_take_is_not_kept(monkeypatch):
    with suppress(OSError), Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        say("first")
        sink = sys.stderr
        for _ in range(10):
            say("more")
        assert sys.stderr is sink and Path(sink.name).samefile("/dev/null")
        sink.close()


def test_columns_are_as_wide_as_their_longest_cell_and_safe_to_print():
    rows = [("name", "size"), ("a", "1,000"), ("b\n", "2")]
    assert aligned(rows, left=(0,)).splitlines() == ["  name   size", "  a     1,000", r"  b\n       2"]
    assert aligned([("a", "bb"), ("ccc", "d")]).splitlines() == ["    a  bb", "  ccc   d"]


def test_facts_are_lines_of_names_and_values():
    facts = {"a": 1.23456789, "long name": {"x": 1, "y": 2}, "c": [1, 2]}
    assert facts_table(facts).splitlines() == [
        "  a          1.23457",
        "  long name  x 1, y 2",
        "  c          1, 2",
    ]


def test_the_help_of_polc_lists_each_command_with_its_own_first_sentence():
    with _group.make_context("polc", [], resilient_parsing=True) as context:
        for command in COMMANDS:
            text = _group.get_command(context, command).help
            assert text.split("\n\n")[0].replace("\n", " ") == SUMMARIES[command]
