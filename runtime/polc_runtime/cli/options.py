"""The options that commands share, each declared once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..limits import MAX_THREADS
from .console import say
from .program import current_limits

if TYPE_CHECKING:
    from ..backends import BackendOptions
    from ..codec import Codec
    from ..codec.pipeline import NetworkSlots
    from ..codec.pool import CodecPool

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Reporting:
    """What a command prints about its work.

    Attributes:
        as_json: one JSON document on standard output.
        verbose: a line for each file on standard error.
    """

    as_json: bool
    verbose: bool


@dataclass(frozen=True)
class CodecChoice:
    """Which bundle runs where."""

    bundle: str | None
    backend: str
    device: str
    precision: str
    threads: int | None

    def load(self, checkpoint: Path | None = None) -> Codec:
        """Loads the codec; the runtime is imported only here, not where options are declared.

        Args:
            checkpoint: the model's weights, for the backend that needs them.
        """
        from ..bundle import Bundle
        from ..codec import Codec

        self._say_default()
        _say_fallback()
        limits = current_limits()
        return Codec(Bundle.load(self.bundle, limits), self.backend, self._options(checkpoint), limits)

    def pool(self, slots: NetworkSlots, encodes: bool = False) -> CodecPool:
        """The codecs of the bundle or ladder; without one, of every known bundle for decoding.

        Args:
            slots: that their backends run graphs in.
            encodes: whether the default bundle is worth a notice.
        """
        from ..backends import make_backend
        from ..bundle import Bundle
        from ..codec import Codec
        from ..codec.pipeline import NetworkLock
        from ..codec.pool import CodecPool

        if encodes:
            self._say_default()
        _say_fallback()
        limits, options = current_limits(), self._options()

        def open_codec(folder: Path) -> Codec:
            bundle = Bundle.load(folder, limits)
            backend = NetworkLock(make_backend(self.backend, bundle, options), slots)
            return Codec(bundle, backend, options, limits)

        return CodecPool(self.bundle, open_codec, limits)

    def _say_default(self) -> None:
        from ..bundle.find import DEFAULT_BUNDLE, uses_default

        if uses_default(self.bundle):
            say(f"notice: using the bundle {DEFAULT_BUNDLE} that comes with polc; name another by --bundle")

    def _options(self, checkpoint: Path | None = None) -> BackendOptions:
        from ..backends import BackendOptions

        return BackendOptions(self.precision, self.threads, device=self.device, checkpoint=checkpoint)


def _say_fallback() -> None:
    from ..bitstream.rans import is_fallback

    if is_fallback():
        say("notice: the native coder was not built; the pure-Python one writes the same bytes, slower")


@dataclass(frozen=True)
class Output:
    """Where results go."""

    output: str
    force: bool


def grouped(name: str, kind: type, options: Mapping[str, Decorator]) -> Decorator:
    """A decorator that declares `options` and passes a command their values as one `kind` named `name`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(**values: Any) -> Any:
            values[name] = kind(**{key: values.pop(key) for key in options})
            return command(**values)

        decorated: Callable[..., Any] = functools.update_wrapper(wrapped, command)
        for option in reversed(list(options.values())):
            decorated = option(decorated)
        return decorated

    return decorate


reporting = grouped(
    "reporting",
    Reporting,
    {
        "as_json": click.option(
            "--json", "as_json", is_flag=True, help="Print one JSON document on standard output."
        ),
        "verbose": click.option(
            "-v", "--verbose", is_flag=True, help="Print what runs the graphs, and a line for each file."
        ),
    },
)

device = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where the backend runs; on cuda, onnxruntime is the backend onnxruntime-cuda.",
)

codec_choice = grouped(
    "codec_choice",
    CodecChoice,
    {
        "bundle": click.option(
            "--bundle",
            metavar="BUNDLE",
            help="The bundle to code with: a folder, a ladder of bundles, or the name of one that comes with "
            "polc. Default: $POLC_BUNDLE, else nano. Files are decoded with the bundle that made them, if it "
            "is one of these or lies in a folder that $POLC_BUNDLES lists.",
        ),
        "backend": click.option(
            "--backend",
            metavar="NAME",
            default="onnxruntime",
            show_default=True,
            help="What runs the graphs ('polc-bench env' lists the backends).",
        ),
        "device": device,
        "precision": click.option(
            "--precision",
            type=click.Choice(["fp32", "fp16"]),
            default="fp32",
            show_default=True,
            help="Of graphs that the bundle holds in both; the entropy model is always fp32.",
        ),
        "threads": click.option(
            "--threads",
            metavar="N",
            type=click.IntRange(1, MAX_THREADS),
            help="CPU threads. Default: $POLC_THREADS, else the processors this process may use.",
        ),
    },
)

force = click.option("--force", is_flag=True, help="Overwrite files that exist.")

output = grouped(
    "output",
    Output,
    {
        "output": click.option(
            "-o",
            "--output",
            metavar="OUT",
            required=True,
            help="A file for one input, a folder for several, or '-'.",
        ),
        "force": force,
    },
)

variant = click.option(
    "--variant",
    metavar="NAME",
    help="Other image networks of the bundle, for the same files ('polc info BUNDLE' lists them).",
)

recursive = click.option(
    "--recursive", is_flag=True, help="Take the files in sub-folders of named folders too."
)


def inputs(metavar: str) -> Decorator:
    """The argument that names one or more inputs."""
    return click.argument("arguments", metavar=f"{metavar}...", nargs=-1, required=True)
