"""What `gpu_check.py` runs in another process or another Python, without torch: engines, coding, decoding.

Usage: python gpu_jobs.py about|extend|engines|code|decode '{"bundle": ..., ...}'; prints one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from polc_runtime import Bundle, Codec, ExportError, PolcError
from polc_runtime.backends import BackendOptions
from polc_runtime.bench.speed.plan import synthetic_picture
from polc_runtime.codec.latent import Decoded
from polc_runtime.pictures.images import read_image

Facts = dict[str, Any]


def about(bundle: str) -> Facts:
    """Which precisions and formats a bundle's graphs are there in."""
    graphs = Bundle.load(bundle).manifest.graphs
    return {
        "precisions": sorted({graph.precision for graph in graphs}),
        "formats": sorted({name for graph in graphs for name in graph.formats}),
    }


def extend(bundle: str, out: str) -> Facts:
    """Writes a copy of a bundle with float16 graphs and TensorRT's files."""
    from polc_export import ExportOptions, Formats, extend_bundle

    options = ExportOptions(validate=False, formats=Formats(True, True))
    extend_bundle(Bundle.load(bundle).path, Path(out), options, say)
    return about(out)


def engines(
    bundle: str, precision: str, min_shape: str, opt_shape: str, max_shape: str, batch: str, graphs: list[str]
) -> Facts:
    """Builds the engines of a bundle: what was reported of each, which are there, and why others are not.

    Sizes are HxW, padded, and the batch N or MIN:OPT:MAX; without `graphs` those of all graphs.
    """
    from polc_export.tensorrt import EngineOptions, build_engines
    from polc_export.tensorrt.shapes import Batch, Shapes, Size

    sizes = (Size.parse(text, "a size") for text in (min_shape, opt_shape, max_shape))
    options = EngineOptions(Shapes(*sizes, Batch.parse(batch)), precision)
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        say(line)

    failed, built = "", []
    try:
        built = build_engines(_only(Bundle.load(bundle), graphs), options, report)
    except ExportError as error:
        failed = str(error)
    return {
        "failed": failed,
        "lines": lines,
        "engines": [
            {
                "graph": each.engine.key.graph,
                "variant": each.engine.key.variant,
                "precision": each.engine.key.precision,
                "layers": each.engine.layers,
                "built": each.built,
                "seconds": each.seconds,
            }
            for each in built
        ],
    }


def _only(bundle: Bundle, graphs: list[str]) -> Bundle:
    """The bundle with these graphs alone; with all of them if there are none."""
    if not graphs:
        return bundle
    kept = tuple(graph for graph in bundle.manifest.graphs if graph.name in graphs)
    return replace(bundle, manifest=replace(bundle.manifest, graphs=kept))


def code(run: Facts, pictures: list[str], quality: float, out: str) -> Facts:
    """Codes pictures on a backend: their files, and the latents, pixels and predictions made from them."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    with load(run) as codec:
        for number, picture in enumerate(pictures):
            started = time.perf_counter()
            data = codec.compress(pixels_of(picture), quality)
            decoded = codec.decode(data)
            image = codec.synthesise(decoded)
            seconds = time.perf_counter() - started
            (folder / f"{number}.polc").write_bytes(data)
            logits = predictions(codec, decoded)
            np.savez(folder / f"{number}.npz", y_hat=decoded.y_hat, image=image, **logits)
            results.append({"picture": picture, "bytes": len(data), "first_seconds": seconds})
        return {"runs": codec.describe()["backend"], "pictures": results}


def decode(run: Facts, files: str) -> Facts:
    """Decodes what another backend coded: how many files give that one's latents, and why others do not."""
    results: list[Facts] = []
    with load(run) as codec:
        for path in sorted(Path(files).glob("*.polc")):
            expected = np.load(path.with_suffix(".npz"))["y_hat"]
            try:
                found = codec.latent(path.read_bytes())
            except PolcError as error:
                results.append({"file": path.name, "lost": str(error)})
            else:
                difference = float(np.abs(found - expected).max())
                results.append({"file": path.name, "lost": None, "largest_difference": difference})
    return {"files": results, "lost": sum(each["lost"] is not None for each in results)}


def load(run: Facts) -> Codec:
    """The codec of a run: bundle, backend, device, precision, checkpoint."""
    checkpoint = run.get("checkpoint")
    options = BackendOptions(
        run["precision"], device=run["device"], checkpoint=checkpoint and Path(checkpoint)
    )
    return Codec(Bundle.load(run["bundle"]), run["backend"], options)


def predictions(codec: Codec, decoded: Decoded) -> dict[str, Any]:
    """Logits of the tasks that take the picture's size and that the backend has."""
    found = {}
    for task in codec.bundle.manifest.tasks:
        try:
            found[f"task_{task.name}"] = codec.infer_latent(decoded, task.name)
        except PolcError as error:
            say(f"task {task.name}: {error}")
    return found


def pixels_of(picture: str) -> Any:
    """A file's pixels, or those of a synthetic picture of a size WxH."""
    if Path(picture).is_file():
        return read_image(Path(picture)).pixels
    width, height = map(int, picture.split("x"))
    return synthetic_picture(height, width)


def say(line: str) -> None:
    """Tells the log."""
    print(line, file=sys.stderr, flush=True)


JOBS: dict[str, Callable[..., Facts]] = {job.__name__: job for job in (about, extend, engines, code, decode)}

if __name__ == "__main__":
    try:
        print(json.dumps(JOBS[sys.argv[1]](**json.loads(sys.argv[2]))))
    except PolcError as error:
        sys.exit(f"{type(error).__name__}: {error}")
