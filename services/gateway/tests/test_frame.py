"""Frames as a client's own WebSocket library reads them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from reverie_gateway.frame import binary_frame, payload_of, text_frame

#: Around the lengths at which the header changes its size.
LENGTHS = st.one_of(st.integers(0, 300), st.integers(65_500, 65_600), st.just(1 << 20))


def parsed(data: bytes) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=False)
    try:
        while True:
            next(parsing)
    except StopIteration as end:
        frame: Frame = end.value
    assert not reader.buffer
    return frame


@given(length=LENGTHS, byte=st.binary(min_size=1, max_size=1), is_text=st.booleans())
def test_a_client_reads_what_was_framed(length: int, byte: bytes, is_text: bool) -> None:
    payload = byte * length
    data = text_frame(payload) if is_text else binary_frame(payload)
    frame = parsed(data)
    assert (frame.opcode, frame.fin) == (Opcode.TEXT if is_text else Opcode.BINARY, True)
    assert bytes(frame.data) == payload == payload_of(data)
