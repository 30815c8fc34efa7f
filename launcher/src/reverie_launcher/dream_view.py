"""Dreams in a terminal: the best as they are found, a contact sheet at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reverie_launcher.client.address import Address
from reverie_launcher.client.http import HttpClient
from reverie_launcher.contact_sheet import contact_sheet
from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.picture_files import check_target, save, slug
from reverie_protocol.dream_bodies import DreamView
from reverie_protocol.dreams import DreamCandidate, DreamState

POLL_S = 0.5
ROWS = 10


async def dream(address: Address, body: Mapping[str, object], *, target: Path | None, as_json: bool) -> None:
    """Begin, watch, and save a contact sheet; a cancellation (Ctrl-C) stops the session and still saves it."""
    check_target(target)
    console = Console(stderr=True, highlight=False)
    async with HttpClient(address) as http:
        session = await http.start_dream(body)
        try:
            view = await _watched(http, session.session_id, console)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await http.stop_dream(session.session_id)
            view = await http.stop_dream(session.session_id)  # again: nobody waits for the rest in full
        best = await _best(http, session.session_id, limit=100)
        path = await _sheet(http, best, target, slug(str(body["prompt"])) + "-dream.png")
    if view.state is DreamState.FAILED:
        raise Failure(ExitCode.FAILED, f"The dream failed: {view.error}.", code="failed")
    if as_json:
        _print_json({"session": view, "candidates": best, "contactSheet": str(path) if path else None})
        return
    console.print(_line(view))
    if path is None and not view.stats.scored:
        print("Nothing was judged in that time; give it more --minutes.")
    else:
        print(path or f"Nothing reached the threshold; see reverie dreams top {view.session_id}.")


async def list_sessions(address: Address, *, limit: int, as_json: bool) -> None:
    """A table of sessions."""
    async with HttpClient(address) as http:
        page = await http.dreams(limit=limit)
    if as_json:
        _print_json(page)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("SESSION", "STATE", "KEPT", "DREAMT", "BEST", "PROMPT"):
        table.add_column(column, no_wrap=column != "PROMPT")
    for view in page.sessions:
        stats = view.stats
        best = f"{stats.best_score:.3f}"
        row = (view.session_id, view.state.value, str(stats.candidates), str(stats.dream_count), best)
        table.add_row(*row, Text(view.guidance.prompt or view.plan.prompt))
    Console(highlight=False).print(table)


async def top(address: Address, session: str, *, limit: int, min_score: float, as_json: bool) -> None:
    """A table of the best."""
    async with HttpClient(address) as http:
        session_id = await found(http, session)
        query = {"limit": str(limit), "min_score": str(min_score)}
        page = await http.dream_top(session_id, query)
    if as_json:
        _print_json(page)
    else:
        Console(highlight=False).print(_table(page.candidates))


async def guide(address: Address, session: str, body: Mapping[str, object], *, as_json: bool) -> None:
    """Steer."""
    async with HttpClient(address) as http:
        view = await http.guide_dream(await found(http, session), body)
    if as_json:
        _print_json(view)
    else:
        print(_line(view))


async def stop(address: Address, session: str, *, as_json: bool) -> None:
    """Stop."""
    async with HttpClient(address) as http:
        view = await http.stop_dream(await found(http, session))
    if as_json:
        _print_json(view)
    else:
        print(_line(view))


async def export(address: Address, session: str, *, folder: Path | None, limit: int, as_json: bool) -> None:
    """Pictures, candidates.json and contact-sheet.png into a folder."""
    async with HttpClient(address) as http:
        session_id = await found(http, session)
        target = folder or Path(f"dream-{session_id}")
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failure(
                ExitCode.USAGE,
                f"{target} cannot be made: {error.strerror}.",
                advice="Choose another with -o.",
            ) from None
        view = await http.dream(session_id)
        best = await _best(http, session_id, limit=limit)
        for rank, candidate in enumerate(best, 1):
            if candidate.url:
                picture = await http.download(candidate.url)
                save(picture, target, f"{rank:03d}-{candidate.id}-{candidate.score:.3f}.png")
        await _sheet(http, best, target, "contact-sheet.png")
        written = msgspec.json.format(msgspec.json.encode({"session": view, "candidates": best}), indent=2)
        save(written, target, "candidates.json")
    if as_json:
        _print_json({"session": view, "folder": str(target), "pictures": len(best)})
    else:
        print(target)


async def found(http: HttpClient, session: str) -> str:
    """A session's id by its beginning, or the latest."""
    page = await http.dreams(limit=1000)
    fitting = [view.session_id for view in page.sessions if view.session_id.startswith(session)]
    if not fitting or (session and len(fitting) > 1 and session not in fitting):
        what = f"{len(fitting)} sessions begin with {session}" if fitting else "There is no such session"
        raise Failure(ExitCode.USAGE, f"{what}.", advice="See reverie dreams list.", code="session_not_found")
    return session if session in fitting else fitting[0]


async def _watched(http: HttpClient, session_id: str, console: Console) -> DreamView:
    """The session once it is over; a live table where somebody sees it."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            view = await http.dream(session_id)
            if view.state.over:
                return view
            if console.is_terminal:
                page = await http.dream_top(session_id, {"limit": str(ROWS)})
                live.update(Group(_line(view), _table(page.candidates)), refresh=True)
            await asyncio.sleep(POLL_S)


async def _best(http: HttpClient, session_id: str, *, limit: int) -> tuple[DreamCandidate, ...]:
    return (await http.dream_top(session_id, {"limit": str(limit)})).candidates


async def _sheet(
    http: HttpClient, best: Sequence[DreamCandidate], target: Path | None, name: str
) -> Path | None:
    pictures = [
        (await http.download(candidate.url), f"#{candidate.id}  {candidate.score:.3f}")
        for candidate in best
        if candidate.url
    ]
    return save(contact_sheet(pictures), target, name) if pictures else None


def _line(view: DreamView) -> str:
    stats = view.stats
    return (
        f"{view.session_id}  {view.state.value}  {stats.elapsed_seconds:.0f} s  {stats.dream_count} dreamt, "
        f"{stats.pruned} pruned, {stats.candidates} kept, {stats.rendered} rendered  "
        f"best {stats.best_score:.3f}  {stats.dreams_per_second:.1f}/s"
    )


def _table(candidates: Sequence[DreamCandidate]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("#", "SCORE", "SEED", "FROM", "HOW", "PROMPT"):
        table.add_column(column, no_wrap=column != "PROMPT")
    for candidate in candidates:
        parents = " ".join(map(str, candidate.parents))
        row = (str(candidate.id), f"{candidate.score:.3f}", str(candidate.seed), parents)
        table.add_row(*row, Text(candidate.mutation), Text(candidate.prompt))
    return table


def _print_json(value: object) -> None:
    print(msgspec.json.encode(value).decode())
