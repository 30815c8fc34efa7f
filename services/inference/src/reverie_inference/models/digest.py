"""A name for weights: the same for the same files, wherever they lie and whatever they are called."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

#: Bytes looked at in one place, and places looked at in a file: the header and samples of the data.
SAMPLE_BYTES: Final = 4096
SAMPLES: Final = 64
_WEIGHTS: Final = (".safetensors", ".bin")


def weights_digest(reference: str) -> str:
    """Digest of a folder's or file's weights by sizes and samples; a Hugging Face id is its own name."""
    place = Path(reference)
    if place.is_file():
        files = [place]
    elif place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.suffix in _WEIGHTS)
    else:
        return hashlib.sha256(reference.encode()).hexdigest()
    found = hashlib.sha256()
    for file in files:
        name = file.relative_to(place).as_posix() if place.is_dir() else ""
        found.update(f"{name}:{file.stat().st_size}:".encode())
        _sample(file, found)
    return found.hexdigest()


def _sample(file: Path, found: hashlib._Hash) -> None:
    size = file.stat().st_size
    with file.open("rb") as data:
        for place in range(SAMPLES):
            data.seek(size * place // SAMPLES)
            found.update(data.read(SAMPLE_BYTES))
