"""SIGKILL at random times of an upscaling, resumed each time: `python -m tests.fuzz.kills --kills 20`.

For every kind of output a clip is upscaled once without interruption, then by processes that are killed and resumed until
`--kills` of them were killed. The result must have the same bytes, and its folder must contain nothing else. Times are
measured in processor time, so that they do not depend on the load of the machine; some kills occur while a piece is
encoded or the result is joined.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from data.files import UNFINISHED
from engine.checkpoint import save_weights
from engine.upscale import Request, upscale
from tests.data.video.make import video
from tests.engine.small import small_mtdo

FRAMES = 240  # five pieces
KINDS = {"mkv": "out.mkv", "mp4": "out.mp4", "folder of PNGs": "out"}


@dataclass
class Tally:
    """kills: processes that died of SIGKILL.   writing: those killed while a file of the job was being written.
    completed: results that were compared.   different: results with other bytes.   left: names left in the folder."""

    kills: int = 0
    writing: int = 0
    completed: int = 0
    different: int = 0
    left: tuple[str, ...] = ()


def start(source: Path, out: Path, weight: Path) -> int:
    """Start upscaling with --resume in a forked process (importing torch takes longer than the work). Returns its number."""
    process = os.fork()
    if process:
        return process
    try:
        said = os.open(source.with_name("said.txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        upscale(Request(source, out, weight, precision="fp32", resume=True))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def processor_time(process: int) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def unfinished(out: Path) -> set[str]:
    """Names of the temporary files of pieces and results."""
    work = out.with_name(f".{out.name}.upscaling")
    places = (work, work / "pieces", work / "frames")
    return {
        name.name for place in places if place.is_dir() for name in place.glob(".*") if UNFINISHED.fullmatch(name.name)
    }


def disturb(process: int, out: Path, seconds: float, while_writing: bool) -> tuple[int, bool]:
    """Kill a process after `seconds` of processor time, or at the first write after that. (its status, whether it was writing)"""
    earlier = unfinished(out)  # left by the process before
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status, False
        with suppress(OSError, IndexError):
            writing = bool(unfinished(out) - earlier)
            if processor_time(process) >= seconds and (writing or not while_writing):
                os.kill(process, signal.SIGKILL)
                return os.waitpid(process, 0)[1], writing
        time.sleep(0.002)


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder."""
    found = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        found.update(file.name.encode() if path.is_dir() else b"")
        found.update(file.read_bytes())
    return found.hexdigest()


def kill_again_and_again(folder: Path, name: str, kills: int, random: Random, frames: int = FRAMES) -> Tally:
    """Upscale to `name` in `folder` until `kills` processes were killed. A result that is complete before is compared, and
    the work starts again."""
    torch.set_num_threads(1)
    weight, source, out = folder / "weights.safetensors", folder / "in.mkv", folder / name
    save_weights(weight, small_mtdo())
    video(source, [k / 25 for k in range(frames)], sound=["aac"])
    began = os.times()
    _, status = os.waitpid(start(source, out, weight), 0)
    assert status == 0, "the undisturbed run failed"
    full, usual = digest(out), sum(os.times()[2:4]) - sum(began[2:4])
    before = sorted(path.name for path in folder.iterdir())
    remove(out)

    tally = Tally()
    while tally.kills < kills or not out.exists():
        if out.exists():
            remove(out)
        process = start(source, out, weight)
        if tally.kills < kills:
            moment = random.uniform(0.02 * usual, 3 * usual / kills)
            status, writing = disturb(process, out, moment, while_writing=random.random() < 0.3)
        else:
            status, writing = os.waitpid(process, 0)[1], False
        if os.WIFSIGNALED(status):
            tally.kills += 1
            tally.writing += writing
            continue
        assert status == 0, f"a resumed run failed: {source.with_name('said.txt').read_text()[-500:]}"
        tally.completed += 1
        tally.different += digest(out) != full
    after = sorted(path.name for path in folder.iterdir())
    tally.left = tuple(name for name in after if name not in before)
    return tally


def remove(out: Path) -> None:
    """Delete the result, a file or a folder of files."""
    for file in out.iterdir() if out.is_dir() else ():
        file.unlink()
    out.rmdir() if out.is_dir() else out.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--only", choices=list(KINDS), help="one kind of output")
    options = parser.parse_args()
    wrong = 0
    for kind, name in KINDS.items():
        if options.only not in (None, kind):
            continue
        with tempfile.TemporaryDirectory() as folder:
            random = Random(f"{options.seed} {kind}")
            tally = kill_again_and_again(Path(folder), name, options.kills, random, options.frames)
        wrong += tally.different + len(tally.left)
        print(
            f"{kind}: {tally.kills} kills ({tally.writing} while a file was written), {tally.completed} complete results, "
            f"{tally.different} with other bytes, {len(tally.left)} files left over {' '.join(tally.left)}",
            flush=True,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
