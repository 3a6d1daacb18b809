from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polc_runtime.bitstream.scale_search import ScaleSearch
from polc_runtime.bitstream.tables import CdfTable, EntropyTables
from polc_runtime.errors import BundleError, NotFiniteError

GOOD = np.array([[0, 100, 65536, 0], [0, 1, 2, 65536]], np.int32)


def table(cdf: object = GOOD, lengths: object = (3, 4), offsets: object = (-1, 5)) -> CdfTable:
    return CdfTable(np.array(cdf), np.array(lengths), np.array(offsets))


def changed(row: int, column: int, value: int) -> np.ndarray:
    cdf = GOOD.copy()
    cdf[row, column] = value
    return cdf


def test_a_good_table_is_kept_as_a_read_only_copy() -> None:
    cdf = GOOD.copy()
    made = table(cdf)
    cdf[0, 1] = 7
    assert made.cdf[0, 1] == 100 and made.rows == 2
    assert made.cdf.dtype == made.lengths.dtype == made.offsets.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        made.cdf[0, 1] = 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cdf": changed(0, 0, 1)}, "row 0 has a CDF that does not start at 0"),
        ({"cdf": changed(1, 3, 65535)}, "row 1 has a CDF that does not end at 65536"),
        ({"cdf": changed(1, 2, 1)}, "row 1 has a CDF that does not rise strictly"),
        ({"cdf": changed(0, 1, -5)}, "row 0 has a CDF that does not rise strictly"),
        ({"cdf": changed(0, 1, -(2**31))}, "row 0 has a CDF that does not rise strictly"),
        ({"cdf": changed(0, 3, 9)}, "row 0 has something other than zeros after"),
        ({"lengths": (1, 4)}, "row 0 has a length outside 2..4"),
        ({"lengths": (3, 5)}, "row 1 has a length outside 2..4"),
        ({"lengths": (3, 4, 4)}, "2 CDF rows, but 3 lengths"),
        ({"offsets": (0,)}, "1 offsets"),
        ({"offsets": (0, 2**31 - 1)}, "row 1 has an offset too large"),
        ({"offsets": (0, 2**31)}, "offsets does not fit int32"),
        ({"cdf": GOOD[0]}, "cdf should have 2 dimensions"),
        ({"cdf": GOOD[:0], "lengths": (), "offsets": ()}, "cdf should have 2 dimensions"),
        ({"cdf": GOOD.astype(float)}, "cdf should be int32, got float64"),
    ],
)
def test_each_fault_of_a_table_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        table(**arguments)


@pytest.mark.parametrize(
    ("medians", "scales", "message"),
    [
        ([0.0], [1.0, 2.0], "1 medians for 2 rows"),
        ([0.0, 0.1], [1.0], "1 scales for 2 rows"),
        ([0.0, np.nan], [1.0, 2.0], "medians holds values that are not finite"),
        ([0.0, 0.1], [1.0, np.inf], "scale_table holds values that are not finite"),
        ([0.0, 0.1], [2.0, 1.0], "not positive and ascending"),
        ([0.0, 0.1], [1.0, 1.0], "not positive and ascending"),
        ([0.0, 0.1], [0.0, 1.0], "not positive and ascending"),
    ],
)
def test_parts_that_do_not_fit_are_refused(medians: list[float], scales: list[float], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        EntropyTables(table(), np.array(medians, np.float32), table(), np.array(scales, np.float32))


def test_an_index_is_the_first_entry_not_below_the_scale(golden: Path, golden_tables: EntropyTables) -> None:
    for name in ("codec_kodim05_q1", "codec_kodim05b_q8"):
        vectors = np.load(golden / f"{name}.npz")
        found = golden_tables.indexes(vectors["scales"])
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, vectors["indexes"])


def test_scales_beside_every_entry_take_the_right_side(tables: EntropyTables) -> None:
    entries = tables.scale_table
    below, above = np.nextafter(entries, np.float32(0)), np.nextafter(entries, np.float32(1e9))
    rows = np.arange(len(entries))
    np.testing.assert_array_equal(tables.indexes(entries), rows)
    np.testing.assert_array_equal(tables.indexes(below), rows)
    np.testing.assert_array_equal(tables.indexes(above), np.minimum(rows + 1, len(entries) - 1))
    edges = np.array([[-3.0, -0.0], [1e-45, 3e38]], np.float32)
    np.testing.assert_array_equal(tables.indexes(edges), [[0, 0], [0, len(entries) - 1]])


@given(
    st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=1, max_size=40, unique=True),
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=50),
)
@settings(deadline=None)
def test_the_search_is_a_binary_search_for_any_table(table: list[float], scales: list[float]) -> None:
    entries = np.sort(np.array(table, np.float32))
    wanted = np.array([*scales, *entries, *np.nextafter(entries, np.float32(np.inf))], np.float32)
    expected = np.minimum(np.searchsorted(entries, wanted, side="left"), len(entries) - 1)
    np.testing.assert_array_equal(ScaleSearch(entries).find(wanted), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scales_that_are_not_finite_are_refused(tables: EntropyTables, bad: float) -> None:
    with pytest.raises(NotFiniteError, match="not finite"):
        tables.indexes(np.array([1.0, bad], np.float32))


def test_a_symbol_of_z_takes_the_row_of_its_channel(tables: EntropyTables) -> None:
    indexes = tables.hyper_indexes(2, 3)
    assert indexes.dtype == np.int32
    assert indexes.reshape(8, 2, 3)[:, 1, 2].tolist() == list(range(8))


def test_saved_tables_come_back_and_give_equal_bytes(golden_tables: EntropyTables, tmp_path: Path) -> None:
    golden_tables.save(tmp_path / "a.npz")
    loaded = EntropyTables.load(tmp_path / "a.npz")
    loaded.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for side in ("hyper", "latent"):
        for part in ("cdf", "lengths", "offsets"):
            mine, theirs = getattr(getattr(golden_tables, side), part), getattr(getattr(loaded, side), part)
            np.testing.assert_array_equal(mine, theirs)
            assert theirs.dtype == np.int32
    np.testing.assert_array_equal(loaded.medians, golden_tables.medians)
    np.testing.assert_array_equal(loaded.scale_table, golden_tables.scale_table)


def rewritten(source: Path, target: Path, name: str, content: bytes | None) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            if info.filename != f"{name}.npy":
                new.writestr(info.filename, old.read(info))
            elif content is not None:
                new.writestr(info.filename, content)
    return target


def npy(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def huge_header(shape: str) -> bytes:
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 16


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("medians", None, "the entry medians is missing"),
        ("medians", b"", "magic"),
        ("medians", b"\x93NUMPY\x01\x00\x05\x00(((((", "no readable npy header"),
        ("medians", npy(np.zeros(8)), "medians should be <f4"),
        ("medians", npy(np.array([{}]), allow_pickle=True), "medians should be <f4"),
        ("medians", npy(np.zeros((8, 1), np.float32)), "medians should be <f4 with 1 dimensions"),
        ("medians", npy(np.zeros(8, np.float32))[:-1], "too many or too few for its shape"),
        ("hyper_cdf", huge_header("(1099511627776, 4)"), "too many or too few for its shape"),
        ("hyper_cdf", huge_header("(-2, -2)"), "cannot be read"),
        ("hyper_cdf", huge_header("(2, 2)"), "8 lengths"),
        ("hyper_lengths", npy(np.zeros(8, np.int32)), "a length outside"),
    ],
)
def test_each_fault_of_a_file_is_named(
    tables: EntropyTables, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    tables.save(tmp_path / "good.npz")
    bad = rewritten(tmp_path / "good.npz", tmp_path / "bad.npz", name, content)
    with pytest.raises(BundleError, match=message) as caught:
        EntropyTables.load(bad)
    assert "bad.npz" in str(caught.value)


def test_a_missing_or_foreign_file_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read as entropy tables"):
        EntropyTables.load(tmp_path / "absent.npz")
    (tmp_path / "foreign.npz").write_bytes(b"not a zip")
    with pytest.raises(BundleError, match="cannot be read as entropy tables"):
        EntropyTables.load(tmp_path / "foreign.npz")


def test_damage_anywhere_in_a_file_is_a_bundle_error_or_harmless(
    tables: EntropyTables, tmp_path: Path
) -> None:
    tables.save(tmp_path / "good.npz")
    data = (tmp_path / "good.npz").read_bytes()
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(200):
        bad = bytearray(data)
        bad[random.integers(len(bad))] ^= 1 << random.integers(8)
        (tmp_path / "bad.npz").write_bytes(bad[: random.integers(len(bad))] if random.random() < 0.3 else bad)
        try:
            EntropyTables.load(tmp_path / "bad.npz")
        except BundleError:
            refused += 1
    assert refused > 150, "hardly any byte of the file may change"
