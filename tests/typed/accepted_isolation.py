from __future__ import annotations

from typing import assert_type

from steplog import Context, Step, Workflow, result


class Progress(Context):
    ids: list[str] = []


images = Workflow("images", context=Progress)


@images.sub_step(isolate="process", timeout="1m")
def shrink(step: Step[object, Progress]) -> list[int]:
    step.context.ids.append("a")
    return [1]


@images.sub_step(isolate=None)
async def store(sizes: list[int] = result(shrink)) -> str:
    return "stored"


@images.map(items=result(shrink), isolate="process")
def look(size: int) -> bool:
    return size > 0


@images.compensate(store, isolate="process")
def remove(name: str = result(store)) -> None: ...


assert_type(images.run().result(shrink), list[int])
assert_type(images.run().result(store), str)
assert_type(images.run().result(look), list[bool])
