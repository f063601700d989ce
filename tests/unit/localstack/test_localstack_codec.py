"""The JSON text that S3 state is stored as."""

from __future__ import annotations

import datetime
import json
from enum import StrEnum
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airbridge.errors import IntegrityError
from airbridge.localstack._codec import Codec

MOMENTS = st.datetimes(timezones=st.sampled_from([datetime.UTC, ZoneInfo("GMT"), ZoneInfo("Europe/Berlin")]))
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | MOMENTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.just("$"), inner)
        | st.dictionaries(st.integers(), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_codec_returns_what_it_was_given(state: dict[str, object]) -> None:
    codec = Codec()
    text = codec.dumps(state)
    assert codec.loads(text) == state
    assert codec.dumps(codec.loads(text)) == text
    json.loads(text)


def test_codec_keeps_the_time_zone_of_a_moment() -> None:
    moment = datetime.datetime.now(tz=ZoneInfo("GMT"))
    loaded = Codec().loads(Codec().dumps({"at": moment}))["at"]
    assert loaded.tzinfo == ZoneInfo("GMT")


def test_codec_keeps_the_identity_of_constants_and_nothing_else() -> None:
    default = {"SSEAlgorithm": "AES256"}
    codec = Codec({"DEFAULT": default})
    loaded = codec.loads(codec.dumps({"rule": default, "copy": dict(default)}))
    assert loaded["rule"] is default
    assert loaded["copy"] == default
    assert loaded["copy"] is not default


def test_codec_stores_enumerations_as_their_text() -> None:
    class Payer(StrEnum):
        OWNER = "BucketOwner"

    assert Codec().loads(Codec().dumps({"payer": Payer.OWNER})) == {"payer": "BucketOwner"}


def test_codec_refuses_what_it_could_not_read_back() -> None:
    with pytest.raises(TypeError, match="cannot store a object"):
        Codec().dumps({"thing": object()})


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a":{"$":"datetime","v":1}}', '{"a":{"$":"what","v":1}}', '{"a":{"$":1}}']
)
def test_codec_says_that_damaged_text_is_not_readable(text: str) -> None:
    with pytest.raises(IntegrityError, match="stored S3 state is not readable"):
        Codec().loads(text)
