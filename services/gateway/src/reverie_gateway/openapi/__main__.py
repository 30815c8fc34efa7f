"""`python -m reverie_gateway.openapi [--check] [--root DIR]`: write `docs/reference/openapi.json`, or check it.

Exit code 0: written, or up to date.  1: `--check` found a difference.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reverie_gateway.openapi.document import encoded_document

FILE = Path("docs/reference/openapi.json")


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m reverie_gateway.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file differs")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout (default: here)")
    options = parser.parse_args(argv)
    path = options.root / FILE
    document = encoded_document()
    if not options.check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document)
        return 0
    if path.is_file() and path.read_bytes() == document:
        return 0
    sys.stderr.write(f"{FILE} differs from the gateway's endpoints; run `make generate`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
