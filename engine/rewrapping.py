"""Taking up a new key: the data keys of all jobs wrapped anew, what they have sealed left as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from steplog.engine.errors import SecretsClosed
from steplog.engine.keyring import Keyring, configured_keyring
from steplog.eventstore.data_keys import DataKey
from steplog.eventstore.store import Store


class Rewrapped(NamedTuple):
    """How many keys were wrapped anew, were so already, and cannot be opened with the keys that are configured."""

    rewrapped: int
    current: int
    closed: int


def rewrap(store: Store, told: Callable[[str], None] = lambda problem: None) -> Rewrapped:
    """Wrap every data key with the first of the configured keys. Raises ConfigError, SecretsClosed where there is none.

    What cannot be opened is left as it is and told.
    """
    keyring = configured_keyring()
    if keyring.first is None:
        raise SecretsClosed(None, "no key is configured")
    outcomes = {"rewrapped": 0, "current": 0, "closed": 0}
    page = store.data_keys.after()
    while page:
        for key in page:
            if key.wrapped is not None:
                outcomes[_rewrapped(store, keyring, key, told)] += 1
        page = store.data_keys.after(page[-1].job_id)
    return Rewrapped(**outcomes)


def _rewrapped(store: Store, keyring: Keyring, key: DataKey, told: Callable[[str], None]) -> str:
    assert key.wrapped is not None
    if key.wrapped.startswith(f"{keyring.first}:"):
        return "current"
    try:
        data_key = keyring.unwrap(key.job_id, key.wrapped)
    except SecretsClosed as error:
        told(str(error))
        return "closed"
    store.data_keys.rewrap(key, keyring.wrap(key.job_id, data_key))
    return "rewrapped"
