"""How much of a model is in place while diffusers loads it: by the bytes of its parts, where these are known.

diffusers tells of its parts, and of the shards of a part, through the progress bars of `diffusers.utils.logging`.
They are drawn nowhere here; what would draw them counts instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from diffusers.utils import logging as diffusers_logging

#: What diffusers writes before its bars.
_COMPONENTS: Final = "Loading pipeline components"
_SHARDS: Final = "Loading checkpoint shards"


def untold(fraction: float) -> None:
    """Nobody wants to know."""


@contextlib.contextmanager
def counted_parts(tell: Callable[[float], None], part_bytes: Mapping[str, int]) -> Iterator[None]:
    """Tell which part of a pipeline (0 to 1) is in place, while the block loads it.

    `part_bytes` weighs the parts by name; if it is empty they count alike.  One block at a time in a process.
    """
    bars = diffusers_logging.tqdm
    diffusers_logging.tqdm = _Bars(bars, tell, part_bytes)
    try:
        yield
    finally:
        diffusers_logging.tqdm = bars


class _Bars:
    """Stands where diffusers takes its bars from."""

    def __init__(self, plain: Any, tell: Callable[[float], None], part_bytes: Mapping[str, int]) -> None:
        self._plain = plain
        self._tell = tell
        self._part_bytes = part_bytes
        self._done = self._part = 0.0

    def __call__(self, iterable: Iterable[Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        """A bar over what is given; others than the two are diffusers' own."""
        title = str(kwargs.get("desc", ""))
        if iterable is not None and title.startswith(_COMPONENTS):
            return self._components(list(iterable))
        if iterable is not None and title.startswith(_SHARDS):
            return self._shards(list(iterable))
        return self._plain(iterable, *args, **kwargs)

    def _components(self, components: list[tuple[str, Any]]) -> Iterator[Any]:
        weights = {name: self._part_bytes.get(name, 0) for name, _ in components}
        if not any(weights.values()):
            weights = dict.fromkeys(weights, 1)
        total = sum(weights.values())
        for component in components:
            self._part = weights[component[0]] / total
            yield component
            self._done += self._part
            self._tell(self._done)

    def _shards(self, shards: list[Any]) -> Iterator[Any]:
        for number, shard in enumerate(shards, start=1):
            yield shard
            self._tell(self._done + self._part * number / len(shards))
