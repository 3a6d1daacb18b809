"""`agreement`: how far several ways to run one model agree, and which files that costs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..backends.facts import machine_facts, tool_facts
from ..bitstream.calibration import LARGEST_EXPONENT, LEAST_EXPONENT, Tolerances
from ..bundle import Bundle
from ..codec import Codec
from ..errors import FAILURES, BackendUnavailable, UsageError
from ..pictures.listing import ImageItem, ImageLike, LeftOut, NothingMeasured, find_images
from ..trace import OnProgress, Steps
from .cross_coding import CrossCoder, QualityAgreement
from .settings import Setting

SETTINGS = (
    "onnxruntime:threads=1",
    "onnxruntime:threads=2",
    "onnxruntime:threads=1,optimisation=off",
    "onnxruntime:threads=2,optimisation=off",
    "onnxruntime:threads=1,optimisation=all",
    "onnxruntime:threads=2,optimisation=all",
    "onnxruntime:threads=1,optimisation=all,exact-attention=native",
)
"""Ways to run a bundle that are compared unless others are named."""

TORCH_SETTINGS = ("torch:threads=1", "torch:threads=2", "torch:threads=1,precision=fp64,noise=0.5")
"""More of them, where there is a checkpoint."""


@dataclass(frozen=True)
class Agreement:
    """How far several ways to run a model agree.

    Attributes:
        bundle: its name.
        settings: each way to run it, as text and as its backend describes itself.
        files_of_each: files that each way coded; each was decoded with all.
        lost: files that were lost, by encoder and decoder, in the order of `settings`.
        lost_without_calibration: the same, with the files' calibration left out.
        margin: how many times the largest difference the proposed tolerances are, at least.
        proposed_tolerances: for the bundle's manifest.
        qualities: differences and costs at each quality.
        failures: images that were left out.
        tools: versions of what measured.
        machine: the processor.
    """

    bundle: str
    settings: tuple[dict[str, Any], ...]
    files_of_each: int
    lost: list[list[int]]
    lost_without_calibration: list[list[int]]
    margin: float
    proposed_tolerances: Tolerances
    qualities: tuple[QualityAgreement, ...]
    failures: tuple[LeftOut, ...]
    tools: dict[str, Any]
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "command": "agreement",
            **vars(self),
            "proposed_tolerances": self.proposed_tolerances.to_list(),
            "qualities": [asdict(each) for each in self.qualities],
            "failures": [each.to_dict() for each in self.failures],
        }


def agreement(
    bundle: Bundle | str | Path | None,
    images: ImageLike | Sequence[ImageLike],
    settings: Sequence[str] = (),
    qualities: Sequence[float] = (1.0, 4.5, 8.0),
    margin: float = 4.0,
    exponents: Sequence[int] | None = None,
    checkpoint: Path | None = None,
    recursive: bool = False,
    progress: OnProgress | None = None,
) -> Agreement:
    """Measures how far ways to run a model agree: every image is encoded with each, and decoded with all.

    Files are decoded twice, with their calibration and without; those that do not give the encoder's symbols
    are counted as lost. The differences between the scales are what a calibration must tolerate.

    >>> import numpy as np
    >>> from polc_runtime.agreement import agreement
    >>> image = np.add.outer(np.arange(64), np.arange(96))[..., None].repeat(3, 2).astype(np.uint8)
    >>> found = agreement("nano", [image], ["onnxruntime:threads=1", "onnxruntime:threads=2"], [4])
    >>> found.files_of_each, found.lost
    (1, [[0, 0], [0, 0]])

    Args:
        bundle: the model: a bundle, its folder, or the name of a packaged one; None for `$POLC_BUNDLE`, else
            `nano`.
        images: image files, folders of them, or uint8 [H,W,3] arrays.
        settings: ways to run the model, see `Setting.parse`; the first also runs the analysis. Empty for
            `SETTINGS` and, with a checkpoint, `TORCH_SETTINGS`.
        qualities: to code at.
        margin: how many times the largest difference the proposed tolerance is, at least.
        exponents: calibrate for tolerances of 2^-N, one for all coding steps or one for each; None for the
            bundle's.
        checkpoint: the bundle's, for settings of the backend torch.
        recursive: search the sub-folders of folders too.
        progress: receives a report after each image and quality.

    Raises:
        UsageError: a setting or an exponent is wrong, or a folder has no images.
        BackendUnavailable: a setting cannot run here; the message names it.
        NothingMeasured: no image could be coded.
    """
    texts = settings or (SETTINGS + (TORCH_SETTINGS if checkpoint else ()))
    parsed = [Setting.parse(text) for text in dict.fromkeys(texts)]
    loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    items = find_images(images, recursive)
    tolerances = loaded.manifest.tolerances
    if exponents is not None:
        tolerances = _fixed_tolerances(exponents, steps=len(loaded.manifest.plan.steps))
    with ExitStack() as stack:
        codecs = [stack.enter_context(_open(each, loaded, checkpoint, tolerances)) for each in parsed]
        coder = CrossCoder(codecs, tolerances, margin)
        left_out = _measure(coder, items, qualities, Steps(len(items) * len(qualities), progress))
        described = [codec.backend.describe() for codec in codecs]
    if not coder.files:
        raise NothingMeasured(left_out)
    return Agreement(
        bundle=loaded.name,
        settings=tuple({"setting": s.text, **each} for s, each in zip(parsed, described, strict=True)),
        files_of_each=coder.files,
        lost=coder.lost[True].tolist(),
        lost_without_calibration=coder.lost[False].tolist(),
        margin=margin,
        proposed_tolerances=coder.proposed(),
        qualities=coder.qualities(),
        failures=tuple(left_out),
        tools=tool_facts(),
        machine=machine_facts(),
    )


def _fixed_tolerances(exponents: Sequence[int], steps: int) -> Tolerances:
    """Tolerances of all qualities, from one exponent for all steps or one for each."""
    fits = all(e == int(e) and LEAST_EXPONENT <= e <= LARGEST_EXPONENT for e in exponents)
    if not fits or len(exponents) not in (1, steps):
        raise UsageError(
            f"exponents: expected one or {steps} whole numbers from {LEAST_EXPONENT} to {LARGEST_EXPONENT}, "
            f"got {', '.join(f'{e:g}' for e in exponents)}"
        )
    return Tolerances(((1.0, tuple(int(e) for e in exponents) * (steps if len(exponents) == 1 else 1)),))


def _open(setting: Setting, bundle: Bundle, checkpoint: Path | None, tolerances: Tolerances) -> Codec:
    try:
        return Codec(bundle, setting.open(bundle, checkpoint, tolerances))
    except BackendUnavailable as error:
        raise BackendUnavailable(f"setting {setting.text}: {error}") from None


def _measure(
    coder: CrossCoder, items: Sequence[ImageItem], qualities: Sequence[float], steps: Steps
) -> list[LeftOut]:
    """Codes every image at every quality; returns those that cannot be coded."""
    left_out = []
    for number, item in enumerate(items, 1):
        try:
            pixels, notices = item.read()
            for quality in qualities:
                found = coder.add(pixels, quality)
                steps.step(f"{item.where} at quality {quality:g}: {found}")
        except FAILURES as error:
            left_out.append(LeftOut.of(item, error))
            steps.step(count=number * len(qualities) - steps.done)
    return left_out
