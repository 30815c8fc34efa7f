"""Peak resident memory of each process after a few pictures, beside the bare diffusers pipeline's.

    .venv/bin/python benchmarks/memory.py [--images 10]

Read from the kernel's own high-water mark (VmHWM), so Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import httpx
from product import BUILTIN_MODEL, running_product

_BARE = """
import sys, torch
from diffusers import AutoPipelineForText2Image
pipeline = AutoPipelineForText2Image.from_pretrained(
    sys.argv[1], torch_dtype=torch.float32, local_files_only=True, safety_checker=None)
for seed in range(int(sys.argv[2])):
    pipeline("a red circle", width=64, height=64, num_inference_steps=8)
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
"""


def peak_mib(pid: int) -> float:
    """The kernel's high-water mark of resident memory, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def main() -> None:
    """Print one JSON line per process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10)
    options = parser.parse_args()
    command = [sys.executable, "-c", _BARE, str(BUILTIN_MODEL), str(options.images)]
    bare = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]) / 1024
    print(json.dumps({"process": "bare pipeline", "peak_mib": round(bare, 1)}))
    with running_product() as product:
        for seed in range(options.images):
            body = {"prompt": "a red circle", "seed": seed}
            httpx.post(f"{product.url}/generate", json=body, timeout=120).raise_for_status()
        for name, process in sorted(product.processes().items()):
            print(json.dumps({"process": name, "peak_mib": peak_mib(process.pid)}))


if __name__ == "__main__":
    main()
