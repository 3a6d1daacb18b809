"""Many images at once: the same results in the same order, errors of one alone, bounded memory."""

import threading

import numpy as np
import pytest
from PIL import Image

from polc_runtime import BitstreamError, Codec, ImageError, PolcError, UsageError
from polc_runtime.backends.wrapper import BackendWrapper
from polc_runtime.bench.speed.plan import synthetic_picture
from polc_runtime.codec.pipeline import compress_many, decompress_many
from polc_runtime.trace import listening
from polc_runtime.workers import READ, WAIT

SIZES = [(64, 80), (130, 70), (33, 200), (192, 192), (50, 50), (65, 64)]


class Probe(BackendWrapper):
    """A backend that notes how many of its graphs run at once, and on which threads."""

    def __init__(self, backend):
        super().__init__(backend)
        self.lock, self.inside, self.most, self.threads = threading.Lock(), 0, 0, set()

    def run(self, graph, inputs):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.threads.add(threading.get_ident())
        try:
            return self.backend.run(graph, inputs)
        finally:
            with self.lock:
                self.inside -= 1


@pytest.fixture(scope="module")
def codec():
    with Codec.load("nano", threads=1) as codec:
        yield codec


@pytest.fixture(scope="module")
def images():
    return [synthetic_picture(*size) for size in SIZES]


@pytest.fixture(scope="module")
def files(codec, images):
    return [codec.compress(image, 3) for image in images]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_those_of_one_after_another_in_order(codec, images, files, workers):
    outcomes = list(compress_many(codec, images, 3, workers))
    assert [outcome.index for outcome in outcomes] == list(range(len(images)))
    assert [outcome.result() for outcome in outcomes] == files
    for outcome, data in zip(decompress_many(codec, files, workers), files, strict=True):
        np.testing.assert_array_equal(outcome.result(), codec.decompress(data))


def test_files_are_read_from_paths_and_bytes(codec, images, files, tmp_path):
    for number, (image, data) in enumerate(zip(images, files, strict=True)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.polc").write_bytes(data)
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    assert [outcome.result() for outcome in compress_many(codec, paths, 3)] == files
    assert [outcome.result() for outcome in compress_many(codec, map(str, paths), 3)] == files
    assert [outcome.result() for outcome in compress_many(codec, map(Image.fromarray, images), 3)] == files
    inside = [path.read_bytes() for path in paths]
    assert [outcome.result() for outcome in compress_many(codec, inside, 3)] == files
    coded = [path.with_suffix(".polc") for path in paths]
    for outcome, data in zip(decompress_many(codec, [*coded[:3], *map(str, coded[3:])]), files, strict=True):
        np.testing.assert_array_equal(outcome.result(), codec.decompress(data))


def test_an_item_that_fails_leaves_the_others(codec, images, files, tmp_path):
    mixed = [images[0], tmp_path / "none.png", b"no picture", images[3].astype(np.float32), images[4]]
    outcomes = list(compress_many(codec, mixed, 3, workers=2))
    assert [outcome.error is None for outcome in outcomes] == [True, False, False, False, True]
    assert [outcomes[0].value, outcomes[4].value] == [files[0], files[4]]
    with pytest.raises(PolcError, match="none.png"):
        outcomes[1].result()
    assert isinstance(outcomes[2].error, ImageError)
    damaged = bytearray(files[1])
    damaged[-10] ^= 1
    outcomes = list(decompress_many(codec, [files[0], bytes(damaged), files[2]], workers=2))
    assert isinstance(outcomes[1].error, BitstreamError)
    assert outcomes[0].error is None and outcomes[2].error is None


def test_graphs_run_one_at_a_time_on_several_threads(codec, images, files):
    probe = Probe(codec.backend)
    assert [each.result() for each in compress_many(codec.over(probe), images, 3, workers=3)] == files
    assert probe.most == 1 and len(probe.threads) > 1


class Elsewhere(Probe):
    """A backend that says it runs on another device, where two graphs must meet."""

    def __init__(self, backend):
        super().__init__(backend)
        self.meeting = threading.Barrier(2)

    def run(self, graph, inputs):
        if graph == "analysis":
            self.meeting.wait(timeout=30)
        return super().run(graph, inputs)

    @property
    def device(self):
        return "elsewhere"


def test_on_another_device_graphs_of_several_items_run_at_once(codec, images, files):
    elsewhere = codec.over(Elsewhere(codec.backend))
    assert [each.result() for each in compress_many(elsewhere, images, 3, workers=2)] == files


def test_no_more_items_are_held_than_twice_the_workers(codec, images):
    taken, most = 0, 0

    def source():
        nonlocal taken
        for image in images * 3:
            taken += 1
            yield image

    for given, _ in enumerate(compress_many(codec, source(), 1, workers=2), 1):
        most = max(most, taken - given + 1)
    assert taken == 3 * len(images) and most == 4


def test_leaving_early_stops_the_work(codec, images):
    taken = []

    def source():
        for image in images * 10:
            taken.append(1)
            yield image

    outcomes = compress_many(codec, source(), 1, workers=2)
    next(outcomes)
    outcomes.close()
    assert len(taken) <= 5
    assert not [t for t in threading.enumerate() if t.name.startswith("polc-pipeline") and t.is_alive()]


def test_what_cannot_be_an_image_or_a_file_fails_alone(codec, images, files):
    outcomes = list(compress_many(codec, [None, images[0], 7], 3))
    assert [outcome.value for outcome in outcomes] == [None, files[0], None]
    assert isinstance(outcomes[0].error, UsageError)
    assert [outcome.error is None for outcome in decompress_many(codec, [None, files[0]])] == [False, True]


def test_an_error_that_nobody_expected_is_the_outcome_of_its_item(codec, images, files):
    class Faulty(Probe):
        """A backend that fails on one image, with an error that is not polc's."""

        def run(self, graph, inputs):
            if graph == "analysis" and inputs["image"].shape[3] == 256:
                raise ZeroDivisionError("a fault")
            return super().run(graph, inputs)

    outcomes = list(compress_many(codec.over(Faulty(codec.backend)), images[:4], 3, workers=2))
    assert [outcome.value for outcome in outcomes] == [files[0], files[1], None, files[3]]
    assert isinstance(outcomes[2].error, ZeroDivisionError)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"networks": 0}])
def test_nobody_to_work_is_refused_at_once(codec, wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} must be at least 1, got 0"):
        compress_many(codec, [], 3, **wrong)
    with pytest.raises(UsageError, match="must be at least 1, got 0"):
        decompress_many(codec, [], **wrong)


def test_no_items_are_no_outcomes(codec):
    assert list(compress_many(codec, [])) == []


def test_the_callers_listener_hears_every_thread(codec, images, tmp_path):
    from contextlib import nullcontext

    heard, lock = set(), threading.Lock()

    def listener(name):
        with lock:
            heard.add((name, threading.get_ident()))
        return nullcontext()

    Image.fromarray(images[0]).save(tmp_path / "a.png")
    with listening(listener):
        list(compress_many(codec, [tmp_path / "a.png"] * 6, 3, workers=2))
    assert {READ, WAIT, "entropy", "symbols", "pixels", "container"} <= {name for name, _ in heard}
    assert threading.get_ident() not in {thread for _, thread in heard}
