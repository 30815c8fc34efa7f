"""`python -m reverie_gateway.openapi [--check] [--root DIR]`: write the gateway's reference, or check it.

It is `openapi.json` and `channel-map.md` in `docs/reference`.  Exit code 0: written, or up to date.  1: it differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reverie_gateway.openapi.channel_map_page import channel_map_page
from reverie_gateway.openapi.document import encoded_document

FILE = Path("docs/reference/openapi.json")
MAP_FILE = Path("docs/reference/channel-map.md")


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m reverie_gateway.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout (default: here)")
    options = parser.parse_args(argv)
    drifted = False
    for file, content in ((FILE, encoded_document()), (MAP_FILE, channel_map_page().encode())):
        path = options.root / file
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            sys.stderr.write(f"{file} differs from the gateway's endpoints; run `make generate`\n")
            drifted = True
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
