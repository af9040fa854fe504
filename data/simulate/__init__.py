"""Simulate satellite video from aerial stills: moving platform and objects, clouds, sensor; with true flow and boxes.

`simulate` returns clips, `simulated_layout` returns pairs for training and evaluation, `python -m data.simulate` writes files.
docs/simulator.md describes every effect.
"""

from data.simulate.clips import SimulatedClip, simulate, simulated_layout
from data.simulate.scene import Scene, TrueBox
from data.simulate.settings import SimulatorSettings, settings_from

__all__ = ["Scene", "SimulatedClip", "SimulatorSettings", "TrueBox", "settings_from", "simulate", "simulated_layout"]
