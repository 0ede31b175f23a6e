"""The secrets of one job: the one place where they are sealed on their way to the log, and opened for its handlers.

Each job has a data key of its own, kept in the store wrapped by a configured key, and named in what it seals; so a
fork's copies are opened by its parent's key, and where a key was destroyed nothing of it is readable anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import SecretsClosed, SecretsErased
from steplog.engine.keyring import (
    Cipher,
    Keyring,
    as_bytes,
    as_text,
    cipher_of,
    configured_keyring,
    is_installed,
    new_data_key,
)
from steplog.engine.scrubbing import Scrubber
from steplog.engine.secret_values import NOT_IN_PLAIN
from steplog.eventstore.codec import encode
from steplog.eventstore.data_keys import DataKey, DataKeys
from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.sealed import Sealed
from steplog.eventstore.store import Store

PLAIN_CHARS_MIN = 8
"""How long a secret is at least for a value to be refused that has its text in plain."""

_TEXT = b"t"
"""What a sealed value begins with inside: another letter will be another kind."""
_PURPOSE = b"steplog sealed value"


class Vault:
    """Seals and opens the secrets of one job, from any thread, and knows those that it has seen."""

    def __init__(
        self, job_id: str, data_keys: DataKeys | None, keyring: Callable[[], Keyring] = configured_keyring
    ) -> None:
        self.job_id = job_id
        self._data_keys = data_keys
        self._keyring = keyring
        self._known: dict[str, DataKey | None] = {}
        self._ciphers: dict[str, Cipher] = {}
        self._texts: set[str] = set()
        self._scrubber = (0, Scrubber(()))
        """For so many of these texts."""
        self._wrapped: str | None = None

    def of_attempt(self) -> Vault:
        """A vault with the same keys, which goes on from the secrets that this one has seen."""
        other = Vault(self.job_id, self._data_keys, self._keyring)
        other._known, other._ciphers, other._texts = self._known, self._ciphers, set(self._texts)
        return other

    # --- seal and open -----------------------------------------------------------------------------------------------

    def seal(self, text: str, path: str) -> dict[str, str]:
        """The value as the log keeps it. Raises PayloadRefused with the path where no key is configured."""
        cipher = self._ciphers.get(self.job_id) or self._own_cipher(path)
        self._texts.add(text)
        sealed = cipher.encrypt(_TEXT + text.encode(), [_PURPOSE, self.job_id.encode()])
        return Sealed(self.job_id, as_text(sealed)).document

    def open(self, sealed: Sealed) -> str:
        """The value in plain. Raises SecretsClosed, SecretsErased."""
        cipher = self._ciphers.get(sealed.job_id) or self._cipher(sealed.job_id)
        try:
            opened = cipher.decrypt(as_bytes(sealed.ciphertext), [_PURPOSE, sealed.job_id.encode()])
        except Exception as error:  # no base64, too short, another key: all are one to whoever wants it opened
            raise SecretsClosed(self.job_id, "a sealed value does not fit its key") from error
        text = opened[len(_TEXT) :].decode()
        self._texts.add(text)
        return text

    @property
    def has_key(self) -> bool:
        """Whether the job has a key of its own, or had one."""
        return self._row(self.job_id) is not None

    def known_keys(self) -> list[list[str]]:
        """The keys that are at hand, wrapped, each with its job: for a vault in another process."""
        found = [(job_id, key.wrapped) for job_id, key in self._known.items() if key is not None]
        return [[job_id, wrapped] for job_id, wrapped in found if wrapped is not None]

    def prepare(self) -> Self:
        """Have the job's key at hand, so that nothing is read or written later; where it can be had."""
        known = self._row(self.job_id)
        if known is not None and known.wrapped is not None:
            self._cipher(self.job_id)
        elif known is None and is_installed() and self._keyring().first is not None:
            self._own_cipher("")
        return self

    def key_of_new_job(self) -> str | None:
        """The wrapped key of a job that is about to be created; None where no key is configured and none was needed."""
        if self._wrapped is None and is_installed() and self._keyring().first is not None:
            self._own_cipher("")
        return self._wrapped

    def keep_in(self, data_keys: DataKeys) -> None:
        """The job is there from now on, and its key with it."""
        self._data_keys = data_keys

    def _own_cipher(self, path: str) -> Cipher:
        """The cipher of the job's own key, which is made where it has none yet."""
        if self._row(self.job_id) is not None:
            return self._cipher(self.job_id)
        keyring = self._keyring()
        if keyring.first is None or not is_installed():
            raise PayloadRefused(path, NOT_IN_PLAIN)
        data_key = new_data_key()
        wrapped = keyring.wrap(self.job_id, data_key)
        if self._data_keys is None:
            self._wrapped, self._ciphers[self.job_id] = wrapped, cipher_of(data_key)
            self._known[self.job_id] = DataKey(self.job_id, wrapped)
            return self._ciphers[self.job_id]
        self._known[self.job_id] = self._data_keys.add(self.job_id, wrapped)
        return self._cipher(self.job_id)

    def _cipher(self, job_id: str) -> Cipher:
        row = self._row(job_id)
        if row is None:
            raise SecretsClosed(self.job_id, f"the key of job {job_id} that they were sealed with is not in this store")
        if row.wrapped is None:
            raise SecretsErased(self.job_id, job_id, row.erased_at)
        self._ciphers[job_id] = cipher_of(self._keyring().unwrap(job_id, row.wrapped))
        return self._ciphers[job_id]

    def _row(self, job_id: str) -> DataKey | None:
        if self._known.get(job_id) is None and self._data_keys is not None:
            self._known[job_id] = self._data_keys.find(job_id)
        return self._known.get(job_id)

    # --- what it has seen --------------------------------------------------------------------------------------------

    def learn(self, texts: Iterable[str]) -> None:
        """Know these secrets too."""
        self._texts.update(texts)

    def scrub(self, text: str) -> str:
        """The text without the secrets that this vault has seen."""
        if not self._texts:
            return text
        known, scrubber = self._scrubber
        if known != len(self._texts):
            texts = tuple(self._texts)
            self._scrubber = _, scrubber = len(texts), Scrubber(texts)
        return scrubber.scrub(text)

    def refuse_plain(self, encoded: bytes, path: str) -> None:
        """Raise PayloadRefused where canonical JSON has a secret in plain that this vault has seen."""
        for text in tuple(self._texts):
            if len(text) >= PLAIN_CHARS_MIN and encode([text])[2:-2] in encoded:
                raise PayloadRefused(path, "it has a secret in plain: declare it SecretStr where it stands")


def new_vault(job_id: str) -> Vault:
    """The vault of a job that is about to be created: its key is stored with it."""
    return Vault(job_id, None)


def vault_with(job_id: str, known: Iterable[DataKey]) -> Vault:
    """The vault of a job that is there, where no store is at hand but these keys."""
    vault = Vault(job_id, None)
    vault._known.update((key.job_id, key) for key in known)
    return vault


def vault_of(store: Store, job_id: str, definition: AnyDefinition | None) -> Vault:
    """The vault of a job that is there, with its key at hand if the code says that it may have secrets."""
    vault = Vault(job_id, store.data_keys)
    return vault.prepare() if definition is not None and definition.declares_secrets else vault


class InClear:
    """Stands in for a vault where nothing is recorded: what was sealed is opened without any key."""

    def seal(self, text: str, path: str) -> dict[str, Any]:
        return Sealed("", text).document

    def open(self, sealed: Sealed) -> str:
        return sealed.ciphertext

    def refuse_plain(self, encoded: bytes, path: str) -> None:
        """Nothing is recorded."""
