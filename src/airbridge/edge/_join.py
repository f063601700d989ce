"""Trades a join token for this worker's credential and client certificate, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from airbridge.client_certificate import new_request
from airbridge.edge._client_certificate import keep_certificate
from airbridge.errors import AirbridgeError
from airbridge.token_source import StoredCredential

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airbridge.credential import JoinToken
    from airbridge.edge._control_plane import Joined

__all__ = ["trade"]

_log = structlog.get_logger("airbridge.edge.launch")


def trade(token: JoinToken, ask: Callable[[JoinToken, str, str, str], Joined], state_dir: Path) -> None:
    """Trade ``token`` with the control plane, and keep credential and certificate in the state directory.

    The proof that goes with the join token is on the disk before it is sent: whatever happens to the answer,
    or to this host, the same exchange can be repeated.

    :param ask: sends the join token, the proof and a certificate request for a key, and returns what it is
        traded for
    :raises RefusedError: the join token was used by somebody else, is too old, or is none
    :raises AirbridgeError: proof, credential or certificate cannot be kept
    """
    stored = StoredCredential(state_dir)
    try:
        joined = ask(token, stored.proof(token), *new_request(token.name))
        if joined.certificate is not None:
            # Before the credential: whoever finds that one is done with joining.
            keep_certificate(joined.certificate, state_dir)
        stored.write(joined.credential, token)
    except OSError as error:
        raise AirbridgeError(
            f"the credential cannot be kept in {state_dir}: {error.strerror}",
            fix="make EDGE_STATE_DIR a volume that uid 50000 may write; after more than ten minutes use a "
            f"new join token: airbridge edge join-token {token.name}",
        ) from None
    _log.info("joined: this host has a credential of its own", worker=token.name)
