"""The configured keys, which wrap and unwrap the data keys of jobs, and the one place that knows of ciphers.

A value is sealed with AES-SIV (RFC 5297) under its job's data key: the same value is the same ciphertext, so that
values compare without being opened, and no nonce can be used twice. A data key is wrapped with AES-GCM.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NoBase64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from steplog.engine.config import ConfigError, read_config
from steplog.engine.errors import SecretsClosed

KEY_BYTES = 32
DATA_KEY_BYTES = 64
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_EACH = "each is `id:` and 32 random bytes in base64, as `steplog secrets new-key` makes one; commas stand between them"


class Cipher(Protocol):
    """Seals and opens the values of one job."""

    def encrypt(self, data: bytes, associated_data: list[bytes] | None) -> bytes: ...
    def decrypt(self, data: bytes, associated_data: list[bytes] | None) -> bytes: ...


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """Keys by id: the first one wraps, and any of them unwraps what it has wrapped. Empty where none is configured."""

    keys: Mapping[str, bytes]

    @staticmethod
    def of(text: str, where: str = "the keys") -> Keyring:
        """Keys as they are configured: `id:base64`, separated by commas or white space. Raises ConfigError, which
        shows nothing of them.
        """
        keys: dict[str, bytes] = {}
        for place, entry in enumerate(text.replace(",", " ").split(), 1):
            key_id, _, encoded = entry.partition(":")
            key = _bytes_of(encoded)
            if not _KEY_ID.fullmatch(key_id) or len(key) != KEY_BYTES:
                raise ConfigError(f"{where}: entry {place} is no key: {_EACH}")
            if key_id in keys:
                raise ConfigError(f"{where}: two keys have the id {key_id!r}")
            keys[key_id] = key
        return Keyring(keys)

    @property
    def first(self) -> str | None:
        """The id of the key that wraps."""
        return next(iter(self.keys), None)

    def wrap(self, job_id: str, data_key: bytes) -> str:
        """The job's data key as a store may keep it."""
        assert self.first is not None
        nonce = os.urandom(_NONCE_BYTES)
        sealed = _aead().AESGCM(self.keys[self.first]).encrypt(nonce, data_key, job_id.encode())
        return f"{self.first}:{as_text(nonce + sealed)}"

    def unwrap(self, job_id: str, wrapped: str) -> bytes:
        """The data key. Raises SecretsClosed where the key that wrapped it is not among these, or does not fit."""
        key_id, _, encoded = wrapped.partition(":")
        if key_id not in self.keys:
            known = f"configured: {', '.join(self.keys)}" if self.keys else "none is configured"
            raise SecretsClosed(job_id, f"they were sealed under key {key_id}, which is not here ({known})")
        sealed = as_bytes(encoded)
        try:
            opened: bytes = (
                _aead().AESGCM(self.keys[key_id]).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], job_id.encode())
            )
        except _invalid_tag() as error:
            raise SecretsClosed(job_id, f"key {key_id} is another one than they were sealed under") from error
        return opened


def configured_keyring() -> Keyring:
    """The keys that the environment or the config file names. Raises ConfigError, which shows nothing of them."""
    reference = read_config().keys.value
    if reference is None:
        return Keyring({})
    how, _, where = str(reference).partition(":")
    if how == "env" and where:
        return Keyring.of(os.environ.get(where, ""), where)
    if how == "file" and where:
        try:
            return Keyring.of(Path(where).read_text(encoding="utf-8"), where)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the keys cannot be read from {where}: {type(error).__name__}") from None
    raise ConfigError(f"keys names nothing behind {how}:")


def new_key(key_id: str) -> str:
    """A new key, as it is configured."""
    if not _KEY_ID.fullmatch(key_id):
        raise ConfigError(f"{key_id!r} is no key id: letters, digits, - and _")
    return f"{key_id}:{as_text(os.urandom(KEY_BYTES))}"


def new_data_key() -> bytes:
    """A job's own key."""
    return os.urandom(DATA_KEY_BYTES)


def cipher_of(data_key: bytes) -> Cipher:
    """What seals and opens values under that data key."""
    cipher: Cipher = _aead().AESSIV(data_key)
    return cipher


def is_installed() -> bool:
    """Whether the extra is there that sealing needs."""
    try:
        _aead()
    except SecretsClosed:
        return False
    return True


def as_text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def as_bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _bytes_of(encoded: str) -> bytes:
    padded = encoded + "=" * (-len(encoded) % 4)
    try:
        return b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (NoBase64, ValueError):
        return b""


def _aead() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers import aead
    except ImportError:
        raise SecretsClosed(None, "the package cryptography is missing: pip install 'steplog[secrets]'") from None
    return aead


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag
