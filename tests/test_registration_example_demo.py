"""The demo, as `make demo` runs it: a worker killed with SIGKILL inside phase 2, resumed, every effect counted once."""

from __future__ import annotations

from contextlib import closing
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest

from steplog import open_store
from steplog.eventstore.store import HeadQuery
from steplog.examples.registration import demo
from steplog.examples.registration.effects import Account, KeyEffects
from steplog.examples.registration.telling import Teller, short_url


def test_killed_worker_is_resumed_and_every_effect_counted_once(tmp_path: Path) -> None:
    out = StringIO()
    assert demo.run_demo(tmp_path, out=out) == 0, out.getvalue()
    with closing(open_store(f"sqlite:///{tmp_path / demo.STORE_FILE}")) as store:
        (head,) = store.heads(HeadQuery())
        events = list(store.read(head.job_id))
    assert head.columns.status == "completed"
    interrupted = {event.data["sub_step"] for event in events if event.type == "SubStepInterrupted"}
    assert "menuImport" in interrupted
    claims = [event.data["worker_id"] for event in events if event.type == "JobClaimed"]
    assert len(set(claims)) == 2
    rows = [event.data["cursor"]["rows"] for event in events if event.type == "SubStepCheckpointed"]
    assert rows == sorted(rows), "the import went back behind a checkpoint"
    assert [event.data["attempt"] for event in events if event.type == "SubStepFailed"] == [1, 1, 2, 3]
    printed = out.getvalue()
    for line in ("✗ kill -9", "↻ new process", "✓ phase4", "no completed sub-step ran again", "show @last --at"):
        assert line in printed


def test_worker_that_ends_too_early_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STEPLOG", ("false",))
    with pytest.raises(demo.DemoFailed, match="ended too early, with exit code 1"):
        demo.run_demo(tmp_path, out=StringIO())


def test_terminal_without_unicode_gets_ascii() -> None:
    out = TextIOWrapper(BytesIO(), encoding="latin-1")
    account = Account(
        [KeyEffects("phase1/é", "key", attempts=1, requests=["2026"], performed=2)], None, ["é ran twice"]
    )
    Teller(out).effects(account)
    out.seek(0)
    printed = out.read()
    assert printed.isascii()
    assert " x phase1/?" in printed
    assert " x ? ran twice" in printed


def test_store_below_the_current_folder_is_named_as_one_would_type_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'demo' / 'log.db'}"
    assert short_url(url) == url
    monkeypatch.chdir(tmp_path)
    assert short_url(url) == "sqlite:///demo/log.db"
