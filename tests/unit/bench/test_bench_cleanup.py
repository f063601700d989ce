from __future__ import annotations

import pytest
from bench._cleanup import removing

from airbridge.errors import AirbridgeError, UnreachableError


def _fail() -> None:
    raise AirbridgeError("cannot remove it")


def test_removal_follows_a_good_end_and_a_bad_one():
    removed: list[str] = []
    with removing(lambda: removed.append("good")):
        assert not removed
    with pytest.raises(KeyboardInterrupt), removing(lambda: removed.append("bad")):
        raise KeyboardInterrupt
    assert removed == ["good", "bad"]


def test_failed_removal_is_an_error_after_a_good_end():
    with pytest.raises(AirbridgeError, match="cannot remove"), removing(_fail):
        pass


def test_failed_removal_does_not_hide_the_cause(capsys):
    with pytest.raises(UnreachableError, match="the cause"), removing(_fail):
        raise UnreachableError("the cause")
    assert "cannot remove it" in capsys.readouterr().out
