"""The families there are: ours, and what other packages bring."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

import structlog

from reverie_inference.families.port import Family
from reverie_inference.families.sd3 import StableDiffusion3
from reverie_inference.families.sd15 import StableDiffusion
from reverie_inference.families.sdxl import StableDiffusionXL

#: Entry points of this group name subclasses of `Family`.
GROUP = "reverie.families"
#: The name of a pipeline that no family runs: it has its own loop.
CALLBACK = "callback"

log = structlog.get_logger(__name__)


@cache
def families() -> dict[str, Family]:
    """All families by name; others' go first, so that one may replace ours."""
    found = [*_from_other_packages(), StableDiffusion(), StableDiffusionXL(), StableDiffusion3()]
    known: dict[str, Family] = {}
    for family in found:
        known.setdefault(family.name, family)
    return known


def family_of(pipeline: Any) -> Family | None:
    """Who runs this pipeline; None leaves it to its own loop."""
    return next((family for family in families().values() if family.runs(pipeline)), None)


def own_pipelines() -> dict[str, Any]:
    """Classes of pipelines that families bring, by name."""
    return {made.__name__: made for family in families().values() for made in family.pipelines}


def own_libraries() -> frozenset[str]:
    """Packages that these classes are of: what a model names of them is code that the operator installed."""
    return frozenset(made.__module__.partition(".")[0] for made in own_pipelines().values())


def _from_other_packages() -> list[Family]:
    made = []
    for point in entry_points(group=GROUP):
        try:
            made.append(point.load()())
        except Exception:
            log.exception("a family of models could not be loaded", family=point.name)
    return made
