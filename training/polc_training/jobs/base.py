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
from ..options import Options
from ..plan import PLANS, Plan
from ..stages.base import Stage

PathLike = str | Path

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Names here -> Lightning Fabric's."""


@dataclass(frozen=True)
class TrainingData(Options):
    """What to train and to validate on.

    Attributes:
        dataset: folders of images; of labelled ones a single folder, `.zip` or list file.
        validation: the validation data. Default: the dataset's `val` or `test` folder, if it has one.
        validation_images: images of the validation data to use.
        num_workers: processes that read the training data; 0 for none but this one.
    """

    dataset: PathLike | Sequence[PathLike]
    validation: PathLike | None = None
    validation_images: int = 8
    num_workers: int = 2

    BOUNDS: ClassVar = {"validation_images": 1, "num_workers": 0}

    @property
    def sources(self) -> list[Path]:
        """The dataset's folders or files."""
        named = [self.dataset] if isinstance(self.dataset, str | Path) else self.dataset
        return [Path(each) for each in named]


@dataclass(frozen=True)
class Hardware(Options):
    """Where and how to compute.

    Attributes:
        accelerator: where to train.
        devices: devices on this machine; several train by DDP, each in a process that starts the program.
        precision: of the networks' arithmetic; weights and rates stay in fp32.
        attention: attention kernel; "auto" is native for fp32 on the CPU where it was built, else tiled.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "fp32"
    attention: str = "auto"

    CHOICES: ClassVar = {
        "accelerator": ("auto", "cpu", "cuda"),
        "precision": tuple(PRECISIONS),
        "attention": TRAINING_KERNELS,
    }
    BOUNDS: ClassVar = {"devices": 1}


@dataclass(frozen=True)
class RunOptions(Options):
    """Where a run is kept, and how often.

    Attributes:
        folder: of the run; see `polc_training.runs`.
        resume: whether to resume the run that the folder holds, exactly where it stopped.
        log_every: steps from one record to the next.
        save_every: steps from one saved state to the next. Default: an epoch.
        validate_every: steps from one validation to the next. Default: an epoch.
        logdir: also log to TensorBoard, in this folder.
        official_layout: also write the official code's layout (`last.pth.tar`).
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

    BOUNDS: ClassVar = dict.fromkeys(("log_every", "save_every", "validate_every"), 1)


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes:
        loss: what the best checkpoint has least of.
        record: numbers, or rows of numbers, by name.
        images: sample images by name, uint8 [H,W,3].
    """

    loss: float
    record: Mapping[str, Any]
    images: Mapping[str, Pixels] = field(default_factory=dict)


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
class Training(Options):
    """What every stage of training is asked for; each stage's class adds its own.

    Attributes:
        data: what to train on.
        run: where to keep it.
        plan: how long and how fast. Default: the method's, `PLANS[stage]`.
        hardware: where.
        pretrained: checkpoint to start from.
        preset: dimensions of a new codec; a checkpoint brings its own.
    """

    data: TrainingData
    run: RunOptions
    _: KW_ONLY
    plan: Plan = None  # type: ignore[assignment]  # set below
    hardware: Hardware = Hardware()
    pretrained: PathLike | None = None
    preset: str = "polc-base"

    CHOICES: ClassVar = {"preset": tuple(PRESETS)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan is None:
            object.__setattr__(self, "plan", PLANS[self.stage])

    @property
    def stage(self) -> str:
        """The stage's name, one of `PLANS`."""
        raise NotImplementedError

    @property
    def clip(self) -> float | None:
        """Largest norm of the gradient; None for no limit."""
        return self.plan.clip_max_norm or None

    def job(self) -> TrainingJob:
        """Loads models and data, and draws what is random of them from torch's global generator."""
        raise NotImplementedError
