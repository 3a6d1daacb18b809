"""Shape profiles: sizes and batches from the command line to the shapes of every input."""

import pytest

from polc_export.tensorrt.profiles import ranges_of, shapes_for
from polc_export.tensorrt.shapes import Batch, Shapes, Size
from polc_runtime import Bundle, BundleError, UsageError
from polc_runtime.bundle import GraphFile, SizeRule

SHAPES = Shapes(Size(192, 256), Size(512, 768), Size(1088, 1920), Batch(1, 2, 4))

PLAN = Bundle.load("nano").manifest.plan


def graph(inputs, exact=False):
    return GraphFile("g", "graphs/g.onnx", "0" * 64, "fp32", 20, inputs, {}, exact, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("512", "expected HEIGHTxWIDTH in pixels, such as 512x768"),
        ("512x768x3", "expected HEIGHTxWIDTH"),
        ("-512x768", "expected HEIGHTxWIDTH"),
    ],
)
def test_what_is_not_a_size_is_refused(text, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        Size.parse(text, "--min-shape")
    assert str(caught.value).startswith(f"--min-shape {text}: ")


@pytest.mark.parametrize("size", [Size(500, 768), Size(128, 768)])
def test_a_size_that_images_are_not_padded_to_is_refused(size):
    said = f"--min-shape {size}: both sides must be multiples of 64 from 192 on, as the bundle's images"
    with pytest.raises(UsageError, match=said):
        Shapes(min=size).check(PLAN.pad)
    SHAPES.check(PLAN.pad)


def test_a_task_of_another_multiple_counts_its_own_unit():
    """`8*h` rows of the latent are 128 h pixels."""
    ranges = ranges_of(graph({"y_hat": ("batch", 8, "8*h", "8*w"), "quality": ("batch",)}), SHAPES, PLAN)
    assert ranges["y_hat"].opt == (2, 8, 32, 48)


def test_sizes_are_height_by_width():
    assert Size.parse("512x768", "--opt-shape") == Size(512, 768) and str(Size(512, 768)) == "512x768"


@pytest.mark.parametrize("text", ["0", "1:2", "2:1:4", "1:8:4", "a", "0:1:2"])
def test_batches_that_do_not_ascend_are_refused(text):
    with pytest.raises(UsageError, match=f"^--batch {text}: expected"):
        Batch.parse(text)


def test_a_batch_is_one_number_or_three():
    assert Batch.parse("4") == Batch(4, 4, 4) and Batch.parse("1:4:8") == Batch(1, 4, 8)


def test_shapes_that_do_not_ascend_are_refused_with_the_side():
    with pytest.raises(UsageError, match="a width of 256 in --min-shape, 768 in --opt-shape, 640 in --max"):
        Shapes(Size(192, 256), Size(512, 768), Size(1088, 640))


def test_inputs_take_their_shapes_from_their_axes():
    ranges = ranges_of(
        graph(
            {"image": ("batch", 3, "64*h", "64*w"), "y": ("batch", 8, "4*h", "4*w"), "quality": ("batch",)}
        ),
        SHAPES,
        PLAN,
    )
    assert ranges["image"].min == (1, 3, 192, 256) and ranges["image"].opt == (2, 3, 512, 768)
    assert ranges["image"].max == (4, 3, 1088, 1920)
    assert ranges["y"].max == (4, 8, 68, 120) and ranges["quality"].opt == (2,)


def test_exact_graphs_take_one_image_at_a_time():
    found = ranges_of(graph({"z_hat": ("batch", 8, "h", "w")}, exact=True), SHAPES, PLAN)["z_hat"]
    assert (found.min, found.opt, found.max) == ((1, 8, 3, 4), (1, 8, 8, 12), (1, 8, 17, 30))


def test_an_axis_nobody_knows_is_an_error_that_names_it():
    with pytest.raises(BundleError, match="g: the axis '32.k' of image is not one that this program knows"):
        ranges_of(graph({"image": ("batch", 3, "32*k", "64*w")}), SHAPES, PLAN)


def test_every_graph_of_a_bundle_has_ranges_that_admit_what_lies_between():
    for entry in Bundle.load("nano").manifest.graphs:
        for found in ranges_of(entry, SHAPES, PLAN).values():
            assert found.admits(found.min) and found.admits(found.opt) and found.admits(found.max)
            assert not found.admits((*found.max[:-1], found.max[-1] + 1))
            assert not found.admits((*found.max, 1))


@pytest.mark.parametrize(
    ("rule", "smallest", "usual", "largest"),
    [
        (SizeRule(), (192, 256), (512, 768), (1088, 1920)),
        (SizeRule(fixed=(16, 14)), (256, 224), (256, 224), (256, 224)),
        (SizeRule(minimum=20), (320, 320), (512, 768), (1088, 1920)),
        (SizeRule(multiple=32), (512, 512), (512, 1024), (1024, 1536)),
        (SizeRule(minimum=80), (1280, 1280), (1280, 1280), (1280, 1920)),
    ],
)
def test_a_task_takes_as_much_as_its_rule_admits(rule, smallest, usual, largest):
    fitted = SHAPES.fitted(rule, 16)
    found = [(size.height, size.width) for size in (fitted.min, fitted.opt, fitted.max)]
    assert found == [smallest, usual, largest]
    assert all(rule.admits(height // 16, width // 16) for height, width in found)


def test_the_rule_of_a_graph_is_that_of_its_task():
    manifest = Bundle.load("nano").manifest
    task = manifest.task("cifar10")
    assert shapes_for(manifest, manifest.graph(task.graph), SHAPES) == SHAPES.fitted(task.sizes, 16)
    assert shapes_for(manifest, manifest.graph("synthesis"), SHAPES) is SHAPES
