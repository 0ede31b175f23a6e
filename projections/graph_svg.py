"""A workflow's shape as a picture: phases from left to right, sub-steps in columns by their edges. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import Template
from typing import Any, NamedTuple

from steplog.projections.graph import words_of
from steplog.projections.plan import Key, key_of
from steplog.projections.svg_text import cut, escaped

BOX_WIDTH, BOX_HEIGHT = 176, 30
GAP_X, GAP_Y = 44, 12
PAD, HEAD = 14, 24
_CHARS_MAX = 22


class Box(NamedTuple):
    """A sub-step's place."""

    x: int
    y: int


class Picture(NamedTuple):
    """What is drawn, and how large it is."""

    body: str
    boxes: int
    width: int
    height: int


_TEMPLATE = Template("""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" height="$height" role="img">
<title>$title</title>
<style>
svg { font: 12px "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.head { font-size: 15px; } .head, .phase { font-weight: bold; } .frame, .arrow { fill: none; }
.optional { stroke-dasharray: 4 3; }
$light
@media (prefers-color-scheme: dark) {
$dark
}
</style>
<rect class="paper" width="$width" height="$height"/>
<text class="head" x="$left" y="$line">$shown</text>
<g transform="translate(0 $line)">
$body
</g>
</svg>
""")
_COLOURS = Template("""\
.paper { fill: $paper; } text { fill: $ink; } .frame { stroke: $rule; } .box { fill: $raised; stroke: $faint; }
.arrow { stroke: $faint; } .tip { fill: $faint; } .arrow.data { stroke: $data; } .tip.data { fill: $data; }""")
_LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "rule": "#d8dee4",
    "raised": "#f6f8fa",
    "faint": "#656d76",
    "data": "#0969da",
}
_DARK = {
    "paper": "#0d1117",
    "ink": "#e6edf3",
    "rule": "#30363d",
    "raised": "#161b22",
    "faint": "#8d96a0",
    "data": "#4493f8",
}
_HEADING = 24


def graph_document(workflow: str, plan: Mapping[str, Any]) -> str:
    """The plan as an SVG document that needs nothing else, light or dark as its reader prefers."""
    drawn = _picture(plan)
    return _TEMPLATE.substitute(
        width=drawn.width,
        height=drawn.height + _HEADING,
        title=escaped(f"workflow {workflow}: {drawn.boxes} sub-steps"),
        light=_COLOURS.substitute(_LIGHT),
        dark=_COLOURS.substitute(_DARK),
        left=PAD,
        line=_HEADING,
        shown=escaped(cut(workflow, (drawn.width - 2 * PAD) // 9)),
        body=drawn.body,
    )


def graph_svg(plan: Mapping[str, Any]) -> str:
    """The plan as SVG for a page, which colours it by its own style sheet; every text in it is escaped."""
    drawn = _picture(plan)
    size = f'viewBox="0 0 {drawn.width} {drawn.height}" width="{drawn.width}" height="{drawn.height}"'
    return f'<svg {size} role="img" aria-label="graph of {drawn.boxes} sub-steps">{drawn.body}</svg>'


def _picture(plan: Mapping[str, Any]) -> Picture:
    boxes: dict[Key, Box] = {}
    frames: list[str] = []
    left, height = PAD, 0
    for phase in plan["phases"]:
        columns = _columns(phase)
        width = len(columns) * (BOX_WIDTH + GAP_X) - GAP_X + 2 * PAD
        for at, column in enumerate(columns):
            for row, name in enumerate(column):
                x = left + PAD + at * (BOX_WIDTH + GAP_X)
                boxes[key_of(phase["name"], name)] = Box(x, PAD + HEAD + row * (BOX_HEIGHT + GAP_Y))
        tall = HEAD + max(map(len, columns), default=0) * (BOX_HEIGHT + GAP_Y) + PAD - GAP_Y
        frames.append(_frame(phase["name"], left, width, tall))
        left, height = left + width + GAP_X, max(height, tall)
    body = [*frames, *_arrows(plan, boxes), *_boxes(plan, boxes)]
    return Picture("".join(body), len(boxes), left - GAP_X + PAD, height + 2 * PAD)


def _columns(phase: Mapping[str, Any]) -> list[list[str]]:
    """Sub-steps of a phase by how many others of it come before them."""
    depth: dict[str, int] = {}
    prefix = f"{phase['name']}/"
    for step in phase["sub_steps"]:  # an edge leads to what was declared before
        edges = [edge.removeprefix(prefix) for edge in (*step["after"], *step["needs"]) if edge.startswith(prefix)]
        depth[step["name"]] = 1 + max((depth.get(edge, 0) for edge in edges), default=-1)
    return [[name for name, at in depth.items() if at == column] for column in sorted(set(depth.values()))]


def _frame(name: str, x: int, width: int, height: int) -> str:
    told, shown = escaped(name), escaped(cut(name, max(8, width // 8)))
    return (
        f'<rect class="frame" x="{x}" y="{PAD}" width="{width}" height="{height}" rx="8"/>'
        f'<text class="phase" x="{x + PAD}" y="{PAD + 17}">{shown}<title>{told}</title></text>'
    )


def _boxes(plan: Mapping[str, Any], boxes: Mapping[Key, Box]) -> Iterator[str]:
    for phase in plan["phases"]:
        for step in phase["sub_steps"]:
            box = boxes[key_of(phase["name"], step["name"])]
            told = escaped(" · ".join([step["name"], *words_of(step)]))
            shown = escaped(cut(step["name"], _CHARS_MAX))
            kind = "box optional" if step["optional"] else "box"
            shape = f'x="{box.x}" y="{box.y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5"'
            yield f'<g><title>{told}</title><rect class="{kind}" {shape}/>'
            yield f'<text x="{box.x + 9}" y="{box.y + 19}">{shown}</text></g>'


def _arrows(plan: Mapping[str, Any], boxes: Mapping[Key, Box]) -> Iterator[str]:
    for phase in plan["phases"]:
        for step in phase["sub_steps"]:
            end = boxes[key_of(phase["name"], step["name"])]
            for edge in dict.fromkeys((*step["needs"], *step["after"])):
                if edge in boxes:
                    yield _arrow(boxes[edge], end, "data" if edge in step["needs"] else "")


def _arrow(start: Box, end: Box, kind: str) -> str:
    x, y = start.x + BOX_WIDTH, start.y + BOX_HEIGHT // 2
    to_x, to_y = end.x - 5, end.y + BOX_HEIGHT // 2
    bend = max(20, (to_x - x) // 2)
    return (
        f'<path class="arrow {kind}" d="M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"/>'
        f'<path class="tip {kind}" d="M{to_x + 4} {to_y}l-7 -3.5v7z"/>'
    )
