"""A workflow drawn: one SVG document that needs nothing else, with every sub-step and edge; no name is markup."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from click.testing import CliRunner
from shown_jobs import step_plan

from steplog.cli import main
from steplog.engine.plan import plan_of
from steplog.examples.registration.workflow import registration
from steplog.projections.graph_svg import graph_document

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>&\"'\x1b[2J\u202e\x00\ud800" + "x" * 300


def of_kind(picture: ElementTree.Element, tag: str, kind: str) -> list[ElementTree.Element]:
    return [each for each in picture.iter(f"{SVG}{tag}") if kind in (each.get("class") or "").split()]


def test_it_shows_every_sub_step_and_edge_inside_its_bounds() -> None:
    plan = plan_of(registration)
    picture = ElementTree.fromstring(graph_document(registration.name, plan))

    steps = [step for phase in plan["phases"] for step in phase["sub_steps"]]
    boxes = of_kind(picture, "rect", "box")
    assert len(boxes) == len(steps)
    assert len(of_kind(picture, "path", "arrow")) == sum(len({*step["after"], *step["needs"]}) for step in steps)
    titles = [each.text or "" for each in picture.iter(f"{SVG}title")]
    assert all(any(title.startswith(step["name"]) for title in titles) for step in steps)
    for box in boxes:
        assert float(box.get("x", "")) + float(box.get("width", "")) <= float(picture.get("width", ""))
        assert float(box.get("y", "")) + float(box.get("height", "")) <= float(picture.get("height", ""))


def test_it_needs_nothing_else_and_follows_the_readers_scheme() -> None:
    drawn = graph_document(registration.name, plan_of(registration))
    assert "prefers-color-scheme: dark" in drawn
    assert [word for word in ("href", "url(", "import", "<script") if word in drawn] == []
    assert drawn.count("http") == 1, "the namespace"


def test_no_name_is_markup_or_breaks_the_picture() -> None:
    plan: Any = {"phases": [{"name": HOSTILE, "sub_steps": [step_plan(HOSTILE)]}]}
    drawn = graph_document(HOSTILE, plan)
    picture = ElementTree.fromstring(drawn.encode())
    assert "<script" not in drawn
    assert [each.tag for each in picture.iter() if each.tag.endswith("script")] == []
    assert max(len(each.text or "") for each in picture.iter(f"{SVG}text")) < 40


def test_the_command_line_draws_it_to_a_file_or_to_whoever_reads(tmp_path: Any) -> None:
    target, file = "steplog.examples.registration", tmp_path / "graph.svg"
    shown = CliRunner().invoke(main, ["graph", target, "--svg"], catch_exceptions=False)
    written = CliRunner().invoke(main, ["graph", target, "-o", str(file)], catch_exceptions=False)
    assert (shown.exit_code, written.exit_code) == (0, 0)
    assert shown.stdout == file.read_text(encoding="utf-8") == graph_document("registration", plan_of(registration))
