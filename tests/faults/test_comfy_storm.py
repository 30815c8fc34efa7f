"""ComfyUI jobs in a storm of faults; `tests/long/comfy_storm.py` rages longer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "long" / "comfy_storm.py"


def test_no_comfyui_job_is_stuck_false_or_twice_in_a_storm(tmp_path: Path) -> None:
    options = ["--jobs", "40", "--servers", "3", "--every", "0.5", "--kill-every", "4", "--seed", "3"]
    answer = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-5000:] + answer.stderr[-5000:]
    report = json.loads(answer.stdout.splitlines()[-1])
    assert sum(report["states"].values()) == 40
    assert report["faults"]
