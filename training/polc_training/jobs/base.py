"""What every stage of training is asked for, and what a job is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from polc.attention import TRAINING_KERNELS
from polc.families.tinylic.presets import PRESETS
from polc_runtime.pictures.images import Pixels

from ..data.loader import Samples
from ..plan import PLANS, Plan, check_choice
from ..stages.base import Stage

PathLike = str | Path

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Names here -> Lightning Fabric's."""
ACCELERATORS = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class TrainingData:
    """What to train and to validate on.

    Attributes:
        dataset: folders of images for stage 1; one folder, `.zip` or list file for the others.
        validation: the validation data; None for the dataset's `val` or `test` folder, if it has one.
        validation_images: how many of the validation images to use.
        num_workers: processes that read the training data; 0 reads them in this one.
    """

    dataset: PathLike | Sequence[PathLike]
    validation: PathLike | None = None
    validation_images: int = 8
    num_workers: int = 2

    @property
    def sources(self) -> list[Path]:
        """The dataset's folders or files."""
        named = [self.dataset] if isinstance(self.dataset, str | Path) else self.dataset
        return [Path(each) for each in named]


@dataclass(frozen=True)
class Hardware:
    """Where and how to compute.

    Attributes:
        accelerator: "auto", "cpu" or "cuda".
        devices: how many, on this machine; several train by DDP, each in a process that starts the program.
        precision: "fp32", "bf16" or "fp16", of the networks' arithmetic; weights and rates stay in fp32.
        attention: a name in `polc.attention.TRAINING_KERNELS`.

    Raises:
        UsageError: a name is none of these.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "fp32"
    attention: str = "auto"

    def __post_init__(self) -> None:
        check_choice("accelerator", self.accelerator, ACCELERATORS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("attention", self.attention, TRAINING_KERNELS)


@dataclass(frozen=True)
class RunOptions:
    """Where a run is kept, and how often.

    Attributes:
        folder: of the run; see `polc_training.runs`.
        resume: whether to resume the run that the folder holds, exactly where it stopped.
        log_every: steps from one record to the next.
        save_every: steps from one saved state to the next; None for once an epoch.
        validate_every: steps from one validation to the next; None for once an epoch.
        logdir: folder to log to for TensorBoard too; None for none.
        official_layout: whether to write the official code's layout too (`last.pth.tar`).
        facts: to store in every checkpoint, JSON-able.
    """

    folder: PathLike
    resume: bool = False
    log_every: int = 50
    save_every: int | None = None
    validate_every: int | None = None
    logdir: PathLike | None = None
    official_layout: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes:
        loss: what the best checkpoint has least of.
        record: numbers, or rows of numbers, by name.
        pictures: sample images by name, uint8 [H,W,3].
    """

    loss: float
    record: Mapping[str, Any]
    pictures: Mapping[str, Pixels] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What a stage brings to its run; children write and validate what they train.

    Attributes:
        stage: the module to train.
        dataset: what to train on.
        samples: what to validate on; empty for no validation.
        settings: what a resumed run must share, JSON-able.
        start: numbers to log when the run starts.
    """

    stage: Stage
    dataset: Samples
    samples: Sequence[Any]
    settings: dict[str, Any]
    start: dict[str, float] = field(default_factory=dict)

    def write(self, path: Path, learners: nn.Module, step: int) -> None:
        """Writes a checkpoint of the learners after `step` steps."""
        raise NotImplementedError

    def validate(self, learners: nn.Module) -> Validation:
        """Measures the learners."""
        raise NotImplementedError


@dataclass(frozen=True)
class Training:
    """What every stage of training is asked for; each stage's class adds its own.

    Attributes:
        data: what to train on.
        run: where to keep it.
        plan: how long and how fast.
        hardware: where.
        pretrained: checkpoint to start from; None for none.
        preset: dimensions of a new codec; a checkpoint brings its own.
    """

    stage: ClassVar[str]

    data: TrainingData
    run: RunOptions
    _: KW_ONLY
    plan: Plan = PLANS["stage1"]
    hardware: Hardware = Hardware()
    pretrained: PathLike | None = None
    preset: str = "polc-base"

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, PRESETS)

    def job(self) -> TrainingJob:
        """Loads models and data, and draws what is random of them from torch's global generator."""
        raise NotImplementedError
