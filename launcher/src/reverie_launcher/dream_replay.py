"""`reverie dreams replay`: the choices of a session made again, and its best drawn again."""

from __future__ import annotations

import io

import msgspec
from PIL import Image, ImageChops

from reverie_launcher.client.address import Address
from reverie_launcher.client.http import HttpClient
from reverie_launcher.dream_view import found
from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.generate import followed, outputs_of
from reverie_launcher.terminal.progress_view import PlainProgress
from reverie_protocol.dreams import DreamCandidate

#: Largest difference of a channel, of 255, at which pictures count as the same: batches of other sizes round apart.
SAME = 8


class Redrawn(msgspec.Struct, frozen=True, rename="camel"):
    """One of the best, drawn again: the largest difference of any channel, 0 to 255."""

    id: int
    difference: int


async def replay(address: Address, session: str, *, pictures: int, as_json: bool) -> None:
    """Compare; Failure if a candidate or a picture comes out otherwise."""
    async with HttpClient(address) as http:
        session_id = await found(http, session)
        replayed = await http.replay_dream(session_id)
        view = await http.dream(session_id)
        page = await http.dream_top(session_id, {"limit": str(max(1, pictures)), "rendered_only": "true"})
        steps = view.guidance.num_inference_steps or view.plan.num_inference_steps
        drawn = [
            Redrawn(candidate.id, await _difference(http, candidate, view.plan.size, steps))
            for candidate in page.candidates[:pictures]
        ]
    other = [one.id for one in drawn if one.difference > SAME]
    if as_json:
        print(msgspec.json.encode({"replayed": replayed, "pictures": drawn}).decode())
    else:
        print(f"{replayed.candidates} candidates chosen again, {len(replayed.different)} otherwise.")
        for one in drawn:
            print(f"#{one.id} drawn again: largest difference {one.difference} of 255.")
    if replayed.different or other:
        raise Failure(ExitCode.FAILED, f"{len(replayed.different) + len(other)} came out otherwise.")


async def _difference(
    http: HttpClient, candidate: DreamCandidate, size: str | None, steps: int | None
) -> int:
    draft = ("size", "num_inference_steps")
    params = {name: value for name, value in candidate.params.items() if name not in draft}
    given = {"size": size, "num_inference_steps": steps}
    body = {
        "jobType": "generate",
        "priority": "batch",
        **params,
        **{name: value for name, value in given.items() if value is not None},
    }
    job = await followed(http, body, PlainProgress(lambda _: None), timeout_s=None)
    again = await http.download(outputs_of(job)[0].url)
    before = await http.download(candidate.url or "")
    one, other = (Image.open(io.BytesIO(content)).convert("RGB") for content in (before, again))
    if one.size != other.size:
        return 255
    extrema = ImageChops.difference(one, other).getextrema()
    return max(int(high) for _, high in extrema)
