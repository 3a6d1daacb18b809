"""Hostile pictures: what is in them never runs."""

from __future__ import annotations

import os
import struct

import pytest
from PIL import Image

from polc_runtime.datasets import read_labels
from polc_runtime.errors import DataError, ImageError
from polc_runtime.pictures.images import read_image

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n%%EOF\n"


def iptc(inside):
    """An IPTC picture, 40x30, grey: another picture in a wrapper, which Pillow opens whatever its kind."""

    def field(record, number, data):
        return struct.pack(">BBBH", 0x1C, record, number, len(data)) + data

    size = field(3, 20, struct.pack(">I", 40)) + field(3, 30, struct.pack(">I", 30))
    compressed = field(3, 120, b"\x05")
    return field(3, 60, b"\x01\x00") + size + compressed + field(8, 10, inside) + field(9, 10, b"")


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A file that is there once Ghostscript, or what stands for it here, was run."""
    ran = tmp_path / "ran"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # have it looked for anew
    return ran


@pytest.mark.parametrize("data", [POSTSCRIPT, iptc(POSTSCRIPT)], ids=["plain", "wrapped"])
def test_postscript_is_never_run(tmp_path, ran, data):
    with pytest.raises(ImageError, match="not an image of a kind that can be read"):
        read_image(data, name="picture")
    assert not ran.exists()
    (tmp_path / "a.iim").write_bytes(iptc(POSTSCRIPT))
    with pytest.raises(OSError), Image.open(tmp_path / "a.iim") as image:  # the wrapper is no mistake
        image.load()
    assert ran.exists()


def test_postscript_as_a_label_map_is_never_run(tmp_path, ran):
    (tmp_path / "mask.png").write_bytes(iptc(POSTSCRIPT))
    with pytest.raises(DataError, match="cannot be read as a label map"):
        read_labels(tmp_path / "mask.png")
    assert not ran.exists()
