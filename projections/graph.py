"""A plan as a picture of phases, sub-steps and edges, and what about it will surprise. Pure functions of the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from steplog.projections.plan import Key, Plan, Shape, SubStepPlan, split_key


def surprises(plan: Plan) -> list[str]:
    """What is allowed and likely not meant, as sentences."""
    shape = Shape.of(plan)
    return [
        *_never_undone(plan, shape),
        *_skipped_with_others(shape),
        *_signals_taken_once(shape),
        *_waits_without_end(shape),
    ]


def _never_undone(plan: Plan, shape: Shape) -> Iterator[str]:
    undone = [key for key, step in shape.sub_steps.items() if "compensate" in step]
    if undone and not plan.get("compensate_on"):
        yield f"{', '.join(undone)} have compensations, and nothing says when they run: give compensate_on="
    if (ends := plan.get("compensate_on")) and not undone:
        yield f"compensate_on={ends} undoes nothing: no sub-step has a compensation"


def _skipped_with_others(shape: Shape) -> Iterator[str]:
    for key, step in shape.sub_steps.items():
        for need in step["needs"]:
            source = shape.sub_steps[need]
            why = "may fail" if source["optional"] else "has a condition" if source["when"] else ""
            if why and need not in step["defaults"]:
                yield f"{key} is skipped where {need} has no result: that {why}, and result() has no default"


def _signals_taken_once(shape: Shape) -> Iterator[str]:
    for phase, waits in shape.waits.items():
        named = Counter(wait["signal"] for wait in waits.values() if wait["signal"] is not None)
        for signal, count in named.items():
            if count > 1:
                yield f"{count} sub-steps of {phase} wait for the signal {signal}: each takes one of its own"


def _waits_without_end(shape: Shape) -> Iterator[str]:
    for waits in shape.waits.values():
        for key, wait in waits.items():
            if wait["kind"] == "signal" and wait["seconds"] is None and "deadline_s" not in shape.sub_steps[key]:
                yield f"{key} waits for the signal {wait['signal']} for ever: it has no timeout"


def mermaid(plan: Plan) -> str:
    """The plan as a Mermaid flowchart: results are arrows, order alone is dotted, phases are boxes."""
    shape = Shape.of(plan)
    ids = {key: f"s{number}" for number, key in enumerate(shape.sub_steps)}
    boxes = {name: f"p{number}" for number, name in enumerate(shape.phases)}
    lines = ["flowchart TB"]
    for name, keys in shape.of_phase.items():
        lines.append(f'  subgraph {boxes[name]}["{_quoted(name)}"]')
        lines += [f"    {ids[key]}{_node(key, shape.sub_steps[key])}" for key in keys]
        lines.append("  end")
    lines += [f"  {one} ==> {next_}" for one, next_ in pairwise(boxes.values())]
    for key, step in shape.sub_steps.items():
        lines += [f"  {ids[need]} --> {ids[key]}" for need in step["needs"]]
        lines += [f"  {ids[edge]} -.-> {ids[key]}" for edge in step["after"] if edge not in step["needs"]]
    return "\n".join(lines) + "\n"


def _node(key: Key, step: SubStepPlan) -> str:
    said = _quoted(split_key(key)[1])
    words = "".join(f"<br/>{word}" for word in words_of(step))
    if "wait" in step:
        return f'(["{said}{words}"])'
    return f'[["{said}{words}"]]' if "map" in step else f'["{said}{words}"]'


def words_of(step: SubStepPlan) -> list[str]:
    """What is special about a sub-step, in a few words each."""
    wait, attempts = step.get("wait"), step["retry"]["attempts"]
    found = [
        f"for each item, {step['map']['parallel']} at once" if "map" in step else "",
        f"waits for {wait['signal'] or 'time'}" if wait else "",
        "on a condition" if step["when"] else "",
        "optional" if step["optional"] else "",
        f"{attempts} attempts" if attempts > 1 else "",
        f"timeout {step['timeout_s']:g} s" if "timeout_s" in step else "",
        f"deadline {step['deadline_s']:g} s" if "deadline_s" in step else "",
        "can be undone" if "compensate" in step else "",
        f"interrupted: {step['on_interrupt']}" if step["on_interrupt"] != "retry" else "",
    ]
    return [word for word in found if word]


def _quoted(text: str) -> str:
    """Text that ends no label and is no markup."""
    escaped = text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    return escaped.replace("`", "#96;")
