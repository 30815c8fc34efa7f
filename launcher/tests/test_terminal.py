"""What a terminal gets to see."""

from __future__ import annotations

import base64
import io
import json
import re

import msgspec
import pytest
from PIL import Image
from rich.console import Console

from reverie_launcher.client.tracking import Link, Tracked
from reverie_launcher.terminal.graphics import Protocol, detect, encode
from reverie_launcher.terminal.halfblocks import half_blocks
from reverie_launcher.terminal.log_view import LogView, render
from reverie_launcher.terminal.progress_view import PlainProgress
from reverie_protocol.jobs import JobState, Phase


def png(width: int, height: int, kind: str = "PNG") -> bytes:
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (0, height // 2, width, height))
    output = io.BytesIO()
    image.save(output, kind)
    return output.getvalue()


def test_a_json_log_record_becomes_a_readable_line_and_keeps_all_it_says() -> None:
    record = {"event": "job done", "level": "info", "timestamp": 0, "job_id": "abc", "steps": 4, "ok": True}
    text = render(json.dumps(record)).plain
    assert re.fullmatch(r"\d\d:\d\d:\d\d job done  job_id=abc  steps=4  ok=true", text)


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "{not json", '["event"]', "12", ""])
def test_a_line_that_is_no_record_stays_as_it_is(line: str) -> None:
    assert render(line).plain == line


def test_escape_codes_of_a_child_do_not_reach_the_terminal() -> None:
    assert render("\x1b[2J\x1b]0;title\x07plain\x07").plain == "]0;titleplain"
    assert "\x1b" not in render(json.dumps({"event": "x\x1b[31m", "key": "\x1b[2Jy"})).plain


def test_lines_are_prefixed_and_plain_where_there_is_no_terminal() -> None:
    output = io.StringIO()
    view = LogView(Console(file=output, width=40), ("gateway", "nats"))
    view.line("nats", "x" * 100)
    view.warning("gateway", "[bold]exited[/bold] with code 1")
    assert output.getvalue() == f"   nats │ {'x' * 100}\ngateway │ [bold]exited[/bold] with code 1\n"


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, Protocol.KITTY),
        ({"TERM_PROGRAM": "iTerm.app"}, Protocol.ITERM2),
        ({"TERM_PROGRAM": "WezTerm"}, Protocol.ITERM2),
        ({"TERM": "foot"}, Protocol.SIXEL),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "/tmp/x"}, None),
        ({}, None),
    ],
)
def test_the_graphics_protocol_is_known_from_the_environment(
    environment: dict[str, str], protocol: Protocol | None
) -> None:
    assert detect(environment) is protocol


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_kitty_gets_a_png_in_chunks_of_which_only_the_last_says_so(kind: str) -> None:
    noise = Image.effect_noise((128, 128), 90)
    source = io.BytesIO()
    noise.save(source, kind)
    codes = re.findall(
        r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", encode(Protocol.KITTY, source.getvalue(), columns=40)
    )
    assert all(len(chunk) <= 4096 for _, chunk in codes)
    assert [control[-3:] for control, _ in codes] == ["m=1"] * (len(codes) - 1) + ["m=0"] or "m=" in codes[0][
        0
    ]
    picture = base64.b64decode("".join(chunk for _, chunk in codes))
    assert Image.open(io.BytesIO(picture)).format == "PNG"


def test_iterm_gets_the_file_itself() -> None:
    code = encode(Protocol.ITERM2, png(8, 8), columns=40)
    assert base64.b64decode(code.removesuffix("\a").rpartition(":")[2]) == png(8, 8)


def test_sixel_draws_every_pixel_in_its_colour() -> None:
    code = encode(Protocol.SIXEL, png(9, 14), columns=40)
    red, blue = (100, 0, 0), (0, 0, 100)
    assert read_sixel(code) == {(x, y): red if y < 7 else blue for x in range(9) for y in range(14)}


def read_sixel(code: str) -> dict[tuple[int, int], tuple[int, int, int]]:
    """The pixels that a sixel terminal would draw, colours in percent."""
    body = re.fullmatch(r'\x1bPq"1;1;\d+;\d+(.*)\x1b\\', code).group(1)
    palette: dict[int, tuple[int, int, int]] = {}
    pixels: dict[tuple[int, int], tuple[int, int, int]] = {}
    x = top = colour = 0
    for token in re.finditer(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)(.)|([?-~])|([$-])", body):
        number, red, green, blue, use, run, symbol, single, move = token.groups()
        if number is not None:
            palette[int(number)] = (int(red), int(green), int(blue))
        elif use is not None:
            colour = int(use)
        elif move is not None:
            x, top = 0, top + 6 * (move == "-")
        else:
            drawn, bits = range(x, x + int(run or 1)), ord(symbol or single) - 63
            pixels |= {(at, top + y): palette[colour] for at in drawn for y in range(6) if bits >> y & 1}
            x = drawn.stop
    return pixels


def test_half_blocks_keep_the_shape_and_the_colours() -> None:
    text = half_blocks(png(64, 32), columns=40, rows=16)
    assert text is not None
    lines = text.plain.split("\n")
    assert (len(lines), len(lines[0])) == (10, 40)
    first = text.spans[0].style
    assert "rgb" in str(first) or "#ff0000" in str(first)


def test_a_preview_that_cannot_be_decoded_is_left_out() -> None:
    assert half_blocks(b"no picture", columns=40, rows=16) is None


def test_without_a_terminal_progress_is_a_line_per_stage_and_one_now_and_then() -> None:
    lines: list[str] = []
    now = 0.0
    view = PlainProgress(lines.append, clock=lambda: now)
    job = Tracked(job_id="a", state=JobState.QUEUED, link=Link.CONNECTED)
    view.show(job)
    for step in range(1, 13):
        now = float(step)
        job = msgspec.structs.replace(
            job, state=JobState.RUNNING, attempt=1, phase=Phase.DENOISING, step=step, steps=12
        )
        view.show(job)
    assert lines == [
        "waiting in the queue",
        "denoising, step 1 of 12",
        "denoising, step 6 of 12",
        "denoising, step 11 of 12",
    ]
