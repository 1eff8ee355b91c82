"""Messages between players and their supervisors."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daf_cogames.evaluation.frames import EPISODE, SEATS, BrokenFrame, Frames, receive_object, send, send_object


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.integers(1, 20))
def test_messages_come_whole_in_whatever_pieces(payloads: list[bytes], piece: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for payload in payloads:
            send(ours, EPISODE, payload)
        ours.shutdown(socket.SHUT_WR)
        frames, come = Frames(), []
        while data := theirs.recv(piece):
            come += frames.feed(data)
    assert come == [(EPISODE, payload) for payload in payloads]


def test_a_size_that_no_message_has_is_refused_before_it_is_read() -> None:
    with pytest.raises(BrokenFrame):
        list(Frames().feed(struct.pack("=cI", SEATS, 2**32 - 1)))


def test_objects_come_until_the_other_side_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            send_object(ours, {"a": 1})
        assert receive_object(theirs) == {"a": 1}
        with pytest.raises(EOFError):
            receive_object(theirs)
