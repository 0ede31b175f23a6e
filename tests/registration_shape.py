"""A job of the registration's shape whose effects an outside witness can count: four phases, twelve sub-steps, a retry,
skips by condition and by need, a tolerated failure, a checkpoint. Its waits take no time.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel

from steplog import Context, Retry, Skip, Step, Workflow, result

Effect = Callable[[str, str], None]
"""Called with a sub-step's key and its idempotency key, when the effect happens."""

AT_ONCE = Retry(attempts=3, wait=0, jitter=0)


class Signup(BaseModel, frozen=True):
    restaurant: str = "r1"
    add_tags: bool = False


class Progress(Context):
    code_files: list[str] = []
    user_created: bool = False
    menu_imported: int = 0


class Declined(Exception):
    """A payment provider's answer."""


def registration_shape(effect: Effect) -> Workflow[Signup, Progress]:
    """The workflow, telling `effect` of everything it does to the world."""
    wf = Workflow("registration-shape", input=Signup, context=Progress)
    phase1, phase2 = wf.phase("phase1"), wf.phase("phase2")

    def acts(step: Step[Signup, Progress]) -> str:
        effect(f"{step.phase}/{step.name}", step.idempotency_key)
        return step.idempotency_key

    @phase1.sub_step(retry=AT_ONCE)
    def account(step: Step[Signup, Progress]) -> str:
        return acts(step)

    @phase1.sub_step(optional=True)
    async def code_generation(step: Step[Signup, Progress]) -> list[str]:
        acts(step)
        step.context.code_files = ["index.html", "site.css"]
        return step.context.code_files

    @phase1.sub_step(optional=True, retry=AT_ONCE)
    def create_user(step: Step[Signup, Progress]) -> None:
        acts(step)
        if step.attempt == 1:
            raise ConnectionError("503 the first time")
        step.context.user_created = True

    @phase1.sub_step(when=lambda job: Skip("no images"))
    def upload_images() -> None:
        raise AssertionError("skipped by its condition")

    @phase2.sub_step
    def restaurant(step: Step[Signup, Progress], account_id: str = result(account)) -> str:
        return acts(step)

    @phase2.sub_step(optional=True, when=lambda job: bool(job.context.code_files))
    async def website(
        step: Step[Signup, Progress], of: str = result(restaurant), files: list[str] = result(code_generation)
    ) -> int:
        acts(step)
        return len(files)

    @phase2.sub_step(optional=True, after=[restaurant])
    async def services(step: Step[Signup, Progress]) -> None:
        acts(step)

    @phase2.sub_step(optional=True, retry=Retry(attempts=2, wait=0, jitter=0), after=[restaurant])
    def payment(step: Step[Signup, Progress]) -> None:
        acts(step)
        raise Declined("502")

    @phase2.sub_step(optional=True)
    def menu(step: Step[Signup, Progress], of: str = result(restaurant)) -> int:
        for position in range(step.cursor or 0, 3):
            effect(f"phase2/menu@{position}", f"{step.idempotency_key}@{position}")
            step.context.menu_imported = position + 1
            step.checkpoint(position + 1)
        return step.context.menu_imported

    @phase2.sub_step(optional=True)
    def sync_user(step: Step[Signup, Progress], of: None = result(payment)) -> None:
        raise AssertionError("skipped: its need failed")

    phase3 = wf.phase("phase3")

    @phase3.sub_step
    def option_sets(step: Step[Signup, Progress], dishes: int = result(menu)) -> int:
        acts(step)
        return dishes

    @wf.phase("phase4").sub_step(when=lambda job: job.input.add_tags)
    def item_tags() -> None:
        raise AssertionError("skipped by its condition")

    return wf


EFFECTS = {
    "phase1/account": 1,
    "phase1/code_generation": 1,
    "phase1/create_user": 2,
    "phase2/restaurant": 1,
    "phase2/website": 1,
    "phase2/services": 1,
    "phase2/payment": 2,
    "phase2/menu@0": 1,
    "phase2/menu@1": 1,
    "phase2/menu@2": 1,
    "phase3/option_sets": 1,
}
"""How often each effect happens in a run that nothing disturbs."""

STATUSES = {
    "phase1/account": "completed",
    "phase1/code_generation": "completed",
    "phase1/create_user": "completed",
    "phase1/upload_images": "skipped",
    "phase2/restaurant": "completed",
    "phase2/website": "completed",
    "phase2/services": "completed",
    "phase2/payment": "failed",
    "phase2/menu": "completed",
    "phase2/sync_user": "skipped",
    "phase3/option_sets": "completed",
    "phase4/item_tags": "skipped",
}
"""How each sub-step ends, whatever happens to its workers."""
