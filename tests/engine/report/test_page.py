"""The report page: self-contained, escaped, limited in size; tested in a browser if one is installed."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from data.media import write_image
from engine.report.files import write_report
from engine.report.page.charts import curve, nice_ticks, ramp
from engine.report.page.markup import Markup, element
from engine.report.page.pictures import (
    Comparison,
    Rectangle,
    amplification,
    around,
    chosen_crops,
    embedded,
    load,
    stage,
)
from engine.report.page.scenes import chosen_objects, measured_objects, outline
from errors import InputError
from metrics import psnr

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
BOXES = [
    {"track": 1, "x": 20, "y": 30, "w": 8, "h": 6, "label": "car"},
    {"track": 2, "x": 60, "y": 20, "w": 30, "h": 24, "label": "ship"},
    {"track": 3, "x": 500, "y": 20, "w": 5, "h": 5, "label": "car"},
]


def pictures(size=(120, 150), seed=0):
    """Truth and two versions. Detail is at the top left; the better version is the worse one at the bottom right."""
    random = np.random.default_rng(seed)
    truth = np.full((*size, 3), 90.0)
    truth[:60, :60] += random.uniform(-60, 60, (60, 60, 1))
    truth[30:36, 20:28] = 230
    bicubic, ours = truth + random.normal(0, 12, truth.shape), truth + random.normal(0, 4, truth.shape)
    ours[-40:, -40:] += 40
    return {
        name: image.round().clip(0, 255).astype(np.uint8)
        for name, image in (("bicubic", bicubic), ("ours", ours), ("gt", truth))
    }


def page_report(folder, boxes=None, **more):
    entry = {"clip": "harbour <script>", "frame": "00000003", "boxes": boxes}
    for name, picture in pictures().items():
        path = folder / "pictures" / f"{name}.png"
        write_image(path, picture)
        entry[name] = str(path)
    frame = {"psnr_y": 31.0, "bicubic_psnr_y": 29.0, "ssim_y": 0.9, "bicubic_ssim_y": 0.8}
    clip = {**frame, "frames": [{"frame": f"{i:03d}", **frame} for i in range(4)]}
    return {
        "title": "page & <b>test</b> {{style}}",
        "protocol": "standard",
        "clips": {"harbour <script>": clip},
        "mean": frame,
        "pictures": [entry],
        **more,
    }


def written_page(folder, **options):
    write_report(page_report(folder, **options), folder)
    return (folder / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Checks that elements are closed in order, and collects references to other files."""

    def __init__(self, text):
        super().__init__()
        self.open, self.outside, self.count = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in ("img", "input", "meta", "br"):
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "srcset", "action", "poster") and not (value or "").startswith(("data:", "#")):
                self.outside.append((tag, key, value))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_well_formed_and_self_contained(tmp_path):
    text = written_page(tmp_path, boxes=BOXES)
    reader = Reader(text)
    assert reader.open == [] and reader.outside == []
    assert not re.search(r"https?://|@import|url\(", text)
    assert "default-src 'none'" in text
    assert reader.count["img"] == 5 + 3 * 5 + 2 * 3  # slider; three crops in five versions; two objects in three
    assert "page &amp; &lt;b&gt;test&lt;/b&gt; {{style}}" in text and "harbour <script>" not in text


def test_page_without_pictures_or_clips(tmp_path):
    write_report({"title": "empty"}, tmp_path)
    assert Reader((tmp_path / "report.html").read_text()).open == []


def test_missing_and_unequal_pictures_are_reported(tmp_path):
    report = page_report(tmp_path)
    report["pictures"].append({**report["pictures"][0], "ours": "gone.png"})
    write_image(tmp_path / "small.png", np.zeros((8, 8, 3), np.uint8))
    report["pictures"].append({**report["pictures"][0], "gt": "small.png"})
    write_report(report, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert text.count("cannot be shown") == 2 and "gone.png: no such file" in text and "differ in size" in text


def test_large_noisy_pictures_stay_below_six_megabytes(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (600, 640, 3), dtype=np.uint8)
    report = page_report(tmp_path)
    for name in ("bicubic", "ours", "gt"):
        write_image(tmp_path / f"{name}.png", np.roll(noise, len(name), axis=0))
    report["pictures"] = [
        {"clip": str(i), "frame": "0", "bicubic": "bicubic.png", "ours": "ours.png", "gt": "gt.png"} for i in range(2)
    ]
    write_report(report, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 6e6


def comparison(boxes=()):
    return Comparison("clip", "0", pictures(), list(boxes))


def test_crops_with_most_detail_gain_and_loss_are_chosen():
    chosen = chosen_crops(Comparison("clip", "0", pictures((300, 330)), []))
    assert list(chosen) == ["most detail", "largest gain", "largest loss"]
    assert chosen["most detail"].x == 0 and chosen["most detail"].y == 0
    loss = chosen["largest loss"]
    assert loss.x + loss.width > 290 and loss.y + loss.height > 260
    same = {**pictures(), "ours": pictures()["gt"]}
    assert "largest loss" not in chosen_crops(Comparison("clip", "0", same, []))


def test_crop_metrics_equal_metrics_of_the_crop():
    found = comparison()
    place = Rectangle(20, 30, 50, 40)
    crop = (slice(None), slice(30, 70), slice(20, 70))
    expected = psnr(found.tensor("ours")[crop], found.tensor("gt")[crop]).item()
    assert found.psnr("ours", place) == pytest.approx(expected, abs=1e-9)


def test_differences_are_amplified_by_the_stated_factor():
    found = comparison()
    assert amplification(np.full((9, 9), 7.0)) == 32 and amplification(np.full((9, 9), 200.0)) == 1
    expected = np.minimum(np.abs(found.luma["ours"] - found.luma["gt"]) * found.factor, 255).round()
    assert np.array_equal(found.pictures["ours_difference"][..., 1], expected.astype(np.uint8))


def test_slider_shows_small_frames_completely():
    assert stage(comparison(), 1) == Rectangle(0, 0, 150, 120)
    large = {name: np.tile(picture, (8, 8, 1)) for name, picture in pictures().items()}
    boxes = [{"track": 1, "x": 1100, "y": 100, "w": 10, "h": 10, "label": "car"}]
    part = stage(Comparison("clip", "0", large, boxes), 1)
    assert part.width * part.height <= 720_000 and part.x <= 1100 < part.x + part.width and part.y == 0
    assert stage(Comparison("clip", "0", large, []), 4).width < part.width


def test_crops_stay_in_the_frame():
    assert around(2, 2, 20, 10, (50, 60)) == Rectangle(0, 0, 20, 10)
    assert around(59, 49, 20, 10, (50, 60)) == Rectangle(40, 40, 20, 10)
    assert around(30, 25, 200, 200, (50, 60)) == Rectangle(0, 0, 60, 50)


def test_objects_of_each_class_are_chosen_and_outlined():
    objects = measured_objects(comparison(BOXES), "standard")
    assert [box["track"] for box, _ in objects] == [1, 2]
    assert all(row["track"] == box["track"] for box, row in objects)
    many = [({"track": i, "w": i, "h": 1, "label": "car"}, {}) for i in range(1, 40)]
    ship = ({"track": 99, "w": 5, "h": 5, "label": "ship"}, {})
    tracks = [box["track"] for box, _ in chosen_objects([*many, ship])]
    assert tracks == [39, 26, 14, 1, 99]
    assert outline(BOXES[0], Rectangle(16, 27, 16, 12)) == "left:25.00%;top:25.00%;width:50.00%;height:50.00%"


def test_pictures_are_lossless_within_the_size_limit():
    import base64
    import io

    from PIL import Image

    picture = pictures()["gt"]
    content = base64.b64decode(embedded(picture).split(",")[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), picture)
    assert len(embedded(picture, limit=2000)) < len(embedded(picture, limit=10**6))


def test_load_refuses_missing_reports(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load({"clip": "a", "frame": "0", "bicubic": "a.png", "ours": "b.png", "gt": "c.png"}, tmp_path)


def test_curves_put_points_where_the_values_are():
    frames = [{"frame": str(i), "psnr_y": value, "bicubic_psnr_y": None} for i, value in enumerate((30.0, 32.0, 31.0))]
    text = curve(frames, "bicubic")
    ys = [float(y) for y in re.findall(r'cy="([\d.]+)"', text)]
    assert ys[1] < ys[2] < ys[0] and ys[2] == pytest.approx((ys[0] + ys[1]) / 2, abs=0.1)
    assert "frame 1, ours 32.00 dB" in text
    assert curve([{"frame": "0", "psnr_y": 30.0, "bicubic_psnr_y": 30.0}] * 3, "bicubic")


@pytest.mark.parametrize(("low", "high"), [(20.1, 33.7), (25.0, 25.0), (29.99, 30.01), (0.0, 100.0)])
def test_ticks_enclose_the_values(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 7


def test_colour_map_runs_from_dark_to_light():
    brightness = [sum(ramp(part)) for part in np.linspace(0, 1, 20)]
    assert brightness == sorted(brightness) and ramp(-1) == ramp(0) and ramp(2) == ramp(1)


def test_markup_escapes_by_construction():
    made = element("td", "a < b & c", Markup("<b>bold</b>"), None, [1, 2.5], _class='x"y', hidden=False, data_k=True)
    assert made == '<td class="x&quot;y" data-k>a &lt; b &amp; c<b>bold</b>12.5</td>'


# --- in a browser -----------------------------------------------------------------------------------------------------


def browser_dom(folder, fragment="", script=""):
    """The DOM after the scripts have run, from a file:// URL in a headless browser without network."""
    if BROWSER is None:
        pytest.skip("no chromium here (Debian: apt-get install chromium)")
    page = folder / "report.html"
    if script:
        page = folder / "scripted.html"
        page.write_text(
            (folder / "report.html").read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>")
        )
    flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --dump-dom"
    size, profile = "--window-size=1200,900", f"--user-data-dir={folder / 'profile'}"
    command = [BROWSER, *flags.split(), "--virtual-time-budget=2000", size, profile, page.as_uri() + fragment]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=900, check=True).stdout


def seen(dom):
    """The clip-path of each picture in the viewer's DOM."""
    layers = re.findall(r'<div class="layer" data-picture="(\w+)"([^>]*)>', dom)
    return {name: re.search(r"clip-path: inset\(([^)]*)\)", rest)[1] for name, rest in layers if "hidden" not in rest}


def test_slider_state_comes_from_the_url(tmp_path):
    write_report(page_report(tmp_path, boxes=BOXES), tmp_path)
    dom = browser_dom(tmp_path, "#split=30&left=bicubic&right=gt&zoom=12&x=24&y=33")
    assert 'aria-valuenow="30"' in dom and 'aria-valuetext="30 % bicubic"' in dom
    assert seen(dom) == {"bicubic": "0px 70% 0px 0%", "gt": "0px 0% 0px 30%"}
    assert '<span class="tag right" aria-hidden="true">ground truth</span>' in dom
    assert "1200 %" in dom and "scale(12)" in dom


def test_slider_responds_to_keys_mouse_and_buttons(tmp_path):
    write_report(page_report(tmp_path), tmp_path)
    script = """
      const stage = document.querySelector(".stage"), divider = document.querySelector(".divider"), told = [];
      const tell = () => told.push(divider.getAttribute("aria-valuenow"));
      const key = (where, name) => where.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
      stage.setPointerCapture = divider.setPointerCapture = () => {};
      key(divider, "ArrowRight"); tell();
      key(divider, "Home"); tell();
      const box = stage.getBoundingClientRect();
      stage.dispatchEvent(new PointerEvent("pointerdown", {clientX: box.left + box.width / 4, clientY: box.top + 9}));
      tell();
      document.querySelector("input[data-side=right][value=ours_difference]").click();
      document.querySelector(".show").click();
      told.push(stage.classList.contains("zoomed"), document.querySelector(".level").textContent);
      key(stage, "0");
      told.push(stage.classList.contains("zoomed"));
      document.title = told.join(" ");
    """
    dom = browser_dom(tmp_path, script=script)
    title = re.search(r"<title>(.*?)</title>", dom)[1].split()
    assert title[:3] == ["51", "0", "25"] and title[3] == "true" and title[-1] == "false"
    assert set(seen(dom)) == {"bicubic", "ours_difference"}
