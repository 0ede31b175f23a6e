"""`graph`: a workflow's phases, sub-steps and edges as a tree, and what about it will surprise. Pure."""

from __future__ import annotations

from steplog.projections.graph import surprises, words_of
from steplog.projections.plan import Key, Plan, Shape, split_key
from steplog.terminal.look import Look
from steplog.terminal.text import one_line, pad, width


def graph_lines(name: str, plan: Plan, look: Look) -> list[str]:
    """A line for each phase and sub-step: what it is special in, and what it comes behind."""
    shape = Shape.of(plan)
    columns = max(width(one_line(split_key(key)[1])) for key in shape.sub_steps)
    lines = [look.bold(one_line(name))]
    for phase, keys in shape.of_phase.items():
        parallel = shape.phases[phase].get("parallel")
        lines.append(one_line(phase) + (f"  {parallel} at once" if parallel else ""))
        lines += [f"  {pad(one_line(split_key(key)[1]), columns)}  {_said(shape, key)}".rstrip() for key in keys]
    lines += [f"{look.glyph('tolerated')} {one_line(surprise)}" for surprise in surprises(plan)]
    return [look.fit(line) for line in lines]


def _said(shape: Shape, key: Key) -> str:
    step = shape.sub_steps[key]
    needs = [f"{_near(need, key)}{' or a default' if need in step['defaults'] else ''}" for need in step["needs"]]
    parts = [
        f"needs {', '.join(needs)}" if needs else "",
        f"after {', '.join(_near(edge, key) for edge in step['after'])}" if step["after"] else "",
        *words_of(step),
    ]
    return one_line(" · ".join(part for part in parts if part))


def _near(other: Key, key: Key) -> str:
    phase, name = split_key(other)
    return name if phase == split_key(key)[0] else other
