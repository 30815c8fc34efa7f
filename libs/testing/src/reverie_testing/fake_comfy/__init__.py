"""A ComfyUI server made of what was recorded of three versions, for tests and for trying things by hand.

In a test: `async with FakeComfy(version="0.33.0") as comfy: comfy.url`.
As a program: `python -m reverie_testing.fake_comfy --port 8188 --version 0.33.0`; its faults are at `/fake/…`.

What can be broken: sockets, events, worker, files and the whole server by methods of `FakeComfy`; frames, answers,
interrupts and the history's delay by `comfy.faults`; `Storm(seed).over(comfy)` draws from all of it.
"""

from reverie_testing.fake_comfy.faults import Faults, FrameFaults
from reverie_testing.fake_comfy.features import RECORDED, Features, features_of
from reverie_testing.fake_comfy.server import FakeComfy
from reverie_testing.fake_comfy.storm import Storm

__all__ = ["RECORDED", "FakeComfy", "Faults", "Features", "FrameFaults", "Storm", "features_of"]
