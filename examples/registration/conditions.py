"""When a sub-step runs, as a table: each condition with the reason that is recorded where it does not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from steplog import Job, Skip
from steplog.examples.registration.model import Progress, Registration, SubStepName

RegistrationJob = Job[Registration, Progress]


class Condition(NamedTuple):
    """Something that must hold for the sub-step to run."""

    otherwise: str
    holds: Callable[[RegistrationJob], object]


MENU_SELECTED = Condition("No menu selected", lambda job: job.input.menu.selectedMenuId)
MENU_IMPORTED = Condition("menuImportSucceeded is not set", lambda job: job.context.menuImportSucceeded)

CONDITIONS: dict[SubStepName, tuple[Condition, ...]] = {
    "cloudwaitressAccount": (
        Condition("New user registration disabled", lambda job: job.input.account.registerNewUser is not False),
    ),
    "createOnboardingUser": (
        Condition("Onboarding user creation disabled", lambda job: job.input.onboarding.createOnboardingUser),
    ),
    "uploadImages": (
        MENU_SELECTED,
        Condition("Image upload disabled", lambda job: job.input.menu.uploadImages),
    ),
    "websiteConfig": (
        Condition("codeGenerationFilePaths is not set", lambda job: job.context.codeGenerationFilePaths),
    ),
    "menuImport": (MENU_SELECTED,),
    "syncOnboardingUser": (
        Condition("Onboarding record sync disabled", lambda job: job.input.onboarding.syncOnboardingRecord),
        Condition("onboardingUserCreated is not set", lambda job: job.context.onboardingUserCreated),
    ),
    "optionSets": (
        Condition("Option sets disabled", lambda job: job.input.menu.addOptionSets),
        MENU_IMPORTED,
    ),
    "itemTags": (
        Condition("Item tags disabled", lambda job: job.input.menu.addItemTags),
        MENU_IMPORTED,
    ),
}


def runs(name: SubStepName) -> Callable[[RegistrationJob], bool | Skip]:
    """The `when=` of that sub-step: not switched off by the configuration, and its conditions hold."""

    def when(job: RegistrationJob) -> bool | Skip:
        if not job.input.steps_enabled.get(name, True):
            return Skip("Disabled in config")
        for condition in CONDITIONS.get(name, ()):
            if not condition.holds(job):
                return Skip(condition.otherwise)
        return True

    return when
