"""Peak memory of upscaling GeoTIFF scenes of growing size: a table, and a plot with --plot.

    python benchmarks/scene_memory.py 300x300 600x600 1200x1200
    python benchmarks/scene_memory.py 2500x2500 10000x1000 10000x2500 --without-network --plot memory.png

--without-network enlarges tiles by repeating pixels: what reading, keeping and writing take by themselves, in the tiles of the network.
Each size is a process of its own: a scene of 3 bands of uint16 with a border of nodata is written in strips, upscaled, and read
back in strips: type, nodata and the mean of the valid pixels.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

ROOT = Path(__file__).resolve().parents[1]
STRIP = 256


def write_scene(path: Path, width: int, height: int) -> float:
    """A smooth scene with detail; the left eighth is nodata (0). Returns the mean of the rest."""
    rng, total, count = np.random.default_rng(0), 0.0, 0
    options = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 3,
        "dtype": "uint16",
        "nodata": 0,
        "tiled": True,
    }
    place = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 10, 10), "BIGTIFF": "IF_SAFER"}
    with rasterio.open(path, "w", **options, **place) as file:
        for top in range(0, height, STRIP):
            rows = min(STRIP, height - top)
            y, x = np.mgrid[top : top + rows, :width]
            base = 6000 + 3000 * np.sin(x / 9) * np.cos(y / 11)
            strip = np.stack([base * (1 + 0.1 * k) + rng.normal(0, 40, base.shape) for k in range(3)]).astype(np.uint16)
            strip[:, :, : width // 8] = 0
            total, count = total + float(strip.sum(dtype=np.float64)), count + int((strip > 0).sum())
            file.write(strip, window=Window(0, top, width, rows))
    return total / count


def read_back(path: Path) -> tuple[str, float]:
    """Type and size, and the mean of the valid pixels."""
    total, count = 0.0, 0
    with rasterio.open(path) as file:
        for top in range(0, file.height, STRIP):
            strip = file.read(window=Window(0, top, file.width, min(STRIP, file.height - top)))
            total, count = total + float(strip.sum(dtype=np.float64)), count + int((strip > 0).sum())
        return f"{file.dtypes[0]} {file.width}x{file.height}", total / count


def repeat_pixels(source: str, out: str) -> None:
    """Upscale x2 with the plan of the released network, but without its arithmetic."""
    from engine.upscale import Request, scene, upscale

    def enlarger(*_: Any) -> Any:
        return lambda frames, centre, size: np.moveaxis(frames[centre], -1, 0).repeat(2, axis=1).repeat(2, axis=2)

    scene.enlarger = enlarger
    upscale(Request(Path(source), Path(out), scale=2, precision="fp32"))


def measure(size: tuple[int, int], weight: Path | None, folder: Path, network: bool) -> tuple[float, float, str]:
    """Peak GiB, seconds, and the data read back."""
    mean = write_scene(folder / "in.tif", *size)
    command = [
        sys.executable,
        str(ROOT / "upscale.py"),
        str(folder / "in.tif"),
        str(folder / "out.tif"),
        "--scale",
        "2",
    ]
    command += ["--precision", "fp32", *(["--weight", str(weight)] if weight else [])]
    if not network:
        command = [
            sys.executable,
            "-m",
            "benchmarks.scene_memory",
            "--child",
            str(folder / "in.tif"),
            str(folder / "out.tif"),
        ]
    begun = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    result, after = read_back(folder / "out.tif")
    return peak, seconds, f"{result}, mean {mean:.1f} -> {after:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=parse_size, nargs="+", metavar="WxH")
    parser.add_argument("--weight", type=Path, help="weights of scale 2 (default: the released ones)")
    parser.add_argument("--without-network", action="store_true", help="measure reading, keeping and writing alone")
    parser.add_argument("--plot", type=Path, help="picture of peak memory over size")
    parser.add_argument("--folder", help="where the scenes are written (default: the temporary folder)")
    options = parser.parse_args()
    print("| pixels | peak memory (GiB) | seconds | result |\n|---|---|---|---|")
    peaks = []
    sizes = sorted(
        options.sizes, key=lambda size: size[0] * size[1]
    )  # rising: the peak is that of the largest child so far
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            peak, seconds, result = measure(size, options.weight, Path(folder), not options.without_network)
        peaks.append(peak)
        print(f"| {size[0]}x{size[1]} | {peak:.2f} | {seconds:.0f} | {result} |", flush=True)
    if options.plot:
        plot(sizes, peaks, options.plot)


def parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def plot(sizes: list[tuple[int, int]], peaks: list[float], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    axes.plot([width * height / 1e6 for width, height in sizes], peaks, "o-")
    axes.set(
        xlabel="megapixels of the scene", ylabel="peak memory (GiB)", ylim=(0, max(3.2, 1.1 * max(peaks))), xscale="log"
    )
    axes.axhline(3, color="0.6", linestyle="--")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    repeat_pixels(*sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main()
