"""Peak memory of upscaling GeoTIFF scenes of growing size: a table, and a plot with --plot.

    python benchmarks/scene_memory.py 300x300 600x600 1200x1200
    python benchmarks/scene_memory.py 10000x2500 --precision bf16 --results memory.jsonl
    python benchmarks/scene_memory.py 10000x10000 --without-network --results memory.jsonl
    python benchmarks/scene_memory.py --results memory.jsonl --plot memory.png

--without-network enlarges tiles by repeating pixels, to measure only reading, storing and writing, with the tiles of the network.
Each size runs in a separate process: a scene of 3 bands of uint16 with a border of nodata is written in strips, upscaled, and read
back in strips: type, nodata and the mean of the valid pixels. --results collects the runs of several commands for one plot.
"""

from __future__ import annotations

import argparse
import json
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
    from engine.upscale import Request, scene_tiles, upscale

    def enlarger(*_: Any) -> Any:
        return lambda frames, centre, size: np.moveaxis(frames[centre], -1, 0).repeat(2, axis=1).repeat(2, axis=2)

    scene_tiles.enlarger = enlarger
    upscale(Request(Path(source), Path(out), scale=2, precision="fp32"))


def measure(size: tuple[int, int], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory, time, and the data read back."""
    mean = write_scene(folder / "in.tif", *size)
    files = [str(folder / "in.tif"), str(folder / "out.tif")]
    if options.without_network:
        command = [sys.executable, "-m", "benchmarks.scene_memory", "--child", *files]
    else:
        command = [sys.executable, str(ROOT / "upscale.py"), *files, "--scale", "2", "--precision", options.precision]
        command += ["--weight", str(options.weight)] if options.weight else []
    begun = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    import resource  # Linux and macOS

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    result, after = read_back(folder / "out.tif")
    return {
        "size": f"{size[0]}x{size[1]}",
        "megapixels": size[0] * size[1] / 1e6,
        "network": not options.without_network,
        "precision": options.precision,
        "peak_gib": round(peak / 2**30, 3),
        "seconds": round(seconds),
        "result": f"{result}, mean {mean:.1f} -> {after:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=parse_size, nargs="*", metavar="WxH")
    parser.add_argument("--weight", type=Path, help="weights of scale 2 (default: the released ones)")
    parser.add_argument("--precision", default="fp32", help="as in upscale.py")
    parser.add_argument("--without-network", action="store_true", help="measure reading, keeping and writing only")
    parser.add_argument("--results", type=Path, help="file of JSON lines to which the measurements are added")
    parser.add_argument("--plot", type=Path, help="picture of peak memory over size, of all measurements in --results")
    parser.add_argument("--folder", help="where the scenes are written (default: the temporary folder)")
    options = parser.parse_args()
    if sys.platform == "win32":
        parser.error(
            "Windows does not tell the peak memory of a finished process: run it on Linux or macOS (or in WSL)"
        )
    measured = []
    print("| pixels | peak memory (GiB) | seconds | result |\n|---|---|---|---|")
    # in rising order, because the peak is that of the largest child so far
    for size in sorted(options.sizes, key=lambda size: size[0] * size[1]):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            row = measure(size, Path(folder), options)
        measured.append(row)
        print(f"| {row['size']} | {row['peak_gib']:.2f} | {row['seconds']} | {row['result']} |", flush=True)
        if options.results:
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    if options.plot:
        kept = options.results.read_text(encoding="utf-8").splitlines() if options.results else []
        plot([json.loads(line) for line in kept] or measured, options.plot)


def parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for network, label, style in ((True, "mtdo_s_x2", "o-"), (False, "reading, keeping and writing only", "s--")):
        series = sorted((row for row in rows if row["network"] == network), key=lambda row: row["megapixels"])
        if not series:
            continue
        axes.plot([row["megapixels"] for row in series], [row["peak_gib"] for row in series], style, label=label)
        for row in series:
            axes.annotate(
                row["size"],
                (row["megapixels"], row["peak_gib"]),
                textcoords="offset points",
                xytext=(0, 6 if network else -12),
                ha="center",
                fontsize=7,
            )
    axes.axhline(3, color="0.6", linestyle=":", label="3 GiB")
    axes.set(xlabel="megapixels of the scene (LR)", ylabel="peak memory (GiB)", ylim=(0, 3.3), xscale="log")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    repeat_pixels(*sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main()
