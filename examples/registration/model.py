"""What a registration is given and what its sub-steps share: the job's input and its context, under the user's names.

Every field of the input has a default: together they are the sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from steplog import Context
from steplog.examples.registration.places import SAMPLE_MENU

SubStepName = Literal[
    "cloudwaitressAccount",
    "codeGeneration",
    "createOnboardingUser",
    "uploadImages",
    "restaurantRegistration",
    "websiteConfig",
    "servicesConfig",
    "paymentConfig",
    "menuImport",
    "syncOnboardingUser",
    "optionSets",
    "itemTags",
]
Absolute = Annotated[Path, AfterValidator(Path.absolute)]
"""Made absolute when the job is submitted, so that a process started elsewhere finds the same place."""


class Part(BaseModel):
    """A part of the input: read-only, and a misspelt field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AccountConfig(Part):
    registerNewUser: bool | None = None


class OnboardingConfig(Part):
    createOnboardingUser: bool = False
    syncOnboardingRecord: bool = True


class MenuConfig(Part):
    selectedMenuId: str | None = "menu-1"
    file: Absolute | None = None
    """The menu's CSV; none means the sample."""
    uploadImages: bool = True
    addOptionSets: bool = True
    addItemTags: bool = True


def _menu_config(given: Any) -> Any:
    """A bare path stands for a configuration with that file."""
    return {"file": given} if isinstance(given, (str, Path)) else given


def _work_folder(given: dict[str, Any]) -> Path:
    return Path("steplog-registration", given.get("restaurant_id", "")).absolute()


class Registration(Part):
    """One restaurant to register."""

    restaurant_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "harbour-street-kitchen"
    restaurant_name: Annotated[str, Field(min_length=1, max_length=200)] = "Harbour Street Kitchen"
    account: AccountConfig = AccountConfig()
    onboarding: OnboardingConfig = OnboardingConfig()
    menu: Annotated[MenuConfig, BeforeValidator(_menu_config)] = MenuConfig()
    steps_enabled: dict[SubStepName, bool] = {}
    folder: Absolute = Field(default_factory=_work_folder)
    """Where everything is made: `steplog-registration/<restaurant_id>` beside the log, unless given."""
    service_url: str | None = None
    """The registration service; none means a local one, started when needed."""
    simulate: dict[SubStepName, Annotated[str, Field(pattern=r"^[45]\d\d( x\d+)?$")]] = {
        "servicesConfig": "503 x1",
        "paymentConfig": "502",
    }
    """Failures that the local service is asked for: a status, and for how many requests if not all."""
    pace: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 1.0
    """How long things take: 1 lets a person watch, 0 does not wait at all."""

    @property
    def menu_file(self) -> Path:
        """The menu to read."""
        return self.menu.file or SAMPLE_MENU


class Progress(Context):
    """What later sub-steps need from earlier ones."""

    codeGenerationFilePaths: list[str] | None = None
    onboardingUserCreated: bool = False
    menuImportSucceeded: bool = False
