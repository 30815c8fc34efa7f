"""`python -m reverie_dreams.calibrate`: record what scorers say of a reference set of pictures.

The reference set is a folder with `prompts.json`, an object of file names and the prompts that they answer.  Each
picture is judged as an answer to its own prompt, and to those of three other pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from PIL import Image

from reverie_dreams.scoring.calibration import Calibration, calibrated
from reverie_dreams.scoring.panel import open_benches
from reverie_dreams.scoring.port import Scorer

#: Prompts of other pictures that each is judged by.  Prompts differ in how well they can be answered at all: with
#: three wrong answers for each right one, any right one is above 0.7.
OTHERS = 3


def record(
    scorer: Scorer, name: str, folder: Path, prompts: dict[str, str], *, reference: str
) -> Calibration:
    """The recording of one scorer over a folder."""
    files = sorted(prompts)
    pictures = [Image.open(folder / file).convert("RGB") for file in files]
    raws: list[float] = []
    for index, (file, picture) in enumerate(zip(files, pictures, strict=True)):
        own = prompts[file]
        others = [prompts[other] for other in files[index + 1 :] + files[:index] if prompts[other] != own]
        raws += scorer.raw([picture], own)
        for part in range(1, OTHERS + 1) if others else ():
            raws += scorer.raw([picture], others[part * len(others) // (OTHERS + 1)])
    return calibrated(name, raws, reference=reference)


def main(argv: Sequence[str] | None = None) -> int:
    """Record, write `<scorer>.json`; the exit code."""
    parser = argparse.ArgumentParser(prog="reverie_dreams.calibrate", description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder with pictures and prompts.json")
    parser.add_argument(
        "--scorer", action="append", help="name or name:options; builtin, technical, aesthetic"
    )
    parser.add_argument("--output", type=Path, default=Path(), help="where <scorer>.json goes")
    parser.add_argument("--reference", default="", help="what the set is, in a few words")
    given = parser.parse_args(argv)
    prompts = json.loads((given.pictures / "prompts.json").read_text("utf-8"))
    chosen = dict(text.partition(":")[::2] for text in given.scorer or ("builtin", "technical", "aesthetic"))
    for bench in open_benches(chosen):
        found = record(bench.scorer, bench.name, given.pictures, prompts, reference=given.reference)
        path = given.output / f"{bench.name}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        low, middle, high = (found.quantiles[index] for index in (0, 50, 100))
        sys.stdout.write(f"{path}: {found.count} figures, {low:.3f} {middle:.3f} {high:.3f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
