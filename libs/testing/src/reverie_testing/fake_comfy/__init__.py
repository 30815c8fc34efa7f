"""A ComfyUI server made of what was recorded of three versions, for tests and for trying things by hand.

In a test: `async with FakeComfy(version="0.33.0") as comfy: comfy.url`.
As a program: `python -m reverie_testing.fake_comfy --port 8188 --version 0.33.0`.
"""

from reverie_testing.fake_comfy.faults import Faults, FrameFaults
from reverie_testing.fake_comfy.features import RECORDED, Features, features_of
from reverie_testing.fake_comfy.server import FakeComfy

__all__ = ["RECORDED", "FakeComfy", "Faults", "Features", "FrameFaults", "features_of"]
