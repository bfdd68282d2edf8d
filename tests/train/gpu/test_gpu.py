"""Training without TensorFlow: PyTorch computes the same functions as Keras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf_keras = pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from quantised_models import KEYS, fp32_model, pixels_of  # noqa: E402
from small_networks import branched_model  # noqa: E402

from capsule_edge.export.run_folder import synthetic_frames  # noqa: E402
from capsule_edge.train.models import architectures, weights  # noqa: E402
from capsule_edge.train.qat import quantised_model as qat  # noqa: E402

SIZE = 32
FRAMES = synthetic_frames(SIZE, seed=4)[:6]

# Keras 3 takes its backend once for a process, and this process uses TensorFlow's.
ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np, torch
from capsule_edge.train.models import weights
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.gpu.torch_training import build_graph
from capsule_edge.train.gpu.torch_qat import GridTrainer

folder, architecture, branched = Path(sys.argv[1]), sys.argv[2], bool(int(sys.argv[3]))
pixels = np.load(folder / "frames.npy")
graph = build_graph(architecture, size=pixels.shape[1], labels=5, branched=branched)
graph.assign(weights.load(folder / "weights.npz"))
x = (torch.from_numpy(pixels).float() - 128) / 128
np.save(folder / "logits.npy", graph.run(x).detach().numpy())
if not branched:
    trainer = GridTrainer(graph.folded(), TrainConfig(architecture=architecture, size=pixels.shape[1]))
    trainer.observe(x)
    found = trainer.arrays()
    ranges = {name: found.pop(name) for name in list(found) if name.startswith("range/")}
    weights.save(folder / "grid.npz", {**graph.unfolded(graph, found), **ranges})
    trainer.graph.assign(found)
    whole, rounded = trainer.predict(pixels)
    np.savez(folder / "answers.npz", whole=whole, rounded=rounded)
"""


@pytest.fixture
def torch() -> None:
    """Skip a test before it builds a model, if there is no PyTorch."""
    if find_spec("torch") is None:
        pytest.skip("needs PyTorch, which no extra brings")


def run_elsewhere(program: str, *arguments: object) -> str:
    """Run a program in a process of its own, with PyTorch under Keras 3, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_torch(folder: Path, architecture: str, arrays: weights.Arrays, *, branched: bool) -> None:
    folder.mkdir(exist_ok=True)
    np.save(folder / "frames.npy", FRAMES)
    weights.save(folder / "weights.npz", arrays)
    run_elsewhere(ELSEWHERE, folder, architecture, int(branched))


@pytest.mark.parametrize("architecture", ["mobilenet_v2_035", "rep_cnn"])
def test_torch_answers_as_keras_does(torch: None, architecture: str, tmp_path: Path) -> None:
    model = branched_model() if architecture == "rep_cnn" else fp32_model(architecture, SIZE)
    in_torch(tmp_path, architecture, weights.collect(model), branched=True)
    expected = np.asarray(model(pixels_of(FRAMES), training=False))
    assert np.allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-4 * np.abs(expected).max())


def test_qat_emulates_the_weights_and_ranges_learnt_in_torch(torch: None, tmp_path: Path) -> None:
    # QAT aligns the scales of residual sums, which an untrained MobileNetV2 amplifies to many steps. Use a model
    # without sums.
    architecture = "plain_cnn"
    in_torch(tmp_path, architecture, weights.collect(fp32_model(architecture, SIZE)), branched=False)
    grid = weights.load(tmp_path / "grid.npz")
    model = architectures.build(architecture, size=SIZE, labels=len(KEYS), keras=tf_keras)
    weights.assign(model, grid)
    quantised = qat.quantize(model, saturation_safe=True)
    ranges = {k.removeprefix("range/"): v for k, v in grid.items() if k.startswith("range/")}
    assert set(ranges) == {point.layer for point in qat.observed_ranges(quantised)}
    qat.set_ranges(quantised, {layer: (float(low), float(high)) for layer, (low, high) in ranges.items()})
    for wrapper in quantised.layers:
        for kernel, quantizer, limits in getattr(wrapper, "_weight_vars", ()):
            rounded = np.asarray(quantizer(kernel, False, limits))
            # The weights lie on the grid already: rounding again moves none of them by a tenth of a step.
            step = np.asarray(limits["max_var"]) / 127
            moved = np.abs(rounded - np.asarray(kernel)).reshape(-1, len(step)) / step
            assert moved.max() < 0.1, wrapper.name
    with np.load(tmp_path / "answers.npz") as answers:
        whole = np.asarray(model(pixels_of(FRAMES), training=False))
        assert np.allclose(whole, answers["whole"], atol=1e-4 * np.abs(whole).max())
        # Only one of the two rounds biases: one value in a thousand moves by a step, and a logit by a few steps.
        low, high = ranges["logits"]
        found = np.asarray(quantised(pixels_of(FRAMES), training=False))
        assert np.abs(found - answers["rounded"]).max() < 3 * (high - low) / 255


EQUALISED = """
import json, sys
import numpy as np, torch
from capsule_edge.train.models import weights
from capsule_edge.train.gpu.torch_equalisation import equalise_channels, rounded_outputs
from capsule_edge.train.gpu.torch_training import build_graph

frames, folder, architecture = sys.argv[1:]
pixels = np.load(frames)
graph = build_graph(architecture, size=pixels.shape[1], labels=5, branched=False)
graph.assign(weights.load(folder))
graph = graph.folded()
x = (torch.from_numpy(pixels).float() - 128) / 128


def reach():
    found = {}

    def note(node, values):
        if node.name in rounded_outputs(graph.nodes):
            far = values.abs().amax((0, *range(2, values.ndim)))
            found[node.name] = float(far.max() / far.median())
        return values

    with torch.no_grad():
        return graph.run(x, output=note).numpy(), found


before, uneven = reach()
graph.assign(equalise_channels(graph, [x[:4], x[4:]]))
after, equalised = reach()
print(json.dumps({
    "error": float(np.abs(after - before).max() / np.abs(before).max()),
    "spread": [float(np.mean(list(each.values()))) for each in (uneven, equalised)],
}))
"""


@pytest.mark.parametrize("architecture", ["mobilenet_v2_035", "plain_cnn"])
def test_equalised_channels_compute_the_same_and_reach_alike(
    torch: None, architecture: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "frames.npy", FRAMES)
    weights.save(tmp_path / "weights.npz", weights.collect(fp32_model(architecture, SIZE)))
    told = run_elsewhere(EQUALISED, tmp_path / "frames.npy", tmp_path / "weights.npz", architecture)
    found = json.loads(told.splitlines()[-1])
    assert found["error"] < 1e-4
    # The ratio of the largest channel's reach to the median channel's, averaged over the rounded outputs.
    assert found["spread"][1] < 0.8 * found["spread"][0]


# A student of 32 px and two teachers, one of them larger. The second student has only the kept answers.
TAUGHT = """
import sys
from pathlib import Path
import numpy as np, torch
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.gpu.batch_feed import BatchFeed, FrozenTeacher, answers_file
from capsule_edge.train.gpu.torch_training import build_graph

folder = Path(sys.argv[1])
config = TrainConfig(architecture="plain_cnn", size=32, batch=4, views=2, mixup=0.5, epochs=4)
rng = np.random.default_rng(0)
small, large = (rng.integers(0, 256, (8, size, size, 3), dtype=np.uint8) for size in (32, 48))
labels, chances = np.arange(8) % 5, np.full(8, 1 / 8)
graphs = [build_graph("plain_cnn", size=size, labels=5, branched=False) for size in (32, 48)]
teachers = [FrozenTeacher(graph, pixels) for graph, pixels in zip(graphs, (small, large))]
kept = answers_file(folder, "all", ["ta", "tb"], config)
assert answers_file(folder, "all", ["ta"], config) != kept

def seen(feed, epoch):
    return [[t.clone().numpy() for t in (feed.x, feed.target, feed.soft)] for _ in feed.steps(chances, epoch, 3)]

first = BatchFeed(config, small, labels, 5, "cpu", teachers)
first.begin(kept)
new = [seen(first, epoch) for epoch in range(2)]
again = [seen(first, epoch) for epoch in range(2, 4)]
second = BatchFeed(config, small, labels, 5, "cpu")
second.begin(kept)
assert second.has_answers and not BatchFeed(config, small, labels, 5, "cpu").has_answers
alone = [seen(second, epoch) for epoch in range(4)]
np.savez(folder / "taught.npz", **{
    f"{name}{part}": np.array([[step[at] for step in epoch] for epoch in epochs])
    for name, epochs in (("new", new), ("again", again), ("alone", alone))
    for at, part in enumerate(("x", "target", "soft"))
})
"""


def test_teachers_answer_a_view_once_and_it_comes_back_turned(torch: None, tmp_path: Path) -> None:
    run_elsewhere(TAUGHT, tmp_path)
    found = np.load(tmp_path / "taught.npz")
    for part in ("target", "soft"):
        assert np.array_equal(found[f"again{part}"], found[f"new{part}"])
        assert np.array_equal(
            found[f"alone{part}"], np.concatenate([found[f"new{part}"], found[f"again{part}"]])
        )
    assert np.allclose(found["newsoft"].sum(-1), 1, atol=1e-5)
    assert np.ptp(found["newsoft"], axis=(0, 1, 2)).max() > 1e-4
    new, again = found["newx"], found["againx"]
    assert np.array_equal(found["alonex"], np.concatenate([new, again]))
    turned = 0
    for before, after in zip(new.reshape(-1, *new.shape[2:]), again.reshape(-1, *new.shape[2:]), strict=True):
        same = [np.array_equal(v, after) for v in _orientations(before)]
        assert sum(same) == 1
        turned += not same[0]
    assert turned


def _orientations(batch: Any) -> list[Any]:
    quarters = [np.rot90(batch, quarter, (1, 2)) for quarter in range(4)]
    return [*quarters, *(np.flip(turned, 2) for turned in quarters)]


ROUNDED = """
import torch
from capsule_edge.train.gpu.torch_qat import build_rounding, round_straight_through

torch.manual_seed(0)
values = (torch.randn(2, 3, 5, 5) * 2).double().requires_grad_()
ends = torch.tensor([-1.7, 3.1]).double().requires_grad_()
weigh = torch.randn(2, 3, 5, 5).double()

def gradients(rounded):
    return torch.autograd.grad((rounded * weigh).sum(), (values, ends))

step = (ends[1] - ends[0]) / 255
zero = round_straight_through(-ends[0] / step)
whole = round_straight_through(values / step + zero)
# Versions of PyTorch differ in the gradient of clamp() at its bounds, where the gradient passes here.
whole = torch.where((whole >= 0) & (whole <= 255), whole, whole.detach().clamp(0, 255))
plain = (whole - zero) * step
wanted = gradients(plain)
step = (ends[1] - ends[0]) / 255
short = build_rounding()(values, step, round_straight_through(-ends[0] / step))
assert torch.allclose(short, plain), "values"
assert len(short.unique()) > 50 and short.min() > -1.71 and short.max() < 3.11
for found, expected in zip(gradients(short), wanted):
    assert torch.allclose(found, expected), (found, expected)
"""


def test_rounding_has_the_gradients_of_the_plain_formula(torch: None) -> None:
    run_elsewhere(ROUNDED)


PRETRAINED = """
import sys
import numpy as np
from capsule_edge.runtime.errors import InputError
from capsule_edge.train.gpu.torch_training import build_graph
from capsule_edge.train.models.pretrained import from_efficientnet_lite

graph = build_graph("efficientnet_lite2", size=64, labels=3, branched=False)
theirs = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
parts = {"expand_conv": "_expand_conv", "expand_bn": "_bn0", "dwconv": "_depthwise_conv", "bn": "_bn1",
         "project_conv": "_project_conv", "project_bn": "_bn2"}
outside = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1"}
blocks, state = [], {"_fc.weight": np.zeros((1000, 1280)), "_bn0.num_batches_tracked": np.int64(0)}
mine = {name: array for name, array in graph.arrays().items() if not name.startswith("logits")}
for name, tensor in graph.tensors().items():
    layer, variable = name.split("/")
    if layer == "logits":
        continue
    if layer in outside:
        key = outside[layer]
    else:
        block, part = layer.split("_", 1)
        blocks = blocks if block in blocks else [*blocks, block]
        key = f"_blocks.{blocks.index(block)}.{parts[part]}"
    state[f"{key}.{theirs.get(variable, 'weight')}"] = tensor.detach().numpy()
assert len(blocks) == 21
found = from_efficientnet_lite(state, "efficientnet_lite2")
assert found.keys() == mine.keys()
assert all(np.array_equal(found[name], mine[name]) for name in mine)
for change in ("short", "odd", "missing"):
    wrong = dict(state)
    if change == "short":
        wrong["_bn0.bias"] = np.zeros(31)
    elif change == "odd":
        wrong["_blocks.40._bn1.bias"] = np.zeros(32)
    else:
        del wrong["_bn1.bias"]
    try:
        from_efficientnet_lite(wrong, "efficientnet_lite2")
    except InputError as error:
        print(error)
"""


def test_pytorch_weights_of_efficientnet_lite_are_converted_by_name(torch: None) -> None:
    printed = run_elsewhere(PRETRAINED)
    short, odd, missing = printed.strip().splitlines()
    assert "_bn0.bias is (31,)" in short
    assert "_blocks.40._bn1.bias" in odd
    assert "1 tensors of efficientnet_lite2 are missing, first top_bn/beta" in missing
