"""Trains the built-in models: ``python -m reverie_models.train --work runs/builtin``.

Every stage resumes where it was stopped and is skipped once its minutes are spent, so the
same command goes on after any interruption. With several processes (``torchrun
--nproc-per-node 2 -m reverie_models.train --stage generator``) they share each batch of the
generator.
"""

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from reverie_models import autoencoder, generator, scorer, super_resolution

_SHARES = {
    "autoencoder": 0.16,
    "scorer": 0.16,
    "generator": 0.50,
    "decoder": 0.06,
    "x2": 0.05,
    "x4": 0.07,
}
STAGES = tuple(_SHARES)


def _stages(work: Path) -> dict[str, Callable[[float], None]]:
    return {
        "autoencoder": lambda minutes: autoencoder.train(work, minutes),
        "scorer": lambda minutes: scorer.train(work, minutes),
        "generator": lambda minutes: generator.train(work, minutes),
        "decoder": lambda minutes: autoencoder.train_decoder(work, minutes),
        "x2": lambda minutes: super_resolution.train(work, minutes, 2),
        "x4": lambda minutes: super_resolution.train(work, minutes, 4),
    }


def export(work: Path, builtin: Path) -> None:
    """Copies finished models from a training folder to where they ship."""
    for name in ("text-to-image", "scorer", "super-resolution"):
        if (work / name).exists():
            shutil.copytree(work / name, builtin / name, dirs_exist_ok=True)
    for path in builtin.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes for its owner only


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reverie_models.train", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/builtin"), help="training folder")
    parser.add_argument("--minutes", type=float, default=240, help="wall time of all stages")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this (repeatable)")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="copy the results there")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the stages asked for, in order."""
    arguments = _arguments(words)
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    stages = _stages(arguments.work)
    for stage in arguments.stage or STAGES:
        stages[stage](arguments.minutes * _SHARES[stage])
    if arguments.export:
        generator.export_pipeline(arguments.work)
        export(arguments.work, arguments.export)


if __name__ == "__main__":
    main()
