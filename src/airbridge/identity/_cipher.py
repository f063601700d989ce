"""Worker secrets at rest: encrypted with the control plane's Fernet key.

They cannot be hashes: a worker proves its secret with an HMAC, which takes the secret itself to check.
"""

from __future__ import annotations

from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from airbridge.errors import IntegrityError, SettingsError

__all__ = ["Cipher"]

_VARIABLE: Final = "AIRFLOW__CORE__FERNET_KEY"


class Cipher:
    """Encrypts and decrypts with ``[core] fernet_key``: one key, or several with commas, the newest first."""

    def __init__(self, keys: str) -> None:
        parts = [key.strip() for key in keys.split(",") if key.strip()]
        if not parts:
            raise SettingsError(f"{_VARIABLE} is not set", fix="mount the control secrets, or set it")
        try:
            self._fernet = MultiFernet([Fernet(part) for part in parts])
        except ValueError:
            raise SettingsError(
                f"{_VARIABLE} holds no Fernet key", fix="32 bytes in URL-safe base64; make up makes one"
            ) from None

    def encrypt(self, secret: str) -> str:
        """Return what may be stored."""
        return self._fernet.encrypt(secret.encode()).decode("ascii")

    def renew(self, stored: str) -> str:
        """Return the same, encrypted with the newest key.

        :raises IntegrityError: it was encrypted with another key
        """
        return self.encrypt(self.decrypt(stored))

    def decrypt(self, stored: str) -> str:
        """Return the secret.

        :raises IntegrityError: it was encrypted with another key
        """
        try:
            return self._fernet.decrypt(stored.encode()).decode()
        except InvalidToken:
            raise IntegrityError(
                "the secrets of the edge workers were encrypted with another Fernet key",
                fix="give the old key back (fernet-key); to change it see docs/operations.md",
            ) from None
