"""Compressed answers: whatever comes is decoded in small pieces."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.net.decoding import PIECE_BYTES_MAX, decoder_for
from homeserver.net.errors import AnswerInvalid


def decode(encoding: str, *data: bytes) -> list[bytes]:
    decoder = decoder_for(encoding)
    pieces = [piece for part in data for piece in decoder.decode(part)]
    decoder.finish()
    return pieces


@given(st.lists(st.binary(max_size=300_000), max_size=3), st.integers(1, 100_000), st.integers(1, 2000))
def test_gzip_comes_back_whatever_the_pieces(members: list[bytes], repeat: int, step: int) -> None:
    contents = [member * min(repeat, 3) for member in members]
    encoded = b"".join(gzip.compress(content) for content in contents)
    pieces = decode("gzip", *(encoded[at : at + step] for at in range(0, len(encoded), step)))
    assert b"".join(pieces) == b"".join(contents)


def test_a_bomb_is_decoded_no_further_than_it_is_wanted() -> None:
    decoder = decoder_for("GZIP")
    bomb = gzip.compress(bytes(200_000_000))
    pieces = decoder.decode(bomb)
    assert [len(next(pieces)) for _ in range(3)] == [PIECE_BYTES_MAX] * 3


def test_pieces_are_small_without_compression_too() -> None:
    assert [len(piece) for piece in decode("", bytes(150_000))] == [65_536, 65_536, 18_928]


@pytest.mark.parametrize(
    "data",
    [b"not gzip", gzip.compress(b"whole")[:-1], gzip.compress(b"one") + b"rest"],
    # What is compressed tells the time: tests must have the same names in all processes.
    ids=["not gzip", "cut off", "followed by something"],
)
def test_damaged_data_is_refused(data: bytes) -> None:
    with pytest.raises(AnswerInvalid):
        decode("gzip", data)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x" * 1000])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(AnswerInvalid):
        decoder_for(encoding)
