"""Ways to run one model, named by text such as `onnxruntime:threads=1,optimisation=off`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import Backend, BackendOptions, FloatArray, make_backend
from ..backends.wrapper import BackendWrapper
from ..bitstream.calibration import Tolerances
from ..bitstream.plan import CodingPlan
from ..bundle import Bundle
from ..errors import UsageError

OPTIMISATIONS = ("off", "basic", "extended", "all")
"""Levels of ONNX Runtime's graph optimisation."""

MEAN_ERROR = 2.0**-20
"""Relative size of the errors of means, about what float32 leaves of sums."""

_SEED = 11276


@dataclass(frozen=True)
class Setting:
    """One way to run a model.

    Attributes:
        text: as it was written.
        backend: name of the backend.
        options: of the backend, by name; `threads`, `device`, `precision`, `native_ops`.
        optimisation: of the exact graphs, by ONNX Runtime; None for the level that files are coded with.
        exact_native: whether the exact graphs take the native operators too, which they never do otherwise.
        noise: size of random errors added to the results of the coding steps, as a share of the tolerance.
    """

    text: str
    backend: str
    options: dict[str, Any] = field(default_factory=dict)
    optimisation: str | None = None
    exact_native: bool = False
    noise: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Reads BACKEND or BACKEND:KEY=VALUE,KEY=VALUE.

        Raises:
            UsageError: a key is unknown, or its value does not fit; the message lists the keys.
        """
        backend, _, rest = text.partition(":")
        options: dict[str, Any] = {}
        changes: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            if key not in _KEYS:
                raise UsageError(f"setting {text!r}: no key is named {key!r}; there are {', '.join(_KEYS)}")
            name, read = _KEYS[key]
            try:
                (changes if name in _OWN else options)[name] = read(value)
            except (ValueError, KeyError):
                raise UsageError(f"setting {text!r}: {key} cannot be {value!r}") from None
        if backend != "onnxruntime" and changes.keys() & _TUNABLE:
            raise UsageError(f"setting {text!r}: optimisation and exact-attention are onnxruntime's")
        return cls(text, backend, options, **changes)

    def open(self, bundle: Bundle, checkpoint: Path | None, tolerances: Tolerances) -> Backend:
        """A backend with this setting.

        Args:
            bundle: of the model.
            checkpoint: of the model, for the backend torch.
            tolerances: for which files are calibrated.

        Raises:
            BackendUnavailable: it cannot run here.
        """
        options = BackendOptions(**self.options, checkpoint=checkpoint)
        backend: Backend
        if self.optimisation is None and not self.exact_native:
            backend = make_backend(self.backend, bundle, options)
        else:
            from .tunable import TunableOnnxRuntime

            backend = TunableOnnxRuntime(bundle, options, self.optimisation or "basic", self.exact_native)
        if not self.noise:
            return backend
        return NoisyBackend(backend, self.noise, tolerances, bundle.manifest.plan)


class NoisyBackend(BackendWrapper):
    """Adds errors to scales and means, like those of a backend that rounds differently.

    Args:
        backend: runs the graphs.
        noise: largest relative error, as a share of the tolerance for scales and of `MEAN_ERROR` for means;
            errors are uniform and independent.
        tolerances: for which files are calibrated.
        plan: of the model; names the graphs of the coding steps.
    """

    def __init__(self, backend: Backend, noise: float, tolerances: Tolerances, plan: CodingPlan) -> None:
        super().__init__(backend)
        self.noise, self.tolerances = noise, tolerances
        self.hyper = plan.hyper.graph if plan.hyper else None
        self.steps = plan.step_numbers
        self._exponents = tolerances.at(1.0)
        self._random = np.random.default_rng(_SEED)

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Runs a graph, and disturbs the results of a coding step."""
        if graph == self.hyper:
            self._exponents = self.tolerances.at(float(inputs["quality"][0]))
        outputs = self.backend.run(graph, inputs)
        if graph in self.steps:
            tolerance = 2.0 ** -self._exponents[self.steps[graph]]
            outputs["scales"] = self._disturbed(outputs["scales"], tolerance)
            if "means" in outputs:
                outputs["means"] = self._disturbed(outputs["means"], MEAN_ERROR)
        return outputs

    def describe(self) -> dict[str, Any]:
        """The wrapped backend's description, and the noise."""
        return {**self.backend.describe(), "noise": self.noise}

    def _disturbed(self, values: FloatArray, unit: float) -> FloatArray:
        errors = self._random.uniform(-self.noise * unit, self.noise * unit, values.shape)
        return (values * (1 + errors)).astype(np.float32)


def _number(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _noise(text: str) -> float:
    if not 0 < float(text) <= 100:
        raise ValueError
    return float(text)


def _one_of(*known: str) -> Callable[[str], str]:
    return {name: name for name in known}.__getitem__


_NATIVE = {"native": True, "portable": False}
_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "threads": ("threads", _number),
    "device": ("device", _one_of("cpu", "cuda")),
    "precision": ("precision", _one_of("fp32", "fp16", "fp64")),
    "attention": ("native_ops", _NATIVE.__getitem__),
    "optimisation": ("optimisation", _one_of(*OPTIMISATIONS)),
    "exact-attention": ("exact_native", _NATIVE.__getitem__),
    "noise": ("noise", _noise),
}
"""Keys of a setting: the field it sets, and how its value is read."""

_TUNABLE = {"optimisation", "exact_native"}
_OWN = {*_TUNABLE, "noise"}
