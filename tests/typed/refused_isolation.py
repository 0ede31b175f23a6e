from __future__ import annotations

from steplog import Step, Workflow, result

images = Workflow("images")


@images.sub_step(isolate="process")
def shrink(step: Step) -> list[int]:
    return [1]


@images.sub_step(isolate="thread")  # refused
def elsewhere() -> None: ...


@images.map(items=[1], isolate=True)  # refused
def each(item: int) -> None: ...


@images.sub_step(isolate="process")
def wrong(sizes: str = result(shrink)) -> None: ...  # refused
