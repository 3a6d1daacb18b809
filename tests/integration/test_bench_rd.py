"""`polc-bench rd` on a small bundle and on Pillow's codecs: what it measures, writes, prints and refuses."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Codec
from polc_runtime.cli.bench import main
from polc_runtime.metrics import distortion as metrics

ONE = ("--threads", "1")
SIZES = {"a.png": (48, 80), "sub/b.png": (70, 50)}


@pytest.fixture
def bench(tiny_bundle, tmp_path, monkeypatch, capsys):
    """Runs `polc-bench` in `tmp_path`, which has two images in `in`; exit code, output, error lines."""
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(tmp_path / "in" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLC_BUNDLE", str(tiny_bundle))

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.splitlines()

    return run


@pytest.fixture
def luma(monkeypatch):
    """A metric of another package's: the difference of means, of images of at least 50 rows."""

    def measure(original, decoded):
        if original.shape[0] < 50:
            raise ValueError("under 50 rows")
        return abs(float(original.mean()) - float(decoded.mean()))

    monkeypatch.setitem(metrics.BUILT_IN, "luma", measure)


def needs_bd_rate():
    pytest.importorskip("bjontegaard", reason="BD-rates need the package bjontegaard")


def test_numbers_are_those_of_real_files(bench, tiny_bundle, tmp_path):
    code, out, err = bench(
        "rd",
        "in",
        "--recursive",
        "--qualities",
        "1,6.5",
        "--metrics",
        "psnr",
        "-o",
        "tiny.json",
        "--json",
        *ONE,
    )
    assert (code, err) == (0, [])
    document = json.loads((tmp_path / "tiny.json").read_text())
    printed = json.loads(out)
    assert printed["curves"] == [document] and printed["comparisons"] == printed["failed"] == []
    assert list(document)[:3] == ["name", "description", "results"]
    expected = {"bpp": [], "psnr-rgb": [], "payload_bytes": [], "overhead_bytes": []}
    with Codec.load(tiny_bundle, threads=1) as codec:
        for name in SIZES:
            pixels = np.asarray(Image.open(tmp_path / "in" / name))
            files = [codec.compress(pixels, quality) for quality in (1, 6.5)]
            expected["bpp"].append([8 * len(data) / (pixels.shape[0] * pixels.shape[1]) for data in files])
            errors = [np.mean((codec.decompress(data).astype(float) - pixels) ** 2) for data in files]
            expected["psnr-rgb"].append([10 * np.log10(255**2 / error) for error in errors])
            sizes = [codec_sections(data) for data in files]
            expected["payload_bytes"].append([payload for payload, _ in sizes])
            expected["overhead_bytes"].append([overhead for _, overhead in sizes])
        assert document["codec"]["codec_id"] == codec.bundle.manifest.codec_id.hex()
    for key, rows in expected.items():
        assert document["results"][key] == pytest.approx(np.mean(rows, axis=0))
        assert [image[key] for image in document["per_image"]] == [pytest.approx(row) for row in rows]
    assert document["results"]["quality"] == [1, 6.5]
    assert [image["image"] for image in document["per_image"]] == list(SIZES)
    assert all(
        seconds > 0 for key in ("encoding_time", "decoding_time") for seconds in document["results"][key]
    )


def codec_sections(data):
    """Bytes of the two sections of symbols without their framing, and the rest, by the specification."""
    at, sizes = 4 + 1 + 8 + 4 + 4 + 4 + 2, {}
    while at < len(data) - 4:
        kind, at, length, shift = data[at], at + 1, 0, 0
        while True:
            byte, at = data[at], at + 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        sizes[kind] = length
        at += length
    payload = sizes[1] + sizes[2]
    return payload, len(data) - payload


def test_every_whole_quality_is_the_default(bench):
    code, out, _ = bench("rd", "in/a.png", "--metrics", "psnr", "--json", *ONE)
    (curve,) = json.loads(out)["curves"]
    assert code == 0 and curve["results"]["quality"] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_codecs_are_compared(bench, tmp_path):
    needs_bd_rate()
    code, out, err = bench(
        "rd", "in", "--recursive", "--metrics", "psnr", "--codec", "jpeg", "--codec", "webp",
        "--qualities", "10,50,90", "--qualities", "webp=1,30,60,95", "-o", "results", "--csv", "new/all.csv",
    )  # fmt: skip
    assert code == 0 and err == []
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["jpeg.json", "webp.json"]
    jpeg = json.loads((tmp_path / "results/jpeg.json").read_text())
    assert jpeg["results"]["quality"] == [10, 50, 90] and "payload_bytes" not in jpeg["results"]
    for text in (
        "jpeg: JPEG 4:2:0",
        "mean over 2 images",
        "jpeg against webp",
        "BD-rate: ",
        "worst image",
    ):
        assert text in out
    rows = list(csv.DictReader((tmp_path / "new/all.csv").open()))
    assert len(rows) == 2 * 3 + 2 * 4
    assert list(rows[0])[:7] == ["codec", "image", "width", "height", "quality", "bpp", "bytes"]
    first = [(row["codec"], row["image"], row["quality"]) for row in rows[:4]]
    assert first == [("jpeg", "a.png", q) for q in ("10.0", "50.0", "90.0")] + [("jpeg", "sub/b.png", "10.0")]
    assert float(rows[0]["psnr-rgb"]) == jpeg["per_image"][0]["psnr-rgb"][0]


def test_results_are_compared_without_measuring(bench, tmp_path):
    needs_bd_rate()
    assert bench("rd", "in", "--codec", "jpeg", "--metrics", "psnr", "-o", "jpeg.json")[0] == 0
    jpeg = json.loads((tmp_path / "jpeg.json").read_text())
    results = jpeg["results"]
    worse = {"bpp": [2 * rate for rate in results["bpp"]], "psnr": results["psnr-rgb"]}
    (tmp_path / "theirs.json").write_text(json.dumps({"name": "jpeg", "description": "", "results": worse}))
    code, out, err = bench("rd", "--results", "jpeg.json", "--against", "theirs.json", "--json")
    assert code == 0
    (comparison,) = json.loads(out)["comparisons"]
    assert (comparison["name"], comparison["against"]) == ("jpeg", "jpeg (2)")
    assert comparison["bd_rate"]["value"] == pytest.approx(-50)
    assert comparison["metric"] == "psnr-rgb" and comparison["interpolation"] == "pchip over log(bpp)"
    assert [level["psnr"] for level in comparison["levels"]] == results["psnr-rgb"]
    assert err == [
        "polc-bench: notice: jpeg (2) does not say which images it was measured on, nor each one's numbers"
    ]
    code, out, err = bench("rd", "--results", "jpeg.json", "--against", "jpeg.json")
    assert code == 0 and err == [] and "BD-rate: +0.00 %" in out


def test_curves_that_do_not_overlap_say_so(bench, tmp_path):
    needs_bd_rate()
    for name, psnr in (("low", [20, 22]), ("high", [40, 42])):
        document = {"name": name, "description": "", "results": {"bpp": [0.1, 0.2], "psnr-rgb": psnr}}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    code, out, _ = bench("rd", "--results", "low.json", "--against", "high.json")
    assert code == 0
    assert (
        "  BD-rate: none, the curves do not overlap in psnr-rgb (low from 20 to 22, high from 40 to 42)"
        in out
    )


def test_the_plot_is_written(bench, tmp_path):
    needs_bd_rate()
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    code, *_ = bench(
        "rd", "in", "--codec", "jpeg", "--codec", "webp", "--metrics", "psnr", "--plot", "rd.png"
    )
    assert code == 0 and Image.open(tmp_path / "rd.png").format == "PNG"


def test_a_metric_that_lacks_images_says_so(bench, luma):
    code, out, err = bench(
        "rd", "in", "--recursive", "--codec", "jpeg", "--metrics", "psnr,luma", "--qualities", "50", "--json"
    )
    (curve,) = json.loads(out)["curves"]
    small, large = curve["per_image"]
    assert code == 0 and small["luma"] == [None] and small["reasons"] == {"luma": "under 50 rows"}
    assert curve["results"]["luma"] == large["luma"]
    assert err == [
        "polc-bench: notice: jpeg: luma is not a mean over all of the 2 images; 1 lack it, such as "
        "a.png: under 50 rows"
    ]


def test_an_unreadable_picture_is_left_out_and_listed(bench, tmp_path):
    (tmp_path / "in/broken.png").write_bytes(b"no picture")
    code, out, err = bench("rd", "in", "--codec", "jpeg", "--metrics", "psnr", "--qualities", "50", "--json")
    document = json.loads(out)
    assert code == 2 and document["curves"][0]["images"] == 1
    error = "not an image of a kind that can be read"
    assert document["failed"] == [{"image": "in/broken.png", "error": error}]
    assert err == [f"polc-bench: error: in/broken.png: {error}"]
    code, out, err = bench("rd", "in/broken.png", "--codec", "jpeg", "--metrics", "psnr")
    assert (code, out) == (2, "")
    assert err == [
        f"polc-bench: error: in/broken.png: {error}",
        f"polc-bench: error: no image could be measured, such as in/broken.png: {error}",
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["rd"], "there is nothing to measure: name IMAGES, or --results FILE.json"),
        (["rd", "empty"], "empty: no file in this folder has one of the suffixes"),
        (["rd", "in", "--codec", "gif"], "no codec is named 'gif'; there are polc, jpeg, webp"),
        (["rd", "in", "--metrics", "vmaf"], "no metric is named 'vmaf'; there are psnr"),
        (["rd", "in", "--qualities", "1,x"], "expected numbers with commas between them"),
        (["rd", "in", "--qualities", "9"], "quality must lie between 1 and 8, got 9"),
        (["rd", "in", "--qualities", "jpeg=9"], "names jpeg, which is not measured; add --codec jpeg"),
        (["rd", "in", "--qualities", "1", "--qualities", "2"], "--qualities is given twice"),
        (["rd", "in", "--codec", "jpeg", "--codec", "webp", "-o", "x.json"], "x.json: is one file, and 2 "),
        (["rd", "in", "--csv", "there.csv"], "there.csv: exists already; overwrite it with --force"),
        (["rd", "in", "--codec", "jpeg", "-o", "."], "jpeg.json: exists already; overwrite it with --force"),
        (["rd", "in", "--plot", "x.gif"], "x.gif: plots are written as one of .png .svg .pdf"),
        (["rd", "in", "--plot", "x.png", "--csv", "x.png"], "two outputs have one name"),
        (["rd", "in", "--against", "absent.json"], "absent.json: there is no such file or folder"),
        (["rd", "in", "--against", "jpeg.json"], "jpeg.json: holds no rate-distortion results"),
        (["rd", "in", "--bundle", "absent"], "absent is not a bundle"),
        (["rd", "in", "--backend", "absent"], "no backend is named 'absent'"),
        (["gauge"], "No such command 'gauge'"),
    ],
)  # fmt: skip
def test_errors_are_one_line(bench, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").touch()
    (tmp_path / "jpeg.json").write_text("{}")
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    (line,) = err
    assert line.startswith("polc-bench: error: ") and message in line
    assert (tmp_path / "there.csv").read_bytes() == b""


def test_missing_packages_are_told_before_anything_is_measured(bench, tmp_path, monkeypatch):
    (tmp_path / "in/a.png").unlink()
    for module, what, option in (
        ("matplotlib.figure", "a plot", ["--plot", "x.png"]),
        ("bjontegaard", "a BD-rate", ["--codec", "jpeg", "--codec", "webp"]),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        code, out, err = bench("rd", "in", *option)
        assert (code, out) == (2, "")
        message = f"{what} needs {module}, which is not installed: pip install 'polc[bench]'"
        assert err == [f"polc-bench: error: {message}"]


def test_help_needs_no_heavy_import():
    code = (
        "import sys\n"
        "from polc_runtime.cli.bench import main\n"
        "main([]), main(['rd', '--help']), main(['accuracy', '--help']), main(['latency', '--help'])\n"
        "heavy = {'numpy', 'PIL', 'onnxruntime', 'torch', 'matplotlib', 'bjontegaard'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for text in ("rd ", "accuracy ", "Examples:", "--against", "--ignore-label"):
        assert text in done.stdout
