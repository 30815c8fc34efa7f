"""`/sdapi/v1/*` that says what there is and changes the mode: A1111's API over the modes and the workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency

from reverie_gateway.body import read_json
from reverie_gateway.dialect import BODY, conflict
from reverie_gateway.identity import Action, HttpRequest, identity_of, require_administrator
from reverie_gateway.model_desk import ModelDesk
from reverie_gateway.sdapi_desk import UPSCALER, SdapiDesk
from reverie_gateway.sdapi_request import CHECKPOINT, check_setting, mode_of
from reverie_gateway.status import StatusBoard
from reverie_gateway.switching import Switches
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.sdapi_bodies import CheckpointCard, LoraCard, SamplerCard, UpscalerCard

_SCHEDULES: Final = {"automatic": "Automatic", "karras": "Karras", "normal": "Normal"}
_GB: Final = 1e9


class ListsController(Controller):
    """What there is to choose from, and the settings."""

    path = "/sdapi/v1"

    @get("/sd-models")
    async def list_checkpoints(
        self, model_desk: NamedDependency[ModelDesk]
    ) -> Response[tuple[CheckpointCard, ...]]:
        """The modes that can be used."""
        modes = model_desk.modes().modes
        cards = (
            CheckpointCard(title=name, model_name=name, filename=mode.model)
            for name, mode in modes.items()
            if mode.available
        )
        return Response(tuple(cards))

    @get("/samplers")
    async def list_samplers(
        self, sdapi_desk: NamedDependency[SdapiDesk]
    ) -> Response[tuple[SamplerCard, ...]]:
        """The samplers that some worker has."""
        return Response(tuple(map(_sampler, sdapi_desk.schedulers())))

    @get("/schedulers")
    async def list_schedules(self) -> Response[list[dict[str, Any]]]:
        """Noise schedules that go with samplers."""
        cards: list[dict[str, Any]] = [
            {"name": name, "label": label, "aliases": None, "default_rho": -1.0, "need_inner_model": False}
            for name, label in _SCHEDULES.items()
        ]
        return Response(cards)

    @get("/upscalers")
    async def list_upscalers(
        self, status_board: NamedDependency[StatusBoard]
    ) -> Response[tuple[UpscalerCard, ...]]:
        """Super-resolution, where a worker has it."""
        scales = status_board.superres_scales
        cards = [UpscalerCard(name=UPSCALER, model_name=UPSCALER, scale=min(scales))] if scales else []
        return Response(tuple(cards))

    @get("/loras")
    async def list_loras(self, model_desk: NamedDependency[ModelDesk]) -> Response[tuple[LoraCard, ...]]:
        """LoRAs that modes wear."""
        loras = {lora.path: lora for mode in model_desk.modes().modes.values() for lora in mode.loras}
        cards = (
            LoraCard(name=lora.adapter_name, alias=lora.adapter_name, path=path)
            for path, lora in loras.items()
        )
        return Response(tuple(cards))

    @get("/memory")
    async def read_memory(self, status_board: NamedDependency[StatusBoard]) -> Response[dict[str, Any]]:
        """Accelerator memory in bytes."""
        vram = status_board.vram
        system = {"free": vram.available_gb * _GB, "used": vram.used_gb * _GB, "total": vram.total_gb * _GB}
        cuda = {"system": system} if vram.total_gb else {"error": "No GPU"}
        return Response({"ram": {}, "cuda": cuda})

    @get("/scripts")
    async def list_scripts(self) -> Response[dict[str, list[str]]]:
        """None; clients ask before they name any."""
        return Response({"txt2img": [], "img2img": []})

    @get("/embeddings")
    async def list_embeddings(self) -> Response[dict[str, dict[str, Any]]]:
        """None."""
        return Response({"loaded": {}, "skipped": {}})

    @get(
        [
            "/sd-vae",
            "/hypernetworks",
            "/face-restorers",
            "/realesrgan-models",
            "/latent-upscale-modes",
            "/prompt-styles",
        ]
    )
    async def list_nothing(self) -> Response[list[Any]]:
        """What Reverie has none of."""
        return Response([])

    @get("/cmd-flags")
    async def read_flags(self) -> Response[dict[str, Any]]:
        """None."""
        return Response({})

    @get("/options")
    async def read_options(self, status_board: NamedDependency[StatusBoard]) -> Response[dict[str, Any]]:
        """The settings there are; `sd_model_checkpoint` is the mode of requests that name none."""
        options = {
            CHECKPOINT: status_board.mode,
            "sd_checkpoint_hash": None,
            "samples_format": "png",
            "sd_vae": "Automatic",
            "CLIP_stop_at_last_layers": 1,
        }
        return Response(options)

    @post("/options", status_code=200)
    async def set_options(
        self,
        request: HttpRequest,
        model_desk: NamedDependency[ModelDesk],
        switches: NamedDependency[Switches],
    ) -> Response[None]:
        """Switch to another mode, and wait for it; other settings stay as they are."""
        require_administrator(identity_of(request), Action.MANAGE_MODELS)
        settings = _settings(await read_json(request))
        mode = mode_of(settings)
        if mode is not None:
            await switches.done(await model_desk.switch(mode, by=identity_of(request)))
        return Response(None, media_type="application/json")

    @post("/refresh-checkpoints", status_code=200)
    async def refresh_checkpoints(
        self, request: HttpRequest, model_desk: NamedDependency[ModelDesk]
    ) -> Response[None]:
        """Read the modes again."""
        await model_desk.reload(by=identity_of(request))
        return Response(None, media_type="application/json")


def _sampler(name: str) -> SamplerCard:
    karras = name.endswith(" Karras")
    return SamplerCard(name=name, options={"scheduler": "karras"} if karras else {})


def _settings(data: object) -> dict[str, object]:
    """The settings of a body; `invalid_field` names those that cannot be what they are asked to be."""
    if not isinstance(data, dict):
        raise ReverieError(ErrorCode.INVALID_MESSAGE, "the body must be an object of settings")
    if not isinstance(data.get(CHECKPOINT), str | None):
        raise conflict(**{CHECKPOINT: "must be the name of a mode"})
    wrong = [
        FieldError((*BODY, name[:60]), refusal, "choice")
        for name, value in _others(data)
        if (refusal := check_setting(name, value)) is not None
    ]
    if wrong:
        told = "; ".join(f"{field.loc[-1]}: {field.msg}" for field in wrong)
        raise ReverieError(ErrorCode.INVALID_FIELD, told, fields=wrong)
    return data


def _others(data: dict[str, object]) -> Iterable[tuple[str, object]]:
    return ((name, value) for name, value in data.items() if name not in (CHECKPOINT, "sd_checkpoint_hash"))
