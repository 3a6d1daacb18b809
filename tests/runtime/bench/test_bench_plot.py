"""Plots of curves: what is drawn, in which files, and what is missing for them."""

import io
import sys

import pytest
from PIL import Image

from polc_runtime.bench.plot import Line, Plot, check_plot, draw
from polc_runtime.errors import BackendUnavailable, UsageError

PLOT = Plot(
    "A title",
    "PSNR",
    [Line("ours", [0.1, 0.5], [28, 33]), Line("theirs", [0.2, 4.0], [27, 45])],
    [("uncoded", 35.0)],
)


def test_a_plot_names_its_curves_and_axes():
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    svg = draw(PLOT, ".svg").decode()
    for text in ("A title", "bits per pixel", "PSNR", "ours", "theirs", "uncoded"):
        assert f"<!-- {text} -->" in svg


def test_a_plot_is_a_picture_of_many_colours():
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    image = Image.open(io.BytesIO(draw(PLOT, ".PNG")))
    assert image.format == "PNG" and image.width >= 1000
    colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= colours


def test_a_plot_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"plot.gif: plots are written as one of .png .svg .pdf"):
        check_plot(tmp_path / "plot.gif")


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable) as error:
        check_plot(tmp_path / "plot.png")
    assert str(error.value) == (
        "a plot needs matplotlib.figure, which is not installed: pip install 'polc[bench]'"
    )
