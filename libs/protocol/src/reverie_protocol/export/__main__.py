"""`python -m reverie_protocol.export [--check] [--root DIR]`: write the generated files, or check them.

Exit code 0: written, or all up to date.  1: `--check` found files that differ.  2: not a checkout of Reverie.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reverie_protocol.export import files


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m reverie_protocol.export", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout (default: here)")
    options = parser.parse_args(argv)
    if not (options.root / "libs" / "protocol").is_dir():
        sys.stderr.write(f"{options.root} is no checkout of Reverie; name it with --root\n")
        return 2
    drifted = files.drifted(options.root)
    if not options.check:
        files.write(options.root)
        return 0
    for path in drifted:
        sys.stderr.write(f"{path} differs from libs/protocol; run `make generate`\n")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
