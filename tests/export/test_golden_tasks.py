"""The full-size task models, exported and run by ONNX Runtime, against the official golden vectors."""

import numpy as np
import onnxruntime as ort
import pytest
from golden_checks import GOLDEN_TASKS

from polc import load_checkpoint
from polc.tasks.graphs import task_graphs
from polc_export import Stage2, export_bundle
from polc_export.onnx.graph import export_graph
from polc_export.onnx.opsets import DEFAULT_OPSET
from polc_runtime import Codec
from polc_runtime.bitstream.container import Header
from polc_runtime.codec.latent import Decoded

pytestmark = pytest.mark.slow
TOLERANCE = 1e-3
QUALITIES = (1, 3, 5.5, 8)


@pytest.fixture(scope="module", params=GOLDEN_TASKS)
def golden_task(request, golden, stage2_checkpoint):
    """A golden file, and logits of its latent by quality, from the exported graph of its checkpoint."""
    (model,) = load_checkpoint(stage2_checkpoint(request.param)).tasks.values()
    spec = task_graphs("x", model)["task_x"]
    graph = export_graph(spec, DEFAULT_OPSET, {}).SerializeToString()
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    data = dict(np.load(golden / f"{request.param}.npz"))
    logits = {}
    for quality in QUALITIES:
        feeds = {"y_hat": data["y_hat"], "quality": np.array([quality], np.float32)}
        (logits[quality],) = session.run(["logits"], feeds)
    return data, logits


@pytest.mark.parametrize("quality", QUALITIES)
def test_exported_logits_are_the_golden_ones(golden_task, quality):
    data, logits = golden_task
    key = f"logits_q{quality:g}"
    found = logits[quality]
    if key not in data:
        key, found = f"logits_s8_q{quality:g}", found[:, :, ::8, ::8]
    assert found.shape == data[key].shape
    error = np.abs(found - data[key]).max()
    print(f"{key}: {error:.2e}, std {data[key].std():.3g}")
    assert error < TOLERANCE


@pytest.mark.parametrize("quality", QUALITIES)
def test_the_most_likely_classes_are_the_golden_ones_but_for_ties(golden_task, quality):
    data, logits = golden_task
    found = logits[quality].argmax(1)
    stored = data.get(f"argmax_q{quality:g}")
    expected = data[f"logits_q{quality:g}"].argmax(1) if stored is None else stored.astype(np.int64)
    assert found.shape == expected.shape
    ours, theirs = (np.take_along_axis(logits[quality], c[:, None], 1) for c in (found, expected))
    print(f"argmax differs at {(found != expected).sum()} of {found.size}")
    assert (ours - theirs).max() < TOLERANCE


def test_official_checkpoints_become_tasks_of_the_official_bundle(
    golden, official_bundle, stage2_checkpoint, tmp_path
):
    """Backbones are recognised, every check passes, and the runtime's own way gives the golden logits."""
    cases = {"scenes": "seg_pspnet50", "animals": "cls_deit_small_static256"}
    stage2 = [Stage2(stage2_checkpoint(case), name) for name, case in cases.items()]
    exported = export_bundle(bundle=official_bundle, out=tmp_path / "two.bundle", stage2=stage2)
    assert len(exported.bundle.manifest.graphs) == 15 and all(check.passed for check in exported.checks)
    assert exported.bundle.manifest.task("animals").classes[0].startswith("tench")
    with Codec(exported.bundle) as codec:
        for name, case in cases.items():
            data = np.load(golden / f"{case}.npz")
            header = Header(b"", b"", 250, 256, round(5.5 * 256))
            logits = codec.infer_latent(Decoded(header, data["y_hat"][0]), name)
            if name == "scenes":
                assert logits.shape == (150, 256, 250)
                np.testing.assert_allclose(
                    logits[:, ::8, ::8], data["logits_s8_q5.5"][0, :, :32, :32], atol=TOLERANCE
                )
            else:
                np.testing.assert_allclose(logits, data["logits_q5.5"][0], atol=TOLERANCE)
