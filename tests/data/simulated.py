"""Small simulated clips for tests."""

from data.simulate import simulate

BARE = {"vehicles": 0, "roads": 0, "buildings": 0}
CLEAN = {"noise": [0, 0], "flicker": 0}
STEADY = {"drift": [0, 0], "jitter": 0, "warp": 0}


def clips(split: str = "train", **settings):
    return simulate(None, {"clips": 1, "frames": 5, "size": [96, 128], **settings}, split)
