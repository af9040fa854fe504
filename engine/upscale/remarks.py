"""Properties of the clips that the user should know before the work: damage, scene cuts, missing values, compression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.bands import hint
from data.clips import Clip, VideoClip
from data.clips.scene import SceneClip
from data.scenes import UNLIKE, changes, cuts_in
from engine import distributed
from engine.distributed import say
from engine.released import released_for
from engine.upscale import quality, targets
from engine.upscale.relations import nothing_in_common
from engine.upscale.request import Request


def tell(clips: Sequence[tuple[Clip, Path]]) -> None:
    """Print the readers' notes on the video files: damage, cuts, interlacing."""
    for clip, _ in clips:
        base = targets.base_of(clip)
        for note in base.video.notes if isinstance(base, VideoClip) else ():
            say(f"clip '{clip.name}': {note}")


def find_cuts(clip: Clip, request: Request) -> list[int]:
    """Detect and print the first frames of scenes, on rank 0; empty if the request disables scene detection."""
    if not request.scenes or len(clip) < 2:
        return []
    found = distributed.broadcast(cuts_of(clip) if distributed.is_main() else ([], False))
    cuts, photographs = found
    if photographs:
        say(
            f"clip '{clip.name}': most frames have nothing in common with the next one: they do not influence each other (pictures "
            "of their own: --stills; frames of one scene: --no-scenes)"
        )
    elif cuts:
        times, _ = targets.key_times(clip, request)
        named = ", ".join(f"{times[cut]:.2f} s" for cut in cuts[:8]) + (" ..." if len(cuts) > 8 else "")
        say(
            f"clip '{clip.name}': {len(cuts)} scene cut(s) at {named}: windows and new frames do not cross them (--no-scenes: they do)"
        )
    return cuts


def cuts_of(clip: Clip) -> tuple[list[int], bool]:
    """First frames of scenes, and whether the clip is a folder of unrelated photographs: then every unlike one is a scene."""
    found = changes(clip)
    unlike = [number + 1 for number, change in enumerate(found) if change.correlation < UNLIKE]
    paths = [path for index in range(len(clip)) if (path := clip.file(index)) is not None]
    if 2 * len(unlike) > len(found) and len(paths) == len(clip) and nothing_in_common(paths):
        return unlike, True
    return cuts_in(found), False


def remarks(clips: Sequence[Clip]) -> Iterator[str]:
    """Notes on the conversion of stored values: for every scene, and for the first of the other clips."""
    for clip in clips:
        if isinstance(clip, SceneClip) and clip is clip.series[0]:
            yield from clip.notes
    if not isinstance(clips[0], SceneClip) and (dark := hint(clips[0].array(0))) is not None:
        yield f"clip '{clips[0].name}' {dark} (--limits, --percentiles)"


def is_lossy(clip: Clip, request: Request) -> bool:
    """Whether to use the weights for compressed sources; prints the choice if the clip decides it."""
    if request.quality != "auto":
        return request.quality == "compressed"
    lost = None if request.weight else quality.loss(clip)
    if lost is None:
        return False
    if released_for(request.scale) != released_for(request.scale, lossy=True) and not (request.fps or request.times):
        say(f"'{clip.name}' is {lost}: upscaled with weights for compressed sources (--quality clean: with the others)")
    return True
