"""Where settings come from: an option, the environment, a config file here, or the default; never data."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steplog.eventstore.errors import SteplogError

DEFAULT_URL = "sqlite:///steplog.db"
CONFIG_FILE = "steplog.toml"
_SETTINGS = dict.fromkeys(("database_url", "modules", "report_table", "notify", "keys"))


class ConfigError(SteplogError):
    """The config file cannot be used."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it came from."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Config:
    """What the CLI and `run` go by."""

    database_url: Setting
    modules: Setting
    report_table: Setting
    """The table of a page's own that takes the place of ours; None is ours."""
    notify: Setting
    """Webhooks that are told what becomes of jobs, each a table of the config file."""
    keys: Setting
    """Where the keys to secrets stand, `env:NAME` or `file:PATH`; None where there are none. Never the keys."""


def read_config(
    *,
    db: str | None = None,
    modules: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Config:
    """Options win over the environment, that over `steplog.toml` in the folder, that over the defaults.

    Raises ConfigError for a file that cannot be read.
    """
    given = os.environ if environment is None else environment
    path = (folder or Path()) / CONFIG_FILE
    in_file = _read_file(path)
    return Config(
        database_url=_first(
            (db, "--db"),
            (given.get("STEPLOG_DATABASE_URL"), "STEPLOG_DATABASE_URL"),
            (in_file.get("database_url"), str(path)),
            (DEFAULT_URL, "default"),
        ),
        modules=_first(
            (list(modules), "--module"),
            (given.get("STEPLOG_MODULES", "").replace(",", " ").split(), "STEPLOG_MODULES"),
            (in_file.get("modules"), str(path)),
            ([], "default"),
        ),
        report_table=_first(
            (given.get("STEPLOG_REPORT_TABLE"), "STEPLOG_REPORT_TABLE"),
            (in_file.get("report_table"), str(path)),
            (None, "default"),
        ),
        notify=_first((in_file.get("notify"), str(path)), ([], "default")),
        keys=_first(
            ("env:STEPLOG_KEYS" if given.get("STEPLOG_KEYS") else None, "STEPLOG_KEYS"),
            (_reference(in_file.get("keys"), path), str(path)),
            (None, "default"),
        ),
    )


def store_url() -> str:
    """The URL of the store that the CLI would use here."""
    return str(read_config().database_url.value)


def _first(*candidates: tuple[Any, str]) -> Setting:
    for value, origin in candidates:
        if value:
            return Setting(value, origin)
    return Setting(*candidates[-1])


def _reference(keys: Any, path: Path) -> Any:
    """Where keys stand. Raises ConfigError, which shows nothing of what stands there instead."""
    if keys is not None and not (isinstance(keys, str) and keys.startswith(("env:", "file:"))):
        raise ConfigError(
            f"{path}: keys says where the keys stand, `env:NAME` or `file:PATH`, never the keys themselves"
        )
    return keys


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: {error}") from error
    unknown = read.keys() - _SETTINGS
    if unknown:
        known = ", ".join(_SETTINGS)
        raise ConfigError(f"{path}: unknown setting {', '.join(sorted(unknown))} (known: {known})")
    return read
