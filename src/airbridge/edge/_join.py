"""Trades a join token for this worker's credential, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from airbridge.edge._token_source import StoredCredential
from airbridge.errors import AirbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airbridge.credential import Credential, JoinToken

__all__ = ["trade"]

_log = structlog.get_logger("airbridge.edge.launch")


def trade(token: JoinToken, ask: Callable[[JoinToken, str], Credential], state_dir: Path) -> None:
    """Trade ``token`` with the control plane, and keep the credential in the state directory.

    The proof that goes with the join token is on the disk before it is sent: whatever happens to the answer,
    or to this host, the same exchange can be repeated.

    :param ask: sends the join token and the proof, and returns the credential
    :raises RefusedError: the join token was used by somebody else, is too old, or is none
    :raises AirbridgeError: the proof or the credential cannot be kept
    """
    stored = StoredCredential(state_dir)
    try:
        credential = ask(token, stored.proof(token))
        stored.write(credential, token)
    except OSError as error:
        raise AirbridgeError(
            f"the credential cannot be kept in {state_dir}: {error.strerror}",
            fix="make EDGE_STATE_DIR a volume that uid 50000 may write; after more than ten minutes use a "
            f"new join token: airbridge edge join-token {token.name}",
        ) from None
    _log.info("joined: this host has a credential of its own", worker=token.name)
