"""`polc-bench env`: what is installed here, which backends can run, and what the others lack."""

from __future__ import annotations

import json
from typing import Any

import click

from ..options import Reporting, reporting
from ..tables import facts_table


@click.command(
    epilog="""\b
Examples:
  polc-bench env
  polc-bench env --json"""
)
@reporting
def env(reporting: Reporting) -> int:
    """Report every backend, operator library and version found here, and why others are missing."""
    from ...backends.environment import environment

    found = environment()
    if reporting.as_json:
        click.echo(json.dumps({"command": "env", **found}, indent=2))
        return 0
    known = {name: value for name, value in found["machine"].items() if value is not None}
    installed = {name: version or "not installed" for name, version in found["versions"].items()}
    backends, libraries = (
        {name: _component_text(component) for name, component in found[key].items()}
        for key in ("backends", "libraries")
    )
    sections = {"machine": known, "versions": installed, "backends": backends, "libraries": libraries}
    click.echo("\n\n".join(f"{title}\n{facts_table(facts)}" for title, facts in sections.items()))
    return 0


def _component_text(component: dict[str, Any]) -> str:
    """What a component is, or why it is missing and what to do."""
    detail = component["detail"]
    if component["available"]:
        return f"yes{f', {detail}' if detail else ''}"
    install = component["install"]
    return f"no: {detail}{f'; {install}' if install else ''}"
