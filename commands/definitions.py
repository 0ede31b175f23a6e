"""Commands that look at workflows as the code has them."""

from __future__ import annotations

import click

from steplog.commands.sharing import console_of
from steplog.terminal.command import PictureCommand
from steplog.terminal.console import Console


@click.command(cls=PictureCommand)
@click.argument("target", metavar="MODULE:WORKFLOW")
@click.option("--mermaid", "form", flag_value="mermaid", help="As a Mermaid flowchart.")
@click.option("--svg", "form", flag_value="svg", help="As a picture; `-o FILE.svg` writes it there.")
@console_of
def graph(console: Console, target: str, form: str | None) -> None:
    """Show a workflow's phases, sub-steps and edges, and what about it will surprise."""
    from steplog.engine.lookup import import_workflow
    from steplog.engine.plan import plan_of
    from steplog.projections.graph import mermaid, surprises
    from steplog.projections.graph_svg import graph_document
    from steplog.terminal.graph import graph_lines

    definition = import_workflow(target)
    plan = plan_of(definition)
    if console.picture:
        console.draw(graph_document(definition.name, plan))
    elif form == "svg":
        console.lines(graph_document(definition.name, plan).splitlines())
    elif form == "mermaid":
        console.lines(mermaid(plan).splitlines())
    elif console.output == "table":
        console.lines(graph_lines(definition.name, plan, console.look))
    else:
        workflow = {"workflow": definition.name, "workflow_version": definition.version}
        console.document({**workflow, "plan": plan, "surprises": surprises(plan)})


COMMANDS = (graph,)
