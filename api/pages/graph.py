"""A workflow's shape as a picture: phases from left to right, sub-steps in columns by their edges. A pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

from steplog.api.pages.look import short, visible
from steplog.projections.plan import Key, key_of

BOX_WIDTH, BOX_HEIGHT = 176, 30
GAP_X, GAP_Y = 44, 12
PAD, HEAD = 14, 24
_CHARS_MAX = 22


class Box(NamedTuple):
    """A sub-step's place."""

    x: int
    y: int


def graph_svg(plan: Mapping[str, Any]) -> str:
    """The plan as SVG for a page: it is coloured by the page's style sheet, and every text in it is escaped."""
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
    size = f'viewBox="0 0 {left} {height + 2 * PAD}" width="{left}" height="{height + 2 * PAD}"'
    return f'<svg {size} role="img" aria-label="graph of {len(boxes)} sub-steps">{"".join(body)}</svg>'


def _columns(phase: Mapping[str, Any]) -> list[list[str]]:
    """Sub-steps of a phase by how many others of it come before them."""
    depth: dict[str, int] = {}
    prefix = f"{phase['name']}/"
    for step in phase["sub_steps"]:  # an edge leads to what was declared before
        edges = [edge.removeprefix(prefix) for edge in (*step["after"], *step["needs"]) if edge.startswith(prefix)]
        depth[step["name"]] = 1 + max((depth.get(edge, 0) for edge in edges), default=-1)
    return [[name for name, at in depth.items() if at == column] for column in sorted(set(depth.values()))]


def _frame(name: str, x: int, width: int, height: int) -> str:
    told = escape(str(visible(name)))
    shown = escape(short(str(visible(name)), max(8, width // 8)))
    return (
        f'<rect class="frame" x="{x}" y="{PAD}" width="{width}" height="{height}" rx="8"/>'
        f'<text class="phase" x="{x + PAD}" y="{PAD + 17}">{shown}<title>{told}</title></text>'
    )


def _boxes(plan: Mapping[str, Any], boxes: Mapping[Key, Box]) -> Iterator[str]:
    for phase in plan["phases"]:
        for step in phase["sub_steps"]:
            box = boxes[key_of(phase["name"], step["name"])]
            told = escape(str(visible(step["name"])))
            shown = escape(short(str(visible(step["name"])), _CHARS_MAX))
            kind = "box optional" if step["optional"] else "box"
            shape = f'x="{box.x}" y="{box.y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5"'
            yield f'<g><title>{told}{" (optional)" if step["optional"] else ""}</title><rect class="{kind}" {shape}/>'
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
