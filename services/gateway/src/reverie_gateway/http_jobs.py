"""`/v1/jobs`: the asynchronous HTTP path to the same jobs that the WebSocket serves; strict in what it takes."""

from __future__ import annotations

import base64
import binascii

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from reverie_gateway.body import read_json
from reverie_gateway.idempotency import with_header_key
from reverie_gateway.identity import HttpRequest, identity_of, owner_of
from reverie_gateway.jobs import Jobs, newest_first
from reverie_gateway.moves import read_move
from reverie_gateway.problem import job_url
from reverie_gateway.views import Lens
from reverie_jobs.store import Stored, Submitted
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.http_bodies import JobAccepted, JobPage, JobPatch, JobView
from reverie_protocol.jobs import JobState
from reverie_protocol.parsing import parse_job_submit
from reverie_protocol.validation import validate

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_PARAMETERS = ("state", "limit", "cursor", "owner")
#: `owner` of a list of everybody's jobs.
EVERYBODY = "*"


class JobsController(Controller):
    """Submit, follow, move, cancel and retry jobs."""

    path = "/v1/jobs"

    @post("/", status_code=202)
    async def submit_job(self, request: HttpRequest, jobs: NamedDependency[Jobs]) -> Response[JobAccepted]:
        """Take a job; the answer comes when its record is durable.  A repetition gets the first one's job."""
        submit = with_header_key(parse_job_submit(await read_json(request)), request)
        draft = jobs.draft(submit, owner=owner_of(request))
        await jobs.preflight(draft, by=identity_of(request))
        return _accepted(await jobs.submit(draft))

    @get("/")
    async def list_jobs(
        self, request: HttpRequest, jobs: NamedDependency[Jobs], lens: NamedDependency[Lens]
    ) -> Response[JobPage]:
        """One's own jobs, newest first; an administrator may ask for others'."""
        query = _Query.read(request)
        by = identity_of(request)
        owner = None if query.owner == EVERYBODY else query.owner or by.owner
        found, total = jobs.page(owner, by=by, states=query.states, after=query.after, limit=query.limit + 1)
        shown, more = found[: query.limit], len(found) > query.limit
        views = tuple(lens.show(Stored(job, jobs.revision_of(job.id))) for job in shown)
        cursor = _cursor(newest_first(shown[-1])) if more else None
        return Response(JobPage(jobs=views, cursor=cursor, total=total))

    @get("/{job_id:str}")
    async def read_job(
        self,
        request: HttpRequest,
        job_id: FromPath[str],
        jobs: NamedDependency[Jobs],
        lens: NamedDependency[Lens],
    ) -> Response[JobView]:
        """One job as it stands now."""
        stored = await jobs.find(job_id, by=identity_of(request))
        return Response(lens.show(stored))

    @delete("/{job_id:str}", status_code=200)
    async def cancel_job(
        self,
        request: HttpRequest,
        job_id: FromPath[str],
        jobs: NamedDependency[Jobs],
        lens: NamedDependency[Lens],
    ) -> Response[JobView]:
        """Stop a job; doing so again, or after its end, changes nothing."""
        stored = await jobs.cancel(job_id, by=identity_of(request))
        return Response(lens.show(stored))

    @patch("/{job_id:str}")
    async def move_job(
        self,
        request: HttpRequest,
        job_id: FromPath[str],
        jobs: NamedDependency[Jobs],
        lens: NamedDependency[Lens],
    ) -> Response[JobView]:
        """Another lane, another place within it, or both."""
        move = read_move(validate(JobPatch, await read_json(request), loc_prefix=("body",)))
        stored = await jobs.move(job_id, move, by=identity_of(request))
        return Response(lens.show(stored))

    @post("/{job_id:str}/retry", status_code=202)
    async def retry_job(
        self, request: HttpRequest, job_id: FromPath[str], jobs: NamedDependency[Jobs]
    ) -> Response[JobAccepted]:
        """A new job that does a failed or cancelled one again."""
        return _accepted(await jobs.retry(job_id, by=identity_of(request)))


def _accepted(submitted: Submitted) -> Response[JobAccepted]:
    job = submitted.stored.job
    accepted = JobAccepted(
        job_id=job.id,
        state=job.state,
        priority=job.priority,
        seq=submitted.stored.revision,
        existing=submitted.existing,
        url=job_url(job.id),
    )
    return Response(accepted, status_code=202, headers={"Location": accepted.url})


class _Query(msgspec.Struct, frozen=True):
    """Parameters of the list."""

    states: frozenset[JobState]
    limit: int
    after: tuple[float, str] | None
    owner: str | None

    @classmethod
    def read(cls, request: HttpRequest) -> _Query:
        """From the query string, naming every wrong parameter."""
        given = {name: value for name, value in request.query_params.items() if isinstance(value, str)}
        wrong = [
            _field(name, "unknown parameter", "unknown_field") for name in given if name not in _PARAMETERS
        ]
        states = [state for state in given.get("state", "").split(",") if state]
        if not set(states) <= set(JobState):
            wrong.append(_field("state", f"allowed: {', '.join(JobState)}", "choice"))
        limit = given.get("limit", str(DEFAULT_LIMIT))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= MAX_LIMIT):
            wrong.append(_field("limit", f"must be 1..{MAX_LIMIT}", "out_of_range"))
        after = None
        try:
            after = _position(given["cursor"]) if given.get("cursor") else None
        except ValueError:
            wrong.append(_field("cursor", "must be a cursor of an earlier answer", "pattern"))
        if wrong:
            names = ", ".join(str(field.loc[-1]) for field in wrong)
            raise ReverieError(ErrorCode.INVALID_FIELD, f"wrong parameters: {names}", fields=wrong)
        return cls(frozenset(map(JobState, states)), int(limit), after, given.get("owner"))


def _field(name: str, msg: str, kind: str) -> FieldError:
    return FieldError(("query", name[:60]), msg, kind)


def _cursor(key: tuple[float, str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def _position(cursor: str) -> tuple[float, str]:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.json.decode(raw, type=tuple[float, str])
    except (binascii.Error, msgspec.DecodeError, UnicodeError) as error:
        raise ValueError("no cursor of ours") from error
