"""What the golden vectors of the full-size codec demand of any backend that runs its graphs."""

from pathlib import Path

import numpy as np

from polc_runtime.bitstream.container import Container, Header, join_streams, quality_code, symbol_checksum
from polc_runtime.bitstream.schedule import gather, scatter
from polc_runtime.bundle.plan import nine_step_plan
from polc_runtime.codec.latent import LatentCoder
from polc_runtime.pictures.images import read_image, to_tensor

PLAN = nine_step_plan(
    {
        "dims": [128, 192, 256, 320],
        "depths": [2, 2, 6, 2],
        "hyper_dim": 192,
        "hyper_depths": [2, 2],
        "kernel_size": 7,
        "hyper_kernel_size": 3,
    },
    (1.0, 8.0),
)
"""Of the full-size codec."""
CASES = ("kodim05_q1", "kodim05_q3", "kodim05_q5.5", "kodim05_q8", "kodim05b_q3", "kodim05b_q8")
TOLERANCE = 1e-4
BOUNDARY = 1e-4

GOLDEN_TASKS = {
    "cls_convnext_tiny": ("ClsWrapper_convnext_tiny", {}),
    "cls_deit_small": ("ClsWrapper_deit_small", {}),
    "cls_deit_small_static256": ("ClsWrapper_deit_small", {"pos_embed": [1, 257, 384]}),
    "seg_pspnet50": ("SegWrapper_pspnet50", {}),
}
"""Golden files of task models: the official layout's name, and shapes that differ from it."""


class Case:
    """One golden file and the image it was made from."""

    def __init__(self, golden: Path, name: str):
        self.data = dict(np.load(golden / f"codec_{name}.npz"))
        self.quality = float(self.data["quality"][0])
        self.level = np.array([self.quality], np.float32)
        self.image = to_tensor(read_image(golden / f"{name.split('_')[0]}.png").pixels)

    def __getitem__(self, key):
        return self.data[key]

    @property
    def header(self):
        """The fixed part of a file of this image, but for the model's hashes."""
        height, width = self.image.shape[2:]
        return Header(bytes(8), bytes(4), width, height, quality_code(self.quality, 1, 8))

    def step_slices(self):
        ends = np.cumsum(self["step_sizes"])
        return [slice(end - size, end) for end, size in zip(ends, self["step_sizes"], strict=True)]


def assert_close(found, expected, what):
    error = np.abs(found - expected).max() / max(1.0, expected.std())
    assert found.shape == expected.shape and error < TOLERANCE, f"{what}: {error:.2e}"


def check_tensors(backend, tables, case):
    """Every tensor of encoder and decoder, each graph fed with the golden tensors before it."""
    found = backend.run("analysis", {"image": case.image, "quality": case.level})
    assert_close(found["y"], case["y"], "y")
    assert_close(found["z"], case["z"], "z")
    medians = tables.medians[:, None, None]
    centred = case["z"][0] - medians
    wrong = np.rint(centred) != case["z_symbols"][0]
    assert np.all(np.abs(np.abs(centred - np.rint(centred)) - 0.5)[wrong] < BOUNDARY)
    assert_close(case["z_symbols"] + medians, case["z_hat"], "z_hat")
    params = backend.run("hyper_synthesis", {"z_hat": case["z_hat"], "quality": case.level})["params"]
    assert_close(params, case["params"], "params")
    image = backend.run("synthesis", {"y_hat": case["y_hat"], "quality": case.level})["image"]
    assert_close(image, case["x_hat"], "x_hat")


def check_steps(backend, tables, case):
    """Scales, symbols and table rows of each step, fed with the golden y_hat of the steps before it."""
    known = np.zeros_like(case["y_hat"])
    shared = {}
    for step, part in zip(PLAN.steps, case.step_slices(), strict=True):
        feeds = {"params": case["params"], "y_hat": known, **shared}
        outputs = backend.run(f"context_{step.index}", feeds)
        shared = {k: v for k, v in outputs.items() if k == "channel_context"} or shared
        scales, means = outputs["scales"].ravel(), outputs["means"].ravel()
        assert_close(scales, case["scales"][part], f"scales of step {step.index}")
        values = gather(case["y"][0], step).ravel() - means
        wrong = np.rint(values) != case["symbols"][part]
        to_boundary = np.abs(np.abs(values - np.floor(values)) - 0.5)
        assert np.all(to_boundary[wrong] < BOUNDARY), f"symbols of step {step.index}"
        wrong = tables.indexes(scales) != case["indexes"][part]
        to_edge = np.abs(scales[wrong, None] / tables.scale_table - 1).min(1, initial=np.inf)
        assert np.all(to_edge < BOUNDARY), f"table rows of step {step.index}"
        scatter(known[0], step, gather(case["y_hat"][0], step))


def check_stored_strings(backend, tables, case):
    """The official byte strings decode, all nine steps in a row, to the official latent."""
    coder = LatentCoder(backend, tables, PLAN)
    sums = [symbol_checksum(case["symbols"][part]) for part in case.step_slices()]
    checksums = (symbol_checksum(case["z_symbols"]), *sums)
    z, y = case["z_string"].tobytes(), case["y_string"].tobytes()
    y_hat = coder.decode(Container(case.header, z, join_streams([y]), checksums))
    assert_close(y_hat[None], case["y_hat"], "y_hat")


def check_encoder(backend, tables, case):
    """Coding the golden latents writes the official strings (no boundary is crossed in any case)."""
    coded = LatentCoder(backend, tables, PLAN).encode(case["y"][0], case["z"][0], case.quality)
    assert coded.z == case["z_string"].tobytes()
    assert coded.y == [case["y_string"].tobytes()]


ALL = (check_tensors, check_steps, check_stored_strings, check_encoder)
