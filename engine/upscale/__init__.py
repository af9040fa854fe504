"""Upscale the user's files: the request, its jobs, and the resumable work folder."""

from engine.upscale.request import Request
from engine.upscale.run import upscale

__all__ = ["Request", "upscale"]
