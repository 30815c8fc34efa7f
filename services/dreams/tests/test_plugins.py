"""A strategy and a scorer of somebody else's package, found by their entry points."""

from __future__ import annotations

import io
import textwrap

from PIL import Image

from reverie_dreams.scoring.panel import judge, open_benches, scorer_names
from reverie_dreams.strategies.library import load_strategies

MODULE = """
    from reverie_dreams.search.moves import Move

    class Counting:
        def propose(self, search, rng):
            return Move(seed=search.next_id, mutation="counted")

    class Redness:
        def __init__(self, options):
            self.options = options

        def raw(self, pictures, prompt):
            return [picture.resize((1, 1)).getpixel((0, 0))[0] / 255 for picture in pictures]
"""
ENTRIES = """
    [reverie.strategies]
    counting = somebodys_dreams:Counting
    broken = somebodys_dreams:NotThere

    [reverie.scorers]
    redness = somebodys_dreams:Redness
"""


def test_an_installed_package_brings_a_strategy_and_a_scorer(tmp_path, monkeypatch):
    (tmp_path / "somebodys_dreams.py").write_text(textwrap.dedent(MODULE))
    info = tmp_path / "somebodys_dreams-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-dreams\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(ENTRIES))
    monkeypatch.syspath_prepend(tmp_path)

    strategies = load_strategies()
    assert {"counting", "random"} <= set(strategies)
    assert "broken" not in strategies
    assert "redness" in scorer_names()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(buffer, "PNG")
    [judgement] = judge(open_benches({"redness": "with options"}), [buffer.getvalue()], "x")
    assert judgement.scores == {"redness": 1.0}
