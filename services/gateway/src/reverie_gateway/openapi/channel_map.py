"""The channel map: what each of its rows is served by, and which tests show it.

The map has 34 rows: an HTTP endpoint, its messages on the WebSocket, or both.  A test holds the table against the
routes, the messages and the tests that there are; `docs/reference/channel-map.md` is written from it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

_GATEWAY: Final = "services/gateway/tests/"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row: `http` is a method and a path, `messages` are types of both directions, `tests` are `file::name`."""

    number: int
    phase: Literal["V1", "V2", "HTTP"]
    http: str = ""
    messages: tuple[str, ...] = ()
    note: str = ""
    tests: tuple[str, ...] = ()


def _row(
    number: int,
    phase: Literal["V1", "V2", "HTTP"],
    http: str,
    *messages: str,
    note: str = "",
    tests: tuple[str, ...] = (),
) -> Row:
    shown_by = tuple(f"{_GATEWAY}{test}" for test in tests)
    return Row(number=number, phase=phase, http=http, messages=messages, note=note, tests=shown_by)


_DREAMS_STEERED: Final = (
    "test_dreams.py::test_a_session_is_begun_steered_and_stopped_on_the_socket",
    "test_dreams.py::test_a_session_is_begun_and_stopped_by_http_in_the_shapes_of_the_old_api",
)
_DREAMS_PUSHED: Final = ("test_dreams.py::test_states_and_finds_go_to_the_sockets_of_the_owner_alone",)
_DREAMS_LISTED: Final = ("test_dreams.py::test_the_best_and_the_latest_are_listed_with_filters_and_pages",)
_LISTS: Final = "test_sdapi_http.py::test_what_there_is_comes_from_the_modes_and_the_workers"
_JOB: Final = ("job:submit", "job:ack", "job:state", "job:progress", "job:complete", "job:error")

ROWS: Final = (
    _row(
        1,
        "V1",
        "POST /generate",
        *_JOB,
        tests=(
            "test_generate.py::test_the_answer_is_the_picture_and_its_headers_say_how_it_was_made",
            "test_socket.py::test_a_job_is_acknowledged_then_told_step_by_step",
        ),
    ),
    _row(
        2,
        "V1",
        "POST /superres",
        *_JOB,
        tests=(
            "test_superres_http.py::test_a_picture_comes_back_larger_with_what_was_done_in_headers",
            "test_superres_http.py::test_a_job_from_a_socket_takes_an_uploaded_picture",
        ),
    ),
    _row(
        3,
        "HTTP",
        "POST /v1/superres",
        tests=("test_superres_http.py::test_a_picture_comes_back_larger_with_what_was_done_in_headers",),
    ),
    _row(
        4,
        "V1",
        "POST /v1/comfy/jobs",
        "job:submit",
        "job:ack",
        tests=(
            "test_comfy_http.py::test_a_form_with_an_image_makes_a_job_and_says_its_id_in_three_spellings",
            "test_comfy_socket.py::test_a_job_on_the_socket_names_its_image_by_reference",
            "test_channel_map.py::test_a_comfy_job_is_understood_and_refused_while_nobody_does_such_jobs",
        ),
    ),
    _row(
        5,
        "V1",
        "GET /v1/comfy/jobs/{job_id}",
        "job:state",
        "job:progress",
        "job:complete",
        "job:error",
        tests=(
            "test_comfy_http.py::test_polling_shows_nodes_outputs_and_where_the_job_is",
            "test_comfy_socket.py::test_progress_names_the_nodes_and_the_end_has_the_outputs",
        ),
    ),
    _row(
        6,
        "V1",
        "DELETE /v1/comfy/jobs/{job_id}",
        "job:cancel",
        "job:cancel:ok",
        tests=(
            "test_comfy_http.py::test_a_cancel_waits_until_the_job_has_stopped_and_may_be_repeated",
            "test_comfy_socket.py::test_a_running_job_is_cancelled_on_the_socket",
        ),
    ),
    _row(7, "V1", "POST /dreams/start", "dream:start", "dream:started", tests=_DREAMS_STEERED),
    _row(8, "V1", "POST /dreams/stop", "dream:stop", "dream:stopped", tests=_DREAMS_STEERED),
    _row(9, "V1", "GET /dreams/status", "dream:status", tests=_DREAMS_PUSHED),
    _row(10, "V1", "GET /dreams/top", "dream:top", "dream:top:result", tests=_DREAMS_LISTED),
    _row(11, "V2", "GET /dreams/recent", "dream:recent", "dream:recent:result", tests=_DREAMS_LISTED),
    _row(12, "V1", "GET /dreams/stats", "dream:status", tests=_DREAMS_PUSHED),
    _row(13, "V1", "", "dream:guide", "dream:guide:ok", tests=_DREAMS_STEERED),
    _row(14, "V2", "", "dream:candidate", tests=_DREAMS_PUSHED),
    _row(
        15,
        "HTTP",
        "GET /api/models/status",
        "system:status",
        tests=(
            "test_models_http.py::test_without_a_gpu_the_memory_is_zeros_and_the_models_are_there",
            "test_models_http.py::test_a_model_that_is_being_loaded_shows_in_the_status",
        ),
    ),
    _row(
        16,
        "HTTP",
        "GET /api/modes",
        tests=("test_models_http.py::test_modes_are_listed_with_their_defaults_and_loras",),
    ),
    _row(
        17,
        "HTTP",
        "POST /api/modes/switch",
        "system:status",
        tests=(
            "test_models_http.py::test_a_switch_is_an_urgent_job_of_the_worker_that_has_the_mode",
            "test_socket.py::test_the_status_is_pushed_when_it_changes_and_polling_shows_the_same",
        ),
    ),
    _row(
        18,
        "HTTP",
        "POST /api/modes/reload",
        tests=("test_models_http.py::test_a_reload_asks_every_worker_and_a_broken_file_is_a_400",),
    ),
    _row(
        19,
        "HTTP",
        "GET /api/vram",
        "system:status",
        tests=(
            "test_models_http.py::test_without_a_gpu_the_memory_is_zeros_and_the_models_are_there",
            "test_nodes.py::test_the_memory_of_a_node_is_what_its_monitor_says_and_what_workers_say_without_one",
        ),
    ),
    *(
        _row(
            number,
            "HTTP",
            f"POST /api/models/{verb}",
            note="answers 501",
            tests=("test_models_http.py::test_loading_and_unloading_by_hand_is_not_implemented",),
        )
        for number, verb in ((20, "unload"), (21, "load"))
    ),
    _row(
        22,
        "V2",
        "PUT /storage/{key}",
        "storage:put",
        "storage:put:ok",
        tests=(
            "test_texts_and_thumbnails.py::test_a_text_that_was_put_is_read_back",
            "test_texts_and_thumbnails.py::test_the_socket_puts_texts_too_and_echoes_the_id",
        ),
    ),
    _row(
        23,
        "HTTP",
        "GET /storage/{key}",
        tests=("test_storage_http.py::test_an_object_comes_whole_with_its_type_and_may_be_cached_for_ever",),
    ),
    _row(
        24,
        "V1",
        "GET /storage/health",
        "system:status",
        tests=(
            "test_storage_http.py::test_health_says_that_the_store_works_or_why_not",
            "test_channel_map.py::test_the_first_message_has_what_the_map_says",
        ),
    ),
    _row(
        25,
        "HTTP",
        "GET /health",
        "ping",
        "pong",
        tests=(
            "test_channel_map.py::test_health_is_for_load_balancers_and_names_nothing_else",
            "test_socket.py::test_a_ping_is_answered_with_its_id",
        ),
    ),
    _row(26, "HTTP", "GET /sdapi/v1/sd-models", tests=(_LISTS,)),
    _row(
        27,
        "HTTP",
        "GET /sdapi/v1/options",
        tests=(_LISTS, "test_sdapi_http.py::test_another_checkpoint_is_a_switch_that_is_waited_for"),
    ),
    _row(28, "HTTP", "GET /sdapi/v1/samplers", tests=(_LISTS,)),
    _row(
        29,
        "HTTP",
        "POST /sdapi/v1/txt2img",
        tests=(
            "test_sdapi_http.py::test_batches_are_that_many_pictures_with_seeds_in_a_row",
            "test_sdapi_http.py::test_what_cannot_be_honoured_is_refused_by_name",
            "test_sdapi_http.py::test_progress_is_that_of_the_callers_request_under_its_own_name",
        ),
    ),
    _row(
        30,
        "HTTP",
        "POST /v1/images/generations",
        tests=(
            "test_openai_http.py::test_n_pictures_are_n_jobs_of_one_seed_after_the_other",
            "test_openai_http.py::test_a_stream_has_previews_of_the_way_and_then_the_picture",
            "test_openai_http.py::test_what_cannot_be_honoured_is_refused_by_name",
        ),
    ),
    _row(
        31,
        "V1",
        "",
        "job:priority",
        "job:priority:ok",
        tests=("test_moving_jobs.py::test_a_move_is_answered_with_its_place_and_told_as_an_event",),
    ),
    _row(
        32,
        "V1",
        "",
        "system:status",
        tests=(
            "test_socket.py::test_the_first_message_is_the_state_of_the_platform",
            "test_socket.py::test_the_status_is_pushed_when_it_changes_and_polling_shows_the_same",
        ),
    ),
    _row(
        33,
        "V2",
        "",
        "system:backends",
        tests=("test_nodes.py::test_the_workers_there_are_come_on_connect_and_as_they_change",),
    ),
    _row(
        34,
        "V1",
        "",
        "queue:state",
        tests=("test_queue.py::test_the_queue_is_pushed_as_it_changes_and_polling_shows_the_same",),
    ),
)

#: Routes that no row asks for; a `*` at the end stands for whatever follows.
ROUTES_BEYOND: Final = (
    "POST /v1/jobs",
    "GET /v1/jobs",
    "GET /v1/jobs/{job_id}",
    "PATCH /v1/jobs/{job_id}",
    "DELETE /v1/jobs/{job_id}",
    "POST /v1/jobs/{job_id}/retry",
    "GET /v1/queue",
    "PATCH /v1/queue",
    "GET /v1/dreams*",
    "POST /v1/dreams*",
    "PATCH /v1/dreams*",
    "GET /v1/events",
    "POST /v1/upload",
    "HEAD /storage/{key}",
    "GET /v1/comfy/*",
    "PUT /v1/comfy/*",
    "DELETE /v1/comfy/*",
    "GET /v1/system/status",
    "GET /ready",
    "GET /metrics",
    "GET /schema/openapi.json",
    "GET /",
    # The rest of OpenAI's and A1111's APIs, whose rows are 26 to 30.
    "POST /v1/images/*",
    "GET /v1/models*",
    "GET /sdapi/v1/*",
    "POST /sdapi/v1/*",
    "POST /internal/*",
)

#: Messages of the connection itself, and others that no row asks for.
MESSAGES_BEYOND: Final = {
    "hello": "what this socket wants",
    "hello:ok": "its answer",
    "resume": "what was missed, please",
    "resumed": "whether all of it follows",
    "AUTHENTICATE": "who this is, where no header could say it",
    "AUTHENTICATED": "its answer",
    "job:preview": "binary previews of one job",
    "job:preview:ok": "its answer",
    "error": "why a message was not carried out, with its `id`",
}
