"""Satellite video out of aerial stills: moving platform, moving objects, clouds, sensor; with the true flow and boxes.

`simulate` gives clips, `simulated_layout` pairs for training and evaluation, `python -m data.simulate` writes them to
disk; docs/simulator.md explains every effect and shows a picture.
"""

from data.simulate.clips import SimulatedClip, simulate, simulated_layout
from data.simulate.scene import Scene, TrueBox
from data.simulate.settings import SimulatorSettings, settings_from

__all__ = ["Scene", "SimulatedClip", "SimulatorSettings", "TrueBox", "settings_from", "simulate", "simulated_layout"]
