"""Commands that look at workflows as the code has them."""

from __future__ import annotations

import click

from steplog.commands.sharing import console_of
from steplog.terminal.command import Command
from steplog.terminal.console import Console


@click.command(cls=Command)
@click.argument("target", metavar="MODULE:WORKFLOW")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="As a Mermaid flowchart.")
@console_of
def graph(console: Console, target: str, as_mermaid: bool) -> None:
    """Show a workflow's phases, sub-steps and edges, and what about it will surprise."""
    from steplog.engine.lookup import import_workflow
    from steplog.engine.plan import plan_of
    from steplog.projections.graph import mermaid, surprises
    from steplog.terminal.graph import graph_lines

    definition = import_workflow(target)
    plan = plan_of(definition)
    if as_mermaid:
        console.lines(mermaid(plan).splitlines())
    elif console.output == "table":
        console.lines(graph_lines(definition.name, plan, console.look))
    else:
        workflow = {"workflow": definition.name, "workflow_version": definition.version}
        console.document({**workflow, "plan": plan, "surprises": surprises(plan)})


COMMANDS = (graph,)
