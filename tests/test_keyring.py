"""Keys as they are configured, read and never shown; and texts that known secrets are taken out of."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from secrets_world import KEYS, OTHER_KEYS

from steplog.engine.config import ConfigError, read_config
from steplog.engine.errors import SecretsClosed
from steplog.engine.keyring import Keyring, configured_keyring, new_data_key, new_key
from steplog.engine.scrubbing import scrubbed

JOB = "01a21be4-9fa4-798d-b8a2-b01ef1ca5584"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPLOG_KEYS", raising=False)


@pytest.mark.parametrize(
    "text", ["k1", "k1:", "k1:short", f"k 1:{KEYS[3:]}", f":{KEYS[3:]}", f"{KEYS},{KEYS}", f"{KEYS}, k2:{'!' * 43}"]
)
def test_wrong_keys_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Keyring.of(text, "STEPLOG_KEYS")
    assert KEYS[3:] not in str(refused.value)
    assert "short" not in str(refused.value)
    assert "!!" not in str(refused.value)
    assert "STEPLOG_KEYS" in str(refused.value)


def test_keys_come_from_the_environment_or_from_where_the_config_file_says(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert configured_keyring().first is None
    (tmp_path / "keys").write_text(f"{KEYS}\n{OTHER_KEYS}\n")
    (tmp_path / "steplog.toml").write_text('keys = "file:keys"\n')
    assert list(configured_keyring().keys) == ["k1", "k2"]
    monkeypatch.setenv("SHOP_KEYS", OTHER_KEYS)
    (tmp_path / "steplog.toml").write_text('keys = "env:SHOP_KEYS"\n')
    assert list(configured_keyring().keys) == ["k2"]
    monkeypatch.setenv("STEPLOG_KEYS", KEYS)
    assert list(configured_keyring().keys) == ["k1"]
    assert KEYS[3:] not in repr(read_config())
    assert str(Keyring.of(KEYS).keys["k1"])[2:-1] not in repr(configured_keyring())


@pytest.mark.parametrize("keys", [KEYS, "", "file:", "env:", "file:missing"])
def test_config_file_that_holds_keys_or_leads_nowhere_is_refused_and_not_shown(
    keys: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steplog.toml").write_text(f'keys = "{keys}"\n')
    if not keys:
        keys = "x"
        (tmp_path / "steplog.toml").write_text("keys = [1]\n")
    with pytest.raises(ConfigError) as refused:
        configured_keyring()
    assert KEYS[3:] not in str(refused.value)
    if ":" not in keys or keys == KEYS:  # not even by `steplog config`
        with pytest.raises(ConfigError):
            read_config()


def test_key_wraps_for_one_job_alone() -> None:
    keyring, other = Keyring.of(KEYS), Keyring.of(OTHER_KEYS)
    data_key = new_data_key()
    wrapped = keyring.wrap(JOB, data_key)
    assert Keyring.of(f"{OTHER_KEYS},{KEYS}").unwrap(JOB, wrapped) == data_key
    with pytest.raises(SecretsClosed, match="k1, which is not here"):
        other.unwrap(JOB, wrapped)
    for ring, job_id in ((keyring, "another"), (Keyring({"k1": other.keys["k2"]}), JOB)):
        with pytest.raises(SecretsClosed, match="another one"):
            ring.unwrap(job_id, wrapped)
    assert new_data_key() != data_key
    assert Keyring.of(new_key("k3")).first == "k3"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("no hunter2-and-more here", "no ******** here"),
        ("hunter2-and-morehunter2-and-more", "****************"),
        ("it began hunter2-and-mo…", "it began ********…"),
        ("nter2-and-more at the end", "******** at the end"),
        ("hunter2", "hunter2"),
        ("", ""),
    ],
)
def test_known_secret_is_taken_out_of_texts(text: str, clean: str) -> None:
    assert scrubbed(text, ["hunter2-and-more"]) == clean


def test_secret_is_taken_out_as_code_json_and_urls_write_it() -> None:
    for text, part in (('line one\nline "two" ü/é', "line"), ("x'y\"z'w", "z")):
        for written in (repr(text), json.dumps(text), json.dumps(text, ensure_ascii=False), quote(text, safe="")):
            assert part not in scrubbed(f"error: {written}!", [text])
