"""The endpoints of dreams: what each takes, answers and refuses."""

from __future__ import annotations

from typing import Final

from reverie_gateway.openapi.entries import BODY, STORE, Answer, Endpoint, Parameter
from reverie_protocol.errors import ErrorCode

_DREAMS: Final = "Dreams"
_SESSION: Final = Parameter(
    "session_id", "path", "the session", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
)
_START_ERRORS: Final = (*BODY, *STORE, ErrorCode.ALREADY_DREAMING, ErrorCode.MODE_NOT_FOUND)
_ONE: Final = (*STORE, ErrorCode.SESSION_NOT_FOUND)


def _filters(limit: int) -> tuple[Parameter, ...]:
    return (
        Parameter(
            "limit",
            "query",
            "candidates at most",
            {"type": "integer", "minimum": 1, "maximum": 1000, "default": limit},
        ),
        Parameter(
            "offset", "query", "candidates left out before", {"type": "integer", "minimum": 0, "default": 0}
        ),
        Parameter(
            "min_score",
            "query",
            "least score; filters go before the limit",
            {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
        ),
        Parameter("rendered_only", "query", "only full pictures", {"type": "boolean", "default": False}),
    )


def _list(path: str, operation_id: str, summary: str, limit: int) -> Endpoint:
    schema = {"type": "array", "items": {"$ref": "#/components/schemas/DreamsCandidate"}}
    return Endpoint(
        method="get",
        path=path,
        operation_id=operation_id,
        tag=_DREAMS,
        summary=summary,
        description="Of the latest session, the one under way before others; empty where there is none. The first "
        "50 come with their picture as a base64 PNG.",
        parameters=_filters(limit),
        answers=(Answer(200, "the candidates", {"application/json": schema}),),
        errors=(*STORE, ErrorCode.INVALID_FIELD),
    )


def _page(name: str, operation_id: str, summary: str) -> Endpoint:
    return Endpoint(
        method="get",
        path=f"/v1/dreams/{{session_id}}/{name}",
        operation_id=operation_id,
        tag=_DREAMS,
        summary=summary,
        parameters=(_SESSION, *_filters(50)),
        answers=(Answer(200, "a page of candidates", {"application/json": "DreamCandidatePage"}),),
        errors=(*_ONE, ErrorCode.INVALID_FIELD),
    )


DREAM_ENDPOINTS: Final = (
    Endpoint(
        method="post",
        path="/dreams/start",
        operation_id="startDream",
        tag=_DREAMS,
        summary="Begin a dream session",
        description="Unknown fields are ignored. Each user has so many sessions under way as the operator allows, "
        "one unless he says otherwise.",
        body="DreamsStart",
        answers=(Answer(200, "it begins", {"application/json": "DreamsStarted"}),),
        errors=_START_ERRORS,
    ),
    Endpoint(
        method="post",
        path="/dreams/stop",
        operation_id="stopDream",
        tag=_DREAMS,
        summary="Make no more candidates",
        description="The rest of the best are still rendered in full. Nobody dreaming is no error.",
        answers=(Answer(200, "its totals", {"application/json": "DreamsStopped"}),),
        errors=STORE,
    ),
    Endpoint(
        method="get",
        path="/dreams/status",
        operation_id="readDreamStatus",
        tag=_DREAMS,
        summary="How the latest session does",
        answers=(Answer(200, "its figures", {"application/json": "DreamsStatus"}),),
        errors=STORE,
    ),
    Endpoint(
        method="get",
        path="/dreams/stats",
        operation_id="readDreamStats",
        tag=_DREAMS,
        summary="How the latest session does, with all figures",
        answers=(Answer(200, "its figures", {"application/json": "DreamsStats"}),),
        errors=STORE,
    ),
    _list("/dreams/top", "listTopDreams", "The best candidates", 50),
    _list("/dreams/recent", "listRecentDreams", "The latest candidates", 20),
    Endpoint(
        method="get",
        path="/v1/dreams",
        operation_id="listDreamSessions",
        tag=_DREAMS,
        summary="Your sessions, the latest first",
        parameters=(
            Parameter(
                "limit",
                "query",
                "sessions at most",
                {"type": "integer", "minimum": 0, "maximum": 1000, "default": 50},
            ),
            Parameter("owner", "query", "`*` are everybody's, for an administrator"),
        ),
        answers=(Answer(200, "a page of sessions", {"application/json": "DreamPage"}),),
        errors=(*STORE, ErrorCode.INVALID_FIELD),
    ),
    Endpoint(
        method="post",
        path="/v1/dreams",
        operation_id="beginDreamSession",
        tag=_DREAMS,
        summary="Begin a dream session",
        body="DreamsStart",
        answers=(Answer(201, "the session; `Location` leads to it", {"application/json": "DreamView"}),),
        errors=_START_ERRORS,
    ),
    Endpoint(
        method="get",
        path="/v1/dreams/{session_id}",
        operation_id="readDreamSession",
        tag=_DREAMS,
        summary="One session as it is now",
        parameters=(_SESSION,),
        answers=(Answer(200, "the session", {"application/json": "DreamView"}),),
        errors=_ONE,
    ),
    Endpoint(
        method="patch",
        path="/v1/dreams/{session_id}",
        operation_id="guideDreamSession",
        tag=_DREAMS,
        summary="Steer a session",
        description="What is given is in force from the next candidate on; drafts in flight that do not fit any "
        "more are dropped.",
        parameters=(_SESSION,),
        body="DreamGuidance",
        answers=(Answer(200, "the session", {"application/json": "DreamView"}),),
        errors=(*BODY, *_ONE, ErrorCode.SESSION_OVER),
    ),
    Endpoint(
        method="post",
        path="/v1/dreams/{session_id}/stop",
        operation_id="endDreamSession",
        tag=_DREAMS,
        summary="Make no more candidates",
        description="The rest of the best are still rendered in full; asked again, not even that.",
        parameters=(_SESSION,),
        answers=(Answer(200, "the session", {"application/json": "DreamView"}),),
        errors=_ONE,
    ),
    Endpoint(
        method="get",
        path="/v1/dreams/{session_id}/replay",
        operation_id="replayDreamSession",
        tag=_DREAMS,
        summary="Choose all candidates of a session again, from its log",
        parameters=(_SESSION,),
        answers=(Answer(200, "what came out otherwise", {"application/json": "DreamReplayed"}),),
        errors=_ONE,
    ),
    _page("top", "listSessionTop", "The best candidates of a session"),
    _page("recent", "listSessionRecent", "The latest candidates of a session"),
)
