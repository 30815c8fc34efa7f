"""Pictures in full quality on terminals with a graphics protocol: kitty, iTerm2, sixel.

Which one a terminal speaks is told by its environment alone: a question to the terminal would have to read the
keyboard.  Inside tmux and screen there is none, because they pass nothing on by default.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from enum import Enum

KITTY_CHUNK = 4096  # kitty's protocol: at most 4096 bytes of base64 per escape code
SIXEL_COLOURS = 256
SIXEL_MAX_SIDE_PX = 640


class Protocol(Enum):
    """How a picture is sent to a terminal."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"


def detect(environment: Mapping[str, str]) -> Protocol | None:
    """The graphics protocol of the terminal, None if it has none that we know of."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return None
    if "KITTY_WINDOW_ID" in environment or term == "xterm-kitty" or program.lower() == "ghostty":
        return Protocol.KITTY
    if program in ("iTerm.app", "WezTerm", "mintty", "vscode") or "ITERM_SESSION_ID" in environment:
        return Protocol.ITERM2
    if term.startswith(("foot", "mlterm", "contour", "yaft")):
        return Protocol.SIXEL
    return None


def encode(protocol: Protocol, picture: bytes, *, columns: int) -> str:
    """Escape codes that draw an encoded picture about that many characters wide."""
    match protocol:
        case Protocol.KITTY:
            return "".join(_kitty(picture, columns))
        case Protocol.ITERM2:
            data = base64.b64encode(picture).decode()
            size = f"size={len(picture)};width={columns};preserveAspectRatio=1"
            return f"\x1b]1337;File=inline=1;{size}:{data}\a"
        case Protocol.SIXEL:
            return _sixel(picture)


def _kitty(picture: bytes, columns: int) -> Iterator[str]:
    data = base64.b64encode(_as_png(picture)).decode()
    chunks = [data[start : start + KITTY_CHUNK] for start in range(0, len(data), KITTY_CHUNK)]
    for index, chunk in enumerate(chunks):
        # a=T show at once, f=100 PNG, q=2 no answer (it would land in the shell's input), m=1 more follows
        control = f"a=T,f=100,q=2,c={columns}," if index == 0 else "q=2,"
        yield f"\x1b_G{control}m={int(index < len(chunks) - 1)};{chunk}\x1b\\"


def _as_png(picture: bytes) -> bytes:
    if picture.startswith(b"\x89PNG"):
        return picture
    from PIL import Image

    output = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.save(output, "PNG")
    return output.getvalue()


def _sixel(picture: bytes) -> str:
    """DEC sixel: rows of six pixels; in each row one pass per colour, run-length encoded."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        image.thumbnail((SIXEL_MAX_SIDE_PX, SIXEL_MAX_SIDE_PX))
        indexed = image.convert("RGB").quantize(SIXEL_COLOURS)
    width, height = indexed.size
    palette = indexed.getpalette() or []
    pixels = indexed.tobytes()
    parts = [f'\x1bPq"1;1;{width};{height}']
    for number in range(len(palette) // 3):
        red, green, blue = (round(value * 100 / 255) for value in palette[number * 3 : number * 3 + 3])
        parts.append(f"#{number};2;{red};{green};{blue}")
    for top in range(0, height, 6):
        rows = [pixels[y * width : (y + 1) * width] for y in range(top, min(top + 6, height))]
        passes = (f"#{colour}{_sixel_pass(rows, colour)}" for colour in sorted(set(b"".join(rows))))
        parts.append("$".join(passes) + "-")
    return "".join(parts) + "\x1b\\"


def _sixel_pass(rows: list[bytes], colour: int) -> str:
    bits = [sum((row[x] == colour) << y for y, row in enumerate(rows)) for x in range(len(rows[0]))]
    parts: list[str] = []
    start = 0
    for x in range(1, len(bits) + 1):
        if x == len(bits) or bits[x] != bits[start]:
            run, symbol = x - start, chr(63 + bits[start])
            parts.append(f"!{run}{symbol}" if run > 3 else symbol * run)
            start = x
    return "".join(parts)
