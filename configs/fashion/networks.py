"""The two Fashion-MNIST networks: training, ONNX export and attack. Imported by train.py only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

BATCH = 128
CLASSES = 10
POOL = 0  # in a channel plan: halve the resolution


def repeatable(seed: int) -> None:
    """Make what follows depend on the seed alone: sums are split over a fixed number of threads."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    torch.manual_seed(seed)


def convolutional(
    plan: Sequence[int] = (16, POOL, 40, 40, POOL, 80, 80, POOL),
    features: int = 96,
) -> nn.Sequential:
    """3x3 convolutions, a layer of features, a linear head. Pixels enter as they are: zero padding
    continues the black background, and the first batch norm does the normalising."""
    layers: list[nn.Module] = []
    width, side = 1, 28
    for channels in plan:
        if channels == POOL:
            layers.append(nn.MaxPool2d(2))
            side //= 2
            continue
        layers.append(nn.Conv2d(width, channels, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        width = channels
    return nn.Sequential(*layers, *perceptron(width * side**2, features))


def perceptron(inputs: int = 28 * 28, hidden: int = 48) -> nn.Sequential:
    """One hidden layer, on the raw pixels unless told otherwise."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, CLASSES),
    )


def pixels(image: np.ndarray) -> Tensor:
    """uint8 images as the network's input, in [0, 1]."""
    batch = torch.from_numpy(image).float() / 255
    return batch.contiguous(memory_format=torch.channels_last)


def flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror each image, left to right, with even odds."""
    return torch.where(torch.rand(len(x), 1, 1, 1, generator=rng) < 0.5, x.flip(3), x)


def shift(x: Tensor, rng: torch.Generator, most: int = 2) -> Tensor:
    """Move each image by up to `most` pixels each way, the background filling in."""
    n, _, height, width = x.shape
    offset = torch.randint(0, 2 * most + 1, (2, n, 1), generator=rng)
    rows = (torch.arange(height) + offset[0])[:, :, None]
    columns = (torch.arange(width) + offset[1])[:, None, :]
    padded = nn.functional.pad(x[:, 0], (most, most, most, most))
    moved = padded[torch.arange(n)[:, None, None], rows, columns][:, None]
    return moved.contiguous(memory_format=torch.channels_last)


def train(
    model: nn.Sequential,
    image: np.ndarray,
    y: np.ndarray,
    seed: int,
    epochs: int,
    rate: float,
    augment: bool,
) -> nn.Sequential:
    """SGD on a one-cycle schedule; returns the exponential average of the weights, norms folded."""
    rng = torch.Generator().manual_seed(seed)
    model = model.to(memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    optimizer = torch.optim.SGD(model.parameters(), **options)
    steps = len(y) // BATCH
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * steps, pct_start=0.25)
    labels = torch.from_numpy(y)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(y), generator=rng)[: steps * BATCH].split(BATCH):
            x = pixels(image[rows.numpy()])
            if augment:
                x = shift(flip(x, rng), rng)
            loss = nn.functional.cross_entropy(model(x), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            average.update_parameters(model)
            total += loss.item()
        print(f"  epoch {epoch + 1:2}/{epochs}  loss {total / steps:.4f}", flush=True)
    return fold(average.module)


def fold(model: nn.Sequential) -> nn.Sequential:
    """The same function without its batch norms: each goes into the layer before it."""
    model.eval()
    layers: list[nn.Module] = []
    for layer, after in pairwise([*model, nn.Identity()]):
        if isinstance(after, nn.BatchNorm2d):
            layers.append(fuse_conv_bn_eval(layer, after))
        elif isinstance(after, nn.BatchNorm1d):
            layers.append(fuse_linear_bn_eval(layer, after))
        elif not isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layers.append(layer)
    return nn.Sequential(*layers).eval()


@torch.no_grad()
def logits(model: nn.Sequential, image: np.ndarray) -> np.ndarray:
    """Logits of uint8 images."""
    return torch.cat([model(pixels(part)) for part in np.split(image, 10)]).numpy()


@torch.no_grad()
def cool(model: nn.Sequential, temperature: float) -> None:
    """Divide the logits by the temperature, inside the head: they stay affine in the features."""
    model[-1].weight /= temperature
    model[-1].bias /= temperature


def node(layer: nn.Module, name: str, source: str, target: str) -> tuple[onnx.NodeProto, list]:
    """One layer as an ONNX node and its weights."""
    match layer:
        case nn.Conv2d():
            kind, options = "Conv", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        case nn.Linear():
            kind, options = "Gemm", {"transB": 1}
        case nn.MaxPool2d():
            kind, options = "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}
        case _:
            kind, options = {nn.Flatten: "Flatten", nn.ReLU: "Relu"}[type(layer)], {}
    weights = [
        numpy_helper.from_array(value.detach().contiguous().numpy(), f"{name}.{key}")
        for key, value in layer.named_parameters()
    ]
    inputs = [source, *(weight.name for weight in weights)]
    return helper.make_node(kind, inputs, [target], name=name, **options), weights


def export(model: nn.Sequential, path: Path, properties: dict[str, str], features: bool) -> None:
    """Write the network as ONNX: image -> probabilities, logits and, if asked for, features."""
    nodes, weights, tensor = [], [], "image"
    last = len(model) - 1
    for i, layer in enumerate(model):
        target = {last - 1: "features", last: "logits"}.get(i, f"tensor{i}")
        made, parameters = node(layer, f"layer{i}", tensor, target)
        nodes.append(made)
        weights += parameters
        tensor = target
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
    widths = {"probabilities": CLASSES, "logits": CLASSES}
    if features:
        widths["features"] = model[-1].in_features
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 28, 28])
    shapes = [(name, TensorProto.FLOAT, ["n", width]) for name, width in widths.items()]
    outputs = [helper.make_tensor_value_info(*shape) for shape in shapes]
    graph = helper.make_graph(nodes, path.stem, [image], outputs, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(proto, properties)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def attack(
    model: nn.Sequential,
    image: np.ndarray,
    y: np.ndarray,
    radius: float,
    seed: int,
    steps: int = 40,
) -> np.ndarray:
    """Projected gradient descent in an L-infinity ball, from a random start; the result is
    rounded to 8 bits inside that ball."""
    rng = torch.Generator().manual_seed(seed)
    clean, labels = pixels(image), torch.from_numpy(y)
    low, high = (clean - radius).clamp(min=0), (clean + radius).clamp(max=1)
    x = low + (high - low) * torch.rand(clean.shape, generator=rng)
    for _ in range(steps):
        x.requires_grad_(True)
        loss = nn.functional.cross_entropy(model(x), labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, x)
        x = (x.detach() + radius / 10 * slope.sign()).clamp(low, high)
    reach = int(radius * 255)
    centre = image.astype(int)
    lowest, highest = np.maximum(centre - reach, 0), np.minimum(centre + reach, 255)
    return np.clip(np.rint(x.numpy() * 255), lowest, highest).astype(np.uint8)
