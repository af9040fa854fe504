"""Damaged videos and folders, and random damage to every kind of file: a usable result or a one-line error.

With more examples: FUZZ_EXAMPLES=20000 pytest tests/data/test_bad_files.py -k damage
"""

import io
import os
import warnings
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data import open_layout
from data.clips import TiffStackClip, VideoClip
from data.geo_tags import GeoTags
from data.media import probe, read_geo, read_image, to_tensor, write_image
from data.tiff import write_page
from data.video import VideoFile
from data.video.writer import VideoWriter
from errors import InputError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
RANDOM = np.random.default_rng(0)


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(4 * x) % 256, (5 * y) % 256, (x * y) % 256], -1).astype(np.uint8)


def image_bytes(kind: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(file, kind, **options)
    return file.getvalue()


def tiff_bytes(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def deep_png() -> bytes:
    """A PNG with 16 bits per value, which Pillow cannot write."""
    done, encoded = cv2.imencode(".png", picture().astype(np.uint16) * 200)
    assert done
    return encoded.tobytes()


def stack_bytes(folder: Path) -> bytes:
    geo = GeoTags(
        {33550: (12, (1.0, 1.0, 0.0)), 33922: (12, (0.0, 0, 0, 5, 5, 0)), 34735: (3, (1, 1, 0, 1, 1025, 0, 1, 1))}
    )
    with tifffile.TiffWriter(folder / "stack.tif") as writer:
        for _ in range(3):
            write_page(writer, picture().astype(np.uint16) * 100, geo)
    return (folder / "stack.tif").read_bytes()


def video_bytes(folder: Path, name: str, frames: int = 12, **options) -> bytes:
    with VideoWriter(folder / name, fps=25, **options) as writer:
        for number in range(frames):
            writer.write(np.roll(picture(48, 64), number, 1))
    return (folder / name).read_bytes()


# --- videos ------------------------------------------------------------------------------------------------------------


def read_all(path: Path) -> int:
    video = VideoFile(path, quick=True, strict=True)
    for number in range(len(video)):
        video.array(number)
    return len(video)


def test_videos_cut_short(tmp_path):
    """MP4 stores its index at the end, so nothing can be read. Matroska needs no index, so the existing part is read."""
    mp4, mkv = video_bytes(tmp_path, "a.mp4"), video_bytes(tmp_path, "a.mkv", codec="ffv1")
    (tmp_path / "half.mp4").write_bytes(mp4[: len(mp4) * 2 // 3])
    with pytest.raises(InputError, match=r"half.mp4: its index is missing: the file is cut short"):
        VideoFile(tmp_path / "half.mp4")
    (tmp_path / "half.mkv").write_bytes(mkv[: len(mkv) * 2 // 3])
    try:
        assert 1 <= read_all(tmp_path / "half.mkv") < 12
    except InputError as error:
        assert "half.mkv" in str(error)


def test_videos_with_a_broken_index(tmp_path):
    """With a wrong AVI index FFmpeg reads the packets in order."""
    avi = bytearray(video_bytes(tmp_path, "a.avi", codec="ffv1"))
    at = avi.rfind(b"idx1")
    assert at > 0
    avi[at + 8 : at + 8 + 160] = RANDOM.bytes(160)
    (tmp_path / "broken.avi").write_bytes(avi)
    good = VideoFile(tmp_path / "a.avi")
    broken = VideoFile(tmp_path / "broken.avi")
    assert len(broken) == len(good)
    for number in (11, 3, 7):
        assert np.array_equal(broken.array(number), good.array(number))


def test_video_without_a_video_stream(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=44100)
        audio.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        VideoFile(tmp_path / "a.mp4")


def test_damage_detected_by_the_decoder_is_reported(tmp_path):
    """The H.264 decoder conceals some damage; frames that it marks as corrupt are reported."""
    good = video_bytes(tmp_path, "a.mkv", 30)
    reports = []
    for seed in range(8):
        random, content = np.random.default_rng(seed), bytearray(good)
        at = int(len(content) * random.uniform(0.2, 0.9))
        content[at : at + 60] = random.bytes(60)
        (tmp_path / "b.mkv").write_bytes(content)
        try:
            read_all(tmp_path / "b.mkv")
        except InputError as error:
            reports.append(str(error))
    assert reports and all("b.mkv: frame" in report for report in reports)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_unreadable_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0)
    try:
        list((tmp_path / "a").iterdir())
        pytest.skip("this user may read everything")
    except PermissionError:
        with pytest.raises(InputError, match="cannot be listed"):
            open_layout(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o755)


def test_unreadable_folders_for_any_user(tmp_path, monkeypatch):
    """Root may read every folder, so the permission error is simulated."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(image_bytes("PNG"))
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(InputError, match=r"b: cannot be listed \(Permission denied\)"):
        open_layout(tmp_path)


def test_link_loops_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="nowhere"):
        open_layout(tmp_path)
    with pytest.raises(InputError):
        open_layout(tmp_path / "a")


# --- random damage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, bytes]:
    """One small valid file of each kind."""
    folder = tmp_path_factory.mktemp("corpus")
    files = {f"{kind.lower()}.{kind.lower()}": image_bytes(kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "GIF")}
    files |= {
        "palette.png": image_bytes("PNG", "P"),
        "bit.png": image_bytes("PNG", "1"),
        "cmyk.jpg": image_bytes("JPEG", "CMYK"),
    }
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[f"{compression}.tif"] = image_bytes("TIFF", compression=compression)
    files |= {
        "cmyk.tif": image_bytes("TIFF", "CMYK"),
        "palette.tif": image_bytes("TIFF", "P"),
        "stack.tiff": stack_bytes(folder),
        "progressive.jpg": image_bytes("JPEG", progressive=True),
        "lossless.webp": image_bytes("WEBP", lossless=True),
        "deep.png": deep_png(),
    }
    deep = np.repeat(picture(48, 64), 2, axis=2).astype(np.uint16) * 100
    files |= {
        "tiles.tif": tiff_bytes(deep[..., :3], photometric="rgb", tile=(16, 16), compression="deflate", predictor=True),
        "bands.tif": tiff_bytes(deep, photometric="minisblack", planarconfig="contig", bigtiff=True),
        "planes.tif": tiff_bytes(np.moveaxis(deep, 2, 0), photometric="minisblack", planarconfig="separate"),
        "float.tif": tiff_bytes(deep[..., 0].astype(np.float32) / 65535, compression="lzw", predictor=True),
    }
    videos = {
        "a.mp4": {},
        "b.mkv": {"codec": "ffv1"},
        "c.avi": {"codec": "ffv1"},
        "d.webm": {},
        "e.mp4": {"codec": "h265"},
    }
    return files | {name: video_bytes(folder, name, 4, **options) for name, options in videos.items()}


DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["cut", "flip", "write", "insert", "remove", "repeat"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def apply(content: bytes, damage: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, data in damage:
        at, length = int(place**2 * len(content)), len(data)  # squared: headers are hit more often
        if kind == "cut":
            content = content[:at]
        elif kind == "flip":
            content = (
                content[:at]
                + bytes(a ^ b for a, b in zip(content[at : at + length], data, strict=False))
                + content[at + length :]
            )
        elif kind == "write":
            content = content[:at] + data + content[at + length :]
        elif kind == "insert":
            content = content[:at] + data + content[at:]
        elif kind == "remove":
            content = content[:at] + content[at + length :]
        else:
            content = content[:at] + content[max(at - 64, 0) : at] + content[at:]
    return content


def use(path: Path) -> None:
    """Read a file in every way that the product does."""
    if path.suffix in (".mp4", ".mkv", ".avi", ".webm"):
        clip = VideoClip(path)
        frames = [clip.frame(number) for number in (len(clip) - 1, 0)]
        assert all(frame.shape[-2:] == clip.size for frame in frames)
        return
    info, array = probe(path), None
    if info.pages == 1:
        array = read_image(path)
        assert array.shape[:2] == info.size and array.dtype in (np.uint8, np.uint16, np.float32)
        if array.shape[-1] <= 4:
            assert to_tensor(array).isfinite().all()
    elif path.suffix == ".tiff":
        clip = TiffStackClip(path)
        clip.array(len(clip) - 1)
    read_geo(path)


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(which=st.integers(0, 10_000), damage=DAMAGE)
def test_random_damage_gives_a_result_or_a_one_line_error(which, damage, corpus, tmp_path):
    name = sorted(corpus)[which % len(corpus)]
    path = tmp_path / name
    path.write_bytes(apply(corpus[name], damage))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            use(path)
        except InputError as error:
            message = str(error)
            assert str(path) in message and "\n" not in message and len(message) < 600


NUMBER = st.one_of(
    st.integers(-3, 12).map(str), st.floats().map(str), st.sampled_from(["", "a", "1e400", "nan", "٣", "0x1"])
)
LINE = st.one_of(st.lists(NUMBER, max_size=8).map(",".join), st.text(max_size=20))


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(lines=st.lists(LINE, max_size=5), tail=st.binary(max_size=6))
def test_any_text_as_boxes_or_list_gives_a_result_or_a_one_line_error(lines, tail, tmp_path):
    clip = tmp_path / "mot" / "car" / "001"
    if not clip.exists():
        (clip / "gt").mkdir(parents=True)
        for number in (1, 2):
            write_image(clip / "img" / f"{number:06d}.png", picture())
    for file, options in (("gt.txt", {}), ("list.txt", {"list_file": clip / "gt" / "list.txt"})):
        (clip / "gt" / "gt.txt").write_text("1,1,2,3,4,5")
        (clip / "gt" / file).write_bytes("\n".join(lines).encode("utf-8", "surrogatepass") + tail)
        try:
            layout = open_layout(tmp_path, **options)
            assert all(len(pair.boxes or ()) in (0, 2) for pair in layout)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 600


def test_corpus_files_are_valid(corpus, tmp_path):
    for name, content in corpus.items():
        (tmp_path / name).write_bytes(content)
        use(tmp_path / name)
