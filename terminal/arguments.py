"""What people write on the command line, as values: a job's input, parameters, tags, versions and times."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from steplog.eventstore.store import HeadQuery, Store
from steplog.terminal.reading import version_at
from steplog.terminal.times import instant_of, moment_of

_PARAMETER = re.compile(r"([^:=]+)(:?=)(.*)", re.DOTALL)


def read_input(given: str | None, parameters: Sequence[str]) -> Any:
    """The input of `--input` (JSON, `@file` or `-`) with the parameters of `-P` on top; None where neither is given."""
    value = None if given is None else read_document(given, "--input")
    if not parameters:
        return value
    if value is not None and not isinstance(value, dict):
        raise click.UsageError("-P adds fields to an input that is an object, and --input is none")
    return {**(value or {}), **read_fields(parameters)}


def read_fields(parameters: Sequence[str], option: str = "-P") -> dict[str, Any]:
    """`k=v` and `k:=JSON` of each."""
    return dict(_parameter(text, option) for text in parameters)


def read_document(given: str, option: str) -> Any:
    """JSON, `@file` or `-`."""
    return _json(_text(given, option), option)


def read_tags(tags: Sequence[str]) -> dict[str, str]:
    """`k=v` of each."""
    for tag in tags:
        if "=" not in tag:
            raise click.BadParameter(f"{tag!r} is not k=v", param_hint="'--tag'")
    return {name: value for name, _, value in (tag.partition("=") for tag in tags)}


def read_query(filters: Mapping[str, Any], before: str | None, limit: int, now: str) -> HeadQuery:
    """The filters of `ls`; there is one more job than the limit if there is another page."""
    given = dict(filters)
    since = given.pop("since")
    tags = read_tags(given.pop("tags"))
    at = _instant(since, now, "--since") if since else None
    return HeadQuery(**given, tags=tags, since=at, before=before, limit=limit + 1)


def read_version(store: Store, job_id: str, at: str, option: str = "--at") -> int:
    """The job's version that a number or a time names."""
    last = store.head(job_id).version
    given = int(at) if at.isdecimal() else version_at(store, job_id, _instant(at, store.now(), option))
    if not 1 <= given <= last:
        raise click.BadParameter(f"{at} is none of the job's versions 1 to {last}", param_hint=f"'{option}'")
    return given


def read_moment(text: str, now: str, option: str) -> datetime:
    """The time to come that was named."""
    try:
        return datetime.fromisoformat(moment_of(text, now))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error), param_hint=f"'{option}'") from None


def _instant(text: str, now: str, option: str) -> str:
    try:
        return instant_of(text, now)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error), param_hint=f"'{option}'") from None


def _parameter(text: str, option: str) -> tuple[str, Any]:
    """`k=v` is a string, `k:=v` JSON."""
    match = _PARAMETER.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is neither k=v nor k:=JSON", param_hint=f"'{option}'")
    name, how, value = match.groups()
    return name, value if how == "=" else _json(value, f"{option} {name}")


def _text(given: str, option: str) -> str:
    if given == "-":
        return sys.stdin.read()
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{given[1:]}: {error}", param_hint=f"'{option}'") from error


def _json(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(
            f"{error}: {text[:40]!r} is no JSON: text goes in quotes, '\"…\"'", param_hint=f"'{option}'"
        ) from None
