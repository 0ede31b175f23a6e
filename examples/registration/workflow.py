"""The registration job as a workflow: four phases, twelve sub-steps, their needs, and what a failure means."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from steplog import Retry, Step, Workflow, result, use
from steplog.examples.registration import restaurant_db, site
from steplog.examples.registration.api import Api, local_service, registration_api
from steplog.examples.registration.conditions import runs
from steplog.examples.registration.menu import Menu, MenuError, read_menu
from steplog.examples.registration.model import Progress, Registration, SubStepName
from steplog.examples.registration.places import restaurant_database, service_folder, site_folder

THREE_TIMES = Retry(attempts=3, wait="2s", factor=2.0, jitter=0.0, never=(MenuError,))
TIMEOUT = "5m"

registration = Workflow("registration", input=Registration, context=Progress)
phase1 = registration.phase("phase1", description="Initial parallel operations")
phase2 = registration.phase("phase2", description="Configuration (parallel after phase1)")
phase3 = registration.phase("phase3", description="Menu setup")
phase4 = registration.phase("phase4", description="Finalization")

RegistrationStep = Step[Registration, Progress]


@phase1.sub_step(name="cloudwaitressAccount", retry=THREE_TIMES, timeout=TIMEOUT, when=runs("cloudwaitressAccount"))
def cloudwaitress_account(step: RegistrationStep, api: Api = use(registration_api)) -> str:
    """Without the account there is nothing to register."""
    return post(step, api, "cloudwaitressAccount", {"name": step.input.restaurant_name})


@phase1.sub_step(name="codeGeneration", retry=THREE_TIMES, timeout=TIMEOUT, optional=True, when=runs("codeGeneration"))
def code_generation(step: RegistrationStep) -> list[str]:
    """Generate the restaurant's site from its menu."""
    files = site.pages(step.input.restaurant_name, read_menu(step.input.menu_file))

    def written(done: int) -> None:
        step.progress(done, len(files), "site files")
        take_time(step, 0.05)

    paths = site.write_site(site_folder(step.input.folder), files, written)
    step.context.codeGenerationFilePaths = [str(path) for path in paths]
    return step.context.codeGenerationFilePaths


@phase1.sub_step(
    name="createOnboardingUser",
    retry=THREE_TIMES,
    timeout=TIMEOUT,
    optional=True,
    when=runs("createOnboardingUser"),
)
def create_onboarding_user(step: RegistrationStep, api: Api = use(registration_api)) -> str:
    reference = post(step, api, "createOnboardingUser", {"name": step.input.restaurant_name})
    step.context.onboardingUserCreated = True
    return reference


@phase1.sub_step(name="uploadImages", retry=THREE_TIMES, timeout=TIMEOUT, optional=True, when=runs("uploadImages"))
def upload_images(step: RegistrationStep, api: Api = use(registration_api)) -> str:
    """Upload a picture for each category of the menu."""
    images = site.images(read_menu(step.input.menu_file))
    return post(step, api, "uploadImages", {"menu": step.input.menu.selectedMenuId, "images": images})


@phase2.sub_step(name="restaurantRegistration", retry=THREE_TIMES, timeout=TIMEOUT, when=runs("restaurantRegistration"))
def restaurant_registration(
    step: RegistrationStep,
    account: str | None = result(cloudwaitress_account, default=None),
    api: Api = use(registration_api),
) -> str:
    """Register with the new account, or with the one the restaurant has already."""
    return post(step, api, "restaurantRegistration", {"name": step.input.restaurant_name, "account": account})


@phase2.sub_step(
    name="websiteConfig",
    retry=THREE_TIMES,
    timeout=TIMEOUT,
    optional=True,
    when=runs("websiteConfig"),
    after=[code_generation, restaurant_registration],
)
def website_config(step: RegistrationStep, api: Api = use(registration_api)) -> str:
    """Hand over what was generated: each file's name and digest."""
    paths = [Path(path) for path in step.context.codeGenerationFilePaths or ()]
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return post(step, api, "websiteConfig", {"files": files})


@phase2.sub_step(
    name="servicesConfig",
    retry=THREE_TIMES,
    timeout=TIMEOUT,
    optional=True,
    when=runs("servicesConfig"),
    after=[restaurant_registration],
)
def services_config(step: RegistrationStep, api: Api = use(registration_api)) -> str:
    return post(step, api, "servicesConfig", {"services": ["pickup", "delivery", "table"]})


@phase2.sub_step(
    name="paymentConfig",
    retry=THREE_TIMES,
    timeout=TIMEOUT,
    optional=True,
    when=runs("paymentConfig"),
    after=[restaurant_registration],
)
def payment_config(step: RegistrationStep, api: Api = use(registration_api)) -> str:
    return post(step, api, "paymentConfig", {"methods": ["cash", "card"]})


@phase2.sub_step(
    name="menuImport",
    retry=THREE_TIMES,
    timeout=TIMEOUT,
    optional=True,
    when=runs("menuImport"),
    after=[restaurant_registration],
)
def menu_import(step: RegistrationStep) -> int:
    """Import the menu batch by batch; after a crash it goes on behind the last batch that was checkpointed."""
    menu = read_menu(step.input.menu_file)
    database = restaurant_database(step.input.folder)
    start = position(step.cursor, menu)
    for done in restaurant_db.import_menu(database, menu, step.idempotency_key, start):
        step.progress(done, len(menu.rows), "menu rows")
        step.checkpoint({"rows": done, "of": len(menu.rows), "menu": menu.digest})
        take_time(step, 0.4)
    step.context.menuImportSucceeded = True
    return len(menu.dishes)


@phase2.sub_step(
    name="syncOnboardingUser",
    retry=THREE_TIMES,
    timeout=TIMEOUT,
    optional=True,
    when=runs("syncOnboardingUser"),
    after=[create_onboarding_user, restaurant_registration],
)
def sync_onboarding_user(step: RegistrationStep, api: Api = use(registration_api)) -> str:
    return post(step, api, "syncOnboardingUser", {"name": step.input.restaurant_name})


@phase3.sub_step(name="optionSets", retry=THREE_TIMES, timeout=TIMEOUT, when=runs("optionSets"), after=[menu_import])
def option_sets(step: RegistrationStep) -> int:
    """Derive option sets from the dishes imported."""
    take_time(step, 0.3)
    return restaurant_db.derive_option_sets(restaurant_database(step.input.folder))


@phase4.sub_step(name="itemTags", retry=THREE_TIMES, timeout=TIMEOUT, when=runs("itemTags"), after=[menu_import])
def item_tags(step: RegistrationStep) -> dict[str, int]:
    """Tag the dishes imported; how many have each tag."""
    take_time(step, 0.3)
    return restaurant_db.derive_item_tags(restaurant_database(step.input.folder))


def post(step: RegistrationStep, api: Api, name: SubStepName, body: dict[str, Any]) -> str:
    """Ask the registration service for the work of that sub-step."""
    take_time(step, 0.3)
    given = step.input
    return api.post(
        given.service_url or local_service(service_folder(given.folder)),
        name,
        {"restaurant": given.restaurant_id, **body},
        key=step.idempotency_key,
        job_id=step.job_id,
        simulate=given.simulate.get(name, ""),
    )


def position(cursor: Any, menu: Menu) -> int:
    """The row to go on from: what the cursor says, unless the menu was changed since."""
    if isinstance(cursor, dict) and cursor.get("menu") == menu.digest:
        return int(cursor["rows"])
    return 0


def take_time(step: RegistrationStep, seconds: float) -> None:
    """Last as long as the work would elsewhere, so that a person can watch and interfere."""
    if step.input.pace:
        time.sleep(seconds * step.input.pace)
