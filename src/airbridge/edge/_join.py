"""Trades a join token for this worker's credential, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from airbridge.errors import AirbridgeError
from airbridge.token_source import StoredCredential

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airbridge.credential import Credential, JoinToken

__all__ = ["trade"]

_log = structlog.get_logger("airbridge.edge.launch")


def trade(token: JoinToken, ask: Callable[[JoinToken], Credential], state_dir: Path) -> None:
    """Trade ``token`` with the control plane, and keep the credential in the state directory.

    :param ask: sends the join token, and returns the credential
    :raises RefusedError: the join token was used, is too old, or is none
    :raises AirbridgeError: the credential cannot be kept; the join token is used up then
    """
    credential = ask(token)
    try:
        StoredCredential(state_dir).write(credential, token)
    except OSError as error:
        raise AirbridgeError(
            f"the credential cannot be kept in {state_dir}: {error.strerror}",
            fix="make EDGE_STATE_DIR a volume that uid 50000 may write, then use a new join token: "
            f"airbridge edge join-token {token.name}",
        ) from None
    _log.info("joined: this host has a credential of its own", worker=token.name)
