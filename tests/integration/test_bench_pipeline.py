"""`polc-bench latency --pipeline`, and on the backend `torch`: throughput, stages, clocks, refusals."""

import json
import time
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

from polc_runtime.bench.speed.child import measure
from polc_runtime.bench.speed.plan import Configuration, TimedImage, synthetic_picture
from polc_runtime.cli.bench import main
from polc_runtime.trace import Steps

FAST = ("--size", "192x192", "--threads", "1", "--attention", "portable", "--warmup", "1", "--repeats", "2")
REPOSITORY = Path(__file__).resolve().parents[2]
CHECKPOINT = REPOSITORY / "models/polc-nano/polc-nano.safetensors"


def is_registered():
    return any(point.name == "torch" for point in metadata.entry_points(group="polc.backends"))


registered = pytest.mark.skipif(
    not is_registered(), reason="polc was installed before it had the backend torch"
)


def no_gpu():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Runs `polc-bench latency` on polc-nano in `tmp_path`; exit code, output, error lines."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main(["latency", "--bundle", "nano", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.splitlines()

    return run


def test_throughput_is_measured_for_each_number_under_way(bench):
    code, out, err = bench(*FAST, "--pipeline", "1,3", "--json")
    assert (code, err) == (0, [])
    (each,) = json.loads(out)["configurations"]
    found = [(p["operation"], p["workers"], p["images"]) for p in each["pipelines"]]
    assert found == [("compress", 1, 2), ("decompress", 1, 2), ("compress", 3, 6), ("decompress", 3, 6)]
    single = {operation["operation"]: operation["images_per_second"] for operation in each["operations"]}
    for pipeline in each["pipelines"]:
        assert pipeline["images_per_second"] == pytest.approx(pipeline["images"] / pipeline["seconds"])
        assert pipeline["megapixels_per_second"] == pytest.approx(
            pipeline["images_per_second"] * 192 * 192 / 1e6
        )
        assert pipeline["speedup"] == pytest.approx(
            pipeline["images_per_second"] / single[pipeline["operation"]]
        )
        stages = {stage["stage"]: stage for stage in pipeline["stages"]}
        expected = {"wait for the networks", "hyper_synthesis", "context steps", "symbols", "entropy"}
        own = {"compress": {"read", "analysis"}, "decompress": {"synthesis"}}[pipeline["operation"]]
        assert expected | own <= stages.keys()
        for stage in stages.values():
            assert stage["share"] == pytest.approx(
                stage["seconds"] * pipeline["images"] / pipeline["seconds"] / pipeline["workers"]
            )
            assert stage["device_seconds"] is None
        assert 0.5 < sum(stage["share"] for stage in stages.values()) < 1.5
        assert pipeline["device_busy"] is None


def test_throughput_is_in_the_table(bench, tmp_path):
    Image.fromarray(synthetic_picture(70, 90)).save(tmp_path / "photo.png")
    options = ("photo.png", *FAST[2:], "--operation", "compress", "--pipeline", "2")
    code, out, err = bench(*options)
    assert (code, err) == (0, [])
    (line,) = [line for line in out.splitlines() if "at once" in line]
    assert line.startswith("  compress, 2 at once: ") and "images/s" in line and "times one by one" in line
    rows = out.split(line)[1].splitlines()
    assert {"read", "wait for the networks"} <= {row[:23].strip() for row in rows}


def test_batches_have_no_pipeline(bench):
    code, out, _ = bench(*FAST, "--operation", "compress", "--batch", "1,2", "--pipeline", "1", "--json")
    one, two = json.loads(out)["configurations"]
    assert code == 0 and len(one["pipelines"]) == 1 and two["pipelines"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pipeline", "0"), "--pipeline: expected whole numbers from 1, such as 1,4,8; got '0'"),
        (("--device", "tpu"), "'tpu' is not one of 'cpu', 'cuda'"),
        (("--device", "cuda", "--attention", "native"), "the native attention cannot be measured here"),
    ],
)
def test_wrong_options_are_one_line(bench, arguments, message, monkeypatch):
    monkeypatch.setattr("polc_runtime.backends.op_library.CUDA_PATTERN", "none.*")
    code, out, err = bench(*arguments)
    assert (code, out, len(err)) == (2, "", 1) and message in err[0]


@registered
def test_the_model_itself_is_measured(bench):
    options = ("--backend", "torch", "--checkpoint", CHECKPOINT, *FAST, "--operation", "compress", "--json")
    code, out, err = bench(*options)
    assert (code, err) == (0, [])
    (each,) = json.loads(out)["configurations"]
    assert (each["backend"], each["device"], each["device_clock"]) == ("torch", "cpu", None)
    assert each["described"]["name"] == "torch" and each["described"]["threads"] == 1
    stages = {stage["stage"] for stage in each["operations"][0]["stages"]}
    assert {"analysis", "hyper_synthesis", "context_8"} <= stages


@registered
def test_the_model_needs_its_checkpoint(bench, tiny_checkpoint):
    code, _, err = bench("--backend", "torch", *FAST)
    assert code == 2 and "name the bundle's by --checkpoint" in err[0]
    code, _, err = bench("--backend", "torch", "--checkpoint", tiny_checkpoint, *FAST)
    assert code == 2 and "is another codec than the bundle's (codec_id " in err[0]


@registered
def test_cuda_without_a_device_is_refused_with_what_to_do(bench):
    no_gpu()
    code, _, err = bench("--backend", "torch", "--checkpoint", CHECKPOINT, "--device", "cuda", *FAST)
    assert code == 2 and "finds no CUDA device" in err[0] and "choose --device cpu" in err[0]


class Device:
    """A backend that says it runs on another device, whose clock tells a second for each run."""

    clock, device = "a clock of its own", "elsewhere"

    def __init__(self, backend):
        self.backend, self.name, self.timed, self.counts = backend, backend.name, False, {}

    def run(self, graph, inputs):
        if self.timed:
            self.counts[graph] = self.counts.get(graph, 0) + 1
        time.sleep(0.001)
        return self.backend.run(graph, inputs)

    def describe(self):
        return self.backend.describe()

    def time_graphs(self):
        self.timed = True

    def graph_seconds(self):
        found, self.counts = {name: float(count) for name, count in self.counts.items()}, {}
        return found

    def close(self):
        self.backend.close()


def test_a_devices_own_clock_is_told_beside_the_hosts(monkeypatch):
    from polc_runtime.bench.speed import child as latency_child
    from polc_runtime.bundle import Bundle

    make = latency_child.make_backend
    monkeypatch.setattr(latency_child, "make_backend", lambda *options: Device(make(*options)))
    configuration = Configuration(
        bundle=str(Bundle.load("nano").path),
        backend="onnxruntime",
        device="cpu",
        checkpoint=None,
        attention="portable",
        precision="fp32",
        threads=1,
        batch=1,
        picture=TimedImage("synthetic", 192, 192),
        quality=4.0,
        task=None,
        operations=("compress",),
        warmup=1,
        repeats=2,
        pipeline=(2,),
    )
    reports = []
    found = measure(configuration, Steps(configuration.rounds, reports.append)).to_dict()
    assert [report.done for report in reports] == [1, 2, 3, 4]
    assert (found["device"], found["device_clock"]) == ("elsewhere", "a clock of its own")
    (operation,) = found["operations"]
    stages = {stage["stage"]: stage for stage in operation["stages"]}
    assert stages["analysis"]["device_seconds"]["median"] == 1.0
    assert operation["context_steps"]["device_seconds"]["median"] == 9.0
    assert stages["entropy"]["device_seconds"] is None and stages["analysis"]["ratio"] is None
    (pipeline,) = found["pipelines"]
    stages = {stage["stage"]: stage for stage in pipeline["stages"]}
    total = sum(stage["device_seconds"] or 0.0 for stage in stages.values()) * pipeline["images"]
    assert pipeline["device_busy"] == pytest.approx(total / pipeline["seconds"]) and total > 0
