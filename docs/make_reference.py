"""Writes docs/cli.md and docs/api.md from the code.

Usage: python docs/make_reference.py

`tests/docs` fails if either page is not what this program writes.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import click

PROGRAMS = ("polc", "polc-export", "polc-bench", "polc-train")
MODULES = (
    "polc_runtime",
    "polc_runtime.backends",
    "polc",
    "polc_export",
    "polc_export.tensorrt",
    "polc_training",
)
"""The modules of docs/api.md; a name that two of them have is described at the first."""
FOLDER = Path(__file__).parent
WIDTH = 120


def cli_page() -> str:
    """Every command and option, from click."""
    parts = [
        "# Command line",
        _wrapped(
            "Every command and option; the [guides](README.md#guides) show them at work. Each program also "
            "has `--version`, and each command `--help`. `python docs/make_reference.py` writes this page."
        ),
    ]
    for name in PROGRAMS:
        (entry,) = metadata.entry_points(group="console_scripts", name=name)
        (group,) = (
            value for value in vars(import_module(entry.module)).values() if isinstance(value, click.Group)
        )
        parts += _commands(click.Context(group, info_name=name), 2)
    return "\n\n".join(parts) + "\n"


def _commands(context: click.Context, level: int) -> Iterator[str]:
    """A section for a command, and those of its sub-commands."""
    command = context.command
    usage = f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    yield f"{'#' * level} {context.command_path}"
    yield f"```text\n{usage}\n```"
    yield _wrapped(command.help or "")
    options = [
        option for option in command.params if isinstance(option, click.Option) and option.name != "version"
    ]
    if options:
        yield "\n".join(_option(option) for option in options)
    if command.epilog:
        yield f"```text\n{inspect.cleandoc(command.epilog.replace(chr(8), ''))}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _commands(click.Context(child, parent=context, info_name=name), level + 1)


def _option(option: click.Option) -> str:
    """One item of a list: names, value, help, default."""
    names = "`, `".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" {_metavar(option)}"
    notes = ["Required."] if option.required else []
    if option.show_default and not option.required:
        shown = option.show_default if isinstance(option.show_default, str) else option.default
        notes.append(f"Default: {shown}.")
    return _wrapped(" ".join([f"`{names}{value}`: {option.help}", *notes]), "- ")


def _metavar(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    kind = option.type
    return (
        "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else kind.name.split()[0].upper()
    )


def _wrapped(text: str, bullet: str = "") -> str:
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        textwrap.fill(
            " ".join(paragraph.split()),
            WIDTH,
            initial_indent=bullet,
            subsequent_indent=" " * len(bullet),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for paragraph in paragraphs
    )


def api_page() -> str:
    """Every public name of `MODULES`, with the first line of its documentation."""
    parts = [
        "# Python",
        _wrapped(
            "Every public name in one line; the [guides](README.md#guides) show them at work. `help(name)` "
            "has arguments, shapes, units and errors. `python docs/make_reference.py` writes this page."
        ),
    ]
    seen: set[str] = set()
    for module_name in MODULES:
        module = import_module(module_name)
        entries: list[str] = []
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if name.startswith("__") or name in seen:
                continue
            seen.add(name)
            entries += _entries(module_name, name, value)
        parts += [f"## {module_name}", _wrapped(_first_line(module.__doc__)), "\n".join(entries)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _entries(module: str, name: str, value: Any) -> Iterator[str]:
    """The items of a name: itself and, of a class, its public methods."""
    if inspect.isclass(value):
        signature = "" if issubclass(value, Exception) else _signature(value)
        yield _wrapped(f"`{name}{signature}`: {_first_line(value.__doc__)}", "- ")
        for method, plain in vars(value).items():
            function = inspect.unwrap(getattr(plain, "__func__", plain))
            if inspect.isfunction(function) and not method.startswith("_") and function.__doc__:
                text = f"`{name}.{method}{_signature(function)}`: {_first_line(function.__doc__)}"
                yield _wrapped(text, "  - ")
    elif inspect.isroutine(value):
        yield _wrapped(f"`{name}{_signature(value)}`: {_first_line(value.__doc__)}", "- ")
    else:
        text = _first_line(_constants(module.partition(".")[0]).get(name)) or _shown(value)
        yield _wrapped(f"`{name}`: {text}", "- ")


def _shown(value: Any) -> str:
    """A constant's value, or the names in it."""
    if isinstance(value, dict):
        return ", ".join(f"`{key}`" for key in value)
    return f"`{value!r}`" if isinstance(value, (str, int, float, tuple)) else "a type"


def _signature(function: Any) -> str:
    """Names of the arguments, with the defaults that are short, and without types."""
    kept = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in ("self", "cls"):
            simple = isinstance(
                parameter.default, (str, int, float, tuple, type(None), type(parameter.empty))
            )
            default = parameter.default if simple else ...
            kept.append(parameter.replace(annotation=parameter.empty, default=default))
    return str(inspect.Signature(kept)).replace("Ellipsis", "...")


def _first_line(documentation: str | None) -> str:
    return inspect.cleandoc(documentation or "").partition("\n\n")[0]


@cache
def _constants(package: str) -> dict[str, str]:
    """The texts that stand below assignments at the top of a package's modules."""
    found: dict[str, str] = {}
    for path in sorted(Path(str(import_module(package).__file__)).parent.rglob("*.py")):
        body = ast.parse(path.read_text()).body
        for assignment, text in zip(body, body[1:], strict=False):
            match assignment, text:
                case (
                    ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as documentation)),
                ):
                    found.setdefault(name, documentation)
    return found


PAGES = {"cli.md": cli_page, "api.md": api_page}

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    for page, make in PAGES.items():
        (folder / page).write_text(make())
