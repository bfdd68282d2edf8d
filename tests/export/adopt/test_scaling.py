"""The scaling of pixels: as options write it, as a file states it, and never guessed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from foreign_models import IMAGENET_DEVIATION, IMAGENET_MEAN, write_names
from onnx import helper, numpy_helper

from capsule_edge.export.adopt import AdoptOptions, adopt
from capsule_edge.export.adopt.float_body import Entry
from capsule_edge.export.adopt.graph import Graph
from capsule_edge.export.adopt.input_chain import follow_input, stated_scaling
from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.export.adopt.scaling import parse_scaling
from capsule_edge.runtime.errors import ModelError, UsageError
from capsule_edge.runtime.inference import open_model

FRAMES = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0..255", FRAMES),
        ("0..1", FRAMES / 255),
        ("-1..1", FRAMES / 127.5 - 1),
        ("imagenet", (FRAMES / 255 - IMAGENET_MEAN) / IMAGENET_DEVIATION),
        ("128,64", (FRAMES - 128.0) / 64),
        ("10,20,30,40,50,60", (FRAMES - [10.0, 20, 30]) / [40, 50, 60]),
    ],
)
def test_pixels_are_scaled_as_stated(text, expected):
    scaling = parse_scaling(text, "rgb")
    np.testing.assert_allclose(scaling.apply(FRAMES, "nhwc"), expected, atol=1e-5)
    np.testing.assert_allclose(scaling.apply(FRAMES, "nchw"), expected.transpose(0, 3, 1, 2), atol=1e-5)
    turned = parse_scaling(text, "bgr").apply(FRAMES, "nhwc")
    np.testing.assert_allclose(turned, expected[..., ::-1], atol=1e-5)


def test_caffe_takes_means_off_with_blue_first():
    """The source is the documentation of ``caffe`` in keras.applications.imagenet_utils."""
    scaling = parse_scaling("caffe", None)
    assert scaling.channels == "bgr"
    expected = FRAMES[..., ::-1] - np.array([103.939, 116.779, 123.68])
    np.testing.assert_allclose(scaling.apply(FRAMES, "nhwc"), expected, atol=1e-4)


def test_the_order_of_colours_is_not_guessed():
    assert parse_scaling("0..1", None) is None
    assert parse_scaling("imagenet", None).channels == "rgb"


@pytest.mark.parametrize(
    "text", ["", "torch", "1", "1,2,3", "1,2,3,4,5", "nan,1", "a,b", "128,0", "0,inf", "1,-2"]
)
def test_a_scaling_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="scaling"):
        parse_scaling(text, "rgb")


def test_a_deviation_for_pixels_up_to_1_is_refused_with_its_value_in_levels():
    with pytest.raises(UsageError, match=r"deviation 0\.229.*58\.395"):
        parse_scaling("0.485,0.229", "rgb")


def begin_with(proto: onnx.ModelProto, *steps: tuple[str, object]) -> None:
    """Put arithmetic with constants before the network."""
    value, nodes = "input", []
    for at, (kind, constant) in enumerate(steps):
        name = f"scaling{at}"
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(constant, np.float32), name))
        nodes.append(helper.make_node(kind, [value, name], [f"{name}/out"], name=f"/{name}"))
        value = f"{name}/out"
    rest = list(proto.graph.node)
    for node in rest:
        for at, given in enumerate(node.input):
            if given == "input":
                node.input[at] = value
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])


MEAN, DEVIATION = IMAGENET_MEAN.reshape(1, 3, 1, 1), IMAGENET_DEVIATION.reshape(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("steps", "stated"),
    [
        ([], None),
        ([("Div", 255.0)], "0..255"),
        ([("Mul", 1 / 255), ("Sub", MEAN), ("Div", DEVIATION)], "0..255"),
        ([("Mul", 1 / 127.5), ("Sub", 1.0)], "0..255"),
        ([("Sub", MEAN), ("Div", DEVIATION)], "0..1"),
        ([("Sub", np.array([103.9, 116.8, 123.7]).reshape(1, 3, 1, 1))], "0..255"),
        ([("Mul", 1.0)], None),
        ([("Mul", 0.03)], "0..255"),
        ([("Add", 0.2)], None),
        # For pixels of -1..1: their share of 255, and what training took off and divided by.
        ([("Add", 1.0), ("Div", 2.0)], None),
        ([("Mul", 0.5), ("Add", 0.5), ("Sub", MEAN), ("Div", DEVIATION)], None),
        ([("Sub", 2 * MEAN - 1), ("Div", 2 * DEVIATION)], None),
        ([("Sub", 0.1), ("Div", 0.4)], None),
        ([("Mul", 2.0)], None),
        ([("Mul", 2.0), ("Sub", 1.0)], "0..1"),
        # For levels around 0, and for inverted ones.
        ([("Div", 255.0), ("Add", 0.5)], None),
        ([("Mul", -1 / 255), ("Add", 1.0)], "0..255"),
    ],
)
def test_what_the_first_operations_say_is_read(foreign, tmp_path, steps, stated):
    proto = onnx.load(foreign("residual"))
    begin_with(proto, *steps)
    onnx.save(proto, tmp_path / "model.onnx")
    source = read_onnx(tmp_path / "model.onnx")
    assert stated_scaling(follow_input(Graph(source.proto), source.input, source.layout)) == stated


def test_a_file_that_scales_its_input_itself_needs_no_option(foreign, colours, names, tmp_path):
    """Its own operations are joined with the scaling, and its answers stay those of the file that does not scale."""
    proto = onnx.load(foreign("residual"))
    begin_with(proto, ("Mul", 1 / 255), ("Sub", MEAN), ("Div", DEVIATION))
    onnx.save(proto, tmp_path / "model.onnx")
    report = adopt(tmp_path / "model.onnx", names, colours, tmp_path / "own", AdoptOptions(channels="rgb"))
    assert report.source["scaling"] == "0..255"
    assert report.source["stated_by"]["scaling"] == "file"
    adopt(foreign("residual"), names, colours, tmp_path / "plain", AdoptOptions(scaling="imagenet"))
    frames = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    a, b = (open_model(tmp_path / name / "model.fp32.onnx").run(frames).logits for name in ("own", "plain"))
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


def test_an_unstated_scaling_is_asked_for_with_the_figures_of_each(foreign, colours, names, tmp_path):
    with pytest.raises(UsageError, match="does not state the scaling") as caught:
        adopt(foreign("residual"), names, colours, tmp_path / "out")
    message = str(caught.value)
    figures = {
        part.split(": ")[0].split(" is ")[-1].strip(): float(part.split(": ")[1][:5])
        for part in message.split("; balanced accuracy on ")[1].split(" (give")[0].split("; ")
    }
    assert {"imagenet, rgb", "caffe, bgr", "0..1, rgb", "0..1, bgr"} <= set(figures)
    assert max(figures, key=figures.get) == "imagenet, rgb"
    assert "--scaling" in message
    assert not (tmp_path / "out").exists()


def test_an_unstated_order_of_colours_is_asked_for(foreign, colours, names, tmp_path):
    with pytest.raises(UsageError, match=r"does not state the order of the colours.*--channels"):
        adopt(foreign("residual"), names, colours, tmp_path / "out", AdoptOptions(scaling="0..1"))


def test_a_scaling_that_makes_every_answer_the_same_is_refused(foreign, colours, names, tmp_path):
    options = AdoptOptions(scaling="100000,1000000", channels="rgb")
    with pytest.raises(
        ModelError, match=r"100000,1000000, rgb the model answers all \d+ frames alike|guessing"
    ):
        adopt(foreign("residual"), names, colours, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_answers_no_better_than_guessing_are_refused_with_both_figures(foreign, colours, tmp_path):
    wrong = write_names(tmp_path / "labels.yaml", ["bleeding", "polyp", "normal"])
    with pytest.raises(
        ModelError, match=r"balanced accuracy on \d+ frames is .* guessing among 3 labels gives 0\.333"
    ):
        adopt(foreign("residual"), wrong, colours, tmp_path / "out", AdoptOptions(scaling="imagenet"))


@pytest.mark.parametrize(
    ("scales", "scaling", "asks"), [(False, "imagenet", True), (True, None, False), (True, "0..255", False)]
)
def test_leaving_out_the_scaling_is_proposed_where_that_shows_figures(
    foreign, colours, tmp_path, scales, scaling, asks
):
    """A file that states its scaling is read by that; leaving the option out would show nothing."""
    proto = onnx.load(foreign("residual"))
    if scales:
        begin_with(proto, ("Mul", 1 / 255), ("Sub", MEAN), ("Div", DEVIATION))
    onnx.save(proto, tmp_path / "model.onnx")
    wrong = write_names(tmp_path / "labels.yaml", ["bleeding", "polyp", "normal"])
    with pytest.raises(ModelError, match="guessing") as caught:
        adopt(
            tmp_path / "model.onnx", wrong, colours, tmp_path / "out",
            AdoptOptions(scaling=scaling, channels="rgb"),
        )  # fmt: skip
    assert ("without --scaling you are shown" in caught.value.hint) is asks


def test_an_option_that_contradicts_the_last_operation_is_refused(foreign, colours, names, tmp_path):
    with pytest.raises(UsageError, match=r"--outputs is sigmoid, but .*Gemm.*logits"):
        adopt(
            foreign("residual"), names, colours, tmp_path / "out",
            AdoptOptions(scaling="imagenet", outputs="sigmoid"),
        )  # fmt: skip


def test_levels_are_taken_as_they_are_where_padding_stays_exact():
    """0..1 has the level 0 as its zero and one gain; the mean of -1..1 lies between two levels, ImageNet's differ."""

    def zero_point(text: str) -> int | None:
        scaling = parse_scaling(text, "rgb")
        return Entry(scaling.gain, scaling.offset, "nchw", reversed=False).zero_point

    assert zero_point("0..1") == zero_point("0..255") == 0
    assert zero_point("128,128") == 128
    assert zero_point("-1..1") is zero_point("imagenet") is None


@pytest.mark.parametrize("text", ["0..1", "-1..1", "imagenet"])
def test_a_first_convolution_without_padding_takes_the_scaling_in(foreign, colours, names, tmp_path, text):
    """A patch embedding has no padding, so the levels are its input in both files, and nothing else scales."""
    report = adopt(
        foreign("transformer"), names, colours, tmp_path / "out",
        AdoptOptions(scaling=text, channels="rgb", accept_weak=True),
    )  # fmt: skip
    proto = onnx.load(tmp_path / "out" / "model.int8.onnx")
    assert report.conversion["max_abs_dp"] < 1e-4
    assert [node.op_type for node in proto.graph.node[:2]] == ["Transpose", "DequantizeLinear"]
    assert "Cast" not in {node.op_type for node in proto.graph.node}
