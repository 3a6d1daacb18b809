"""CompressAI's codecs: which checkpoints load, and that symbols, bytes and images are compressai's own."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from compressai.layers import GDN
from compressai_models import ZOO, random_model

from polc import CheckpointError, codec_id, fingerprint, load_checkpoint, save_checkpoint, save_official
from polc.backends.torch import TorchBackend
from polc.families.compressai.codec import folded
from polc.identity import canonical_layout
from polc_runtime.bitstream.container import Container, Header, quality_code
from polc_runtime.bitstream.plan import Pad
from polc_runtime.codec.latent import LatentCoder

MEAN, SCALE, FACTORIZED = "mbt2018-mean", "bmshj2018-hyperprior", "bmshj2018-factorized"
LEVEL = np.array([4.0], np.float32)
SPELLINGS = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}


def photo_like(height, width, seed=3):
    """Smooth shapes and some noise, float32 [1,3,H,W] in 0..1."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(rows / (5 + 3 * c)) * np.cos(columns / (7 + 2 * c)) for c in range(3)]
    noise = np.random.default_rng(seed).standard_normal((3, height, width))
    return np.clip(0.5 + 0.35 * np.stack(waves) + 0.06 * noise, 0, 1).astype(np.float32)[None]


def written(tmp_path, content, name="a.pth.tar"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


@pytest.fixture(scope="module")
def model():
    return random_model(MEAN, 16, 24)


def old_spelling(state):
    for new, old in SPELLINGS.items():
        state = {
            key.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}"): v
            for key, v in state.items()
        }
    return state


def older_spelling(state):
    for new in SPELLINGS:
        state = {
            k.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck._{new}"): v for k, v in state.items()
        }
    return state


def without_tables(state):
    ends = ("_quantized_cdf", "_offset", "_cdf_length", "scale_table")
    return {key: torch.zeros(0) if key.endswith(ends) else value for key, value in state.items()}


@pytest.mark.parametrize(
    "change",
    [
        dict,
        old_spelling,
        older_spelling,
        without_tables,
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"epoch": 9, "state_dict": state},
        lambda state: {"state_dict": old_spelling(without_tables(state))},
    ],
    ids=["raw", "_matrix0", "_matrices.0", "no tables", "module.", "state_dict", "as an example saves it"],
)
def test_every_layout_of_a_checkpoint_loads(model, tmp_path, change):
    codec = load_checkpoint(written(tmp_path, change(model.state_dict()))).codec
    assert codec.config.to_dict() == {"architecture": MEAN, "N": 16, "M": 24}
    ours = codec.official_weights()
    theirs = old_spelling(dict(model.named_parameters()))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    tables = codec.tables()
    for table, entropy in (
        (tables.hyper, model.entropy_bottleneck),
        (tables.latent, model.gaussian_conditional),
    ):
        np.testing.assert_array_equal(table.cdf, entropy.quantized_cdf)
        np.testing.assert_array_equal(table.offsets, entropy.offset)


@pytest.mark.parametrize("name", [MEAN, FACTORIZED])
def test_stored_tables_are_kept_though_another_version_made_them(tmp_path, name):
    state = random_model(name, 16, 24).state_dict()
    cdf = state["entropy_bottleneck._quantized_cdf"].clone()
    cdf[3, 5] += 1
    checkpoint = load_checkpoint(written(tmp_path, {**state, "entropy_bottleneck._quantized_cdf": cdf}))
    tables, origin = checkpoint.tables()
    np.testing.assert_array_equal(tables.hyper.cdf, cdf)
    assert "kept (largest difference 1)" in origin


@pytest.mark.parametrize(
    ("name", "n", "m", "size"),
    [
        (MEAN, 16, 24, (64, 64)),
        (MEAN, 24, 40, (128, 192)),
        (SCALE, 16, 24, (64, 128)),
        (FACTORIZED, 16, 24, (64, 112)),
    ],
)
def test_bytes_and_images_are_compressais(tmp_path, name, n, m, size):
    model = random_model(name, n, m)
    codec = load_checkpoint(written(tmp_path, model.state_dict())).codec
    check_equal(model, codec, photo_like(*size))


@pytest.mark.slow
@pytest.mark.parametrize("quality", range(1, 9))
def test_bytes_and_images_are_compressais_at_the_zoos_sizes(tmp_path, quality):
    model = random_model(MEAN, *ZOO[quality], seed=quality)
    codec = load_checkpoint(written(tmp_path, model.state_dict())).codec
    check_equal(model, codec, photo_like(128, 192, seed=quality))


def check_equal(model, codec, image):
    """Both code an image to the same bytes, decode the other's, and draw the same image within a level."""
    with torch.no_grad():
        expected = model.compress(torch.from_numpy(image))
        x_hat = model.decompress(expected["strings"], expected["shape"])["x_hat"].numpy()
    y_string, *z_strings = (strings[0] for strings in expected["strings"])
    backend, tables = TorchBackend(codec), codec.tables()
    coder = LatentCoder(backend, tables, codec.plan)
    latents = backend.run("analysis", {"image": image, "quality": LEVEL})
    z = latents["z"][0] if z_strings else None
    coded = coder.encode(latents["y"][0], z, 4.0)
    assert coded.y == [y_string] and coded.z == (z_strings[0] if z_strings else None)
    assert (coded.y_hat != 0).mean() > 0.5, "the case is not trivial"
    header = Header(bytes(8), bytes(4), image.shape[3], image.shape[2], quality_code(4, 4, 4))
    unpacked = Container.unpack(coded.container(header).pack())
    np.testing.assert_array_equal(coder.decode(unpacked), coded.y_hat)
    drawn = backend.run("synthesis", {"y_hat": coded.y_hat[None], "quality": LEVEL})["image"]
    levels = [np.rint(255 * picture).astype(int) for picture in (drawn, x_hat)]
    assert np.abs(levels[0] - levels[1]).max() <= 1 and x_hat.std() > 0.1


def test_a_folded_normalisation_is_the_layers_own_with_all_its_bounds():
    torch.manual_seed(0)
    for inverse in (False, True):
        layer = GDN(8, inverse=inverse)
        with torch.no_grad():
            layer.beta.uniform_(-0.5, 1)
            layer.gamma.uniform_(-0.2, 0.4)
        x = 3 * torch.randn(2, 8, 5, 6)
        (plain,) = folded(torch.nn.Sequential(layer))
        assert torch.equal(plain(x), layer(x))
        assert {type(part) for part in plain.modules()} == {type(plain), torch.nn.Conv2d}


def test_fingerprint_covers_what_decoding_depends_on(model, tmp_path):
    codec = load_checkpoint(written(tmp_path, model.state_dict())).codec
    tables = codec.tables()
    before = fingerprint(codec, tables), codec_id(codec)
    with torch.no_grad():
        codec.network.g_s[0].bias += 1
    assert fingerprint(codec, tables) == before[0] and codec_id(codec) != before[1]
    with torch.no_grad():
        codec.network.h_s[0].bias += 1
    assert fingerprint(codec, tables) != before[0]


def test_fingerprint_covers_the_plan_as_the_document_says(model, tmp_path):
    codec = load_checkpoint(written(tmp_path, model.state_dict())).codec
    text = (
        b'{"hyper":{"channels":16,"graph":"hyper_synthesis","stride":64},"latent":{"channels":24,"stride":16},'
        b'"pad":{"min":64,"multiple":64},'
        b'"steps":[{"channels":[0,24],"graph":"hyper_synthesis","positions":"all"}]}'
    )
    assert canonical_layout(codec.plan) == text
    tables = codec.tables()
    tensors = {k: v.detach().numpy() for k, v in codec.official_weights().items() if k.startswith("h_s.")}
    for name, table in (("entropy_bottleneck", tables.hyper), ("gaussian_conditional", tables.latent)):
        tensors[f"{name}._quantized_cdf"] = table.cdf[:, : table.lengths.max()]
        tensors |= {f"{name}._cdf_length": table.lengths, f"{name}._offset": table.offsets}
    tensors["entropy_bottleneck.medians"] = tables.medians
    tensors["gaussian_conditional.scale_table"] = tables.scale_table
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        kind = "<i4" if value.dtype == np.int32 else "<f4"
        digest.update(
            f"{name} {','.join(map(str, value.shape))} {kind}\n".encode() + value.astype(kind).tobytes()
        )
    expected = hashlib.sha256(digest.digest() + text).digest()
    assert fingerprint(codec, tables) == expected
    codec.plan = dataclasses.replace(codec.plan, pad=Pad(128, 128))
    assert fingerprint(codec, tables) != expected


@pytest.mark.parametrize("official", [False, True])
def test_a_saved_codec_is_the_same(model, tmp_path, official):
    codec = load_checkpoint(written(tmp_path, model.state_dict())).codec
    if official:
        save_official(tmp_path / "b.pth.tar", codec, codec.tables())
        state = torch.load(tmp_path / "b.pth.tar", weights_only=True)["state_dict"]
        random_model(MEAN, 16, 24, seed=1).load_state_dict(state, strict=False)
    else:
        save_checkpoint(tmp_path / "b.pth.tar", codec, {"steps": 7}, codec.tables())
    path = (tmp_path / "b.pth.tar").rename(tmp_path / ("b.pth.tar" if official else "b.safetensors"))
    again = load_checkpoint(path)
    assert codec_id(again.codec) == codec_id(codec) and again.stored_tables is not None
    assert again.metadata == ({} if official else {"steps": 7})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("h_s.2.bias"), "missing weights: h_s.2.bias"),
        (lambda s: s.pop("g_a.6.weight"), "missing weights: g_a.6.weight"),
        (lambda s: s.pop("g_a.1.beta"), "missing weights: g_a.1.beta"),
        (lambda s: s.update({"g_b.weight": torch.zeros(1)}), "unknown weights: g_b.weight"),
        (lambda s: s.update({"g_a.0.weight": torch.zeros(5, 5)}), r"g_a.0.weight has the shape \(5, 5\)"),
        (lambda s: s.update({"h_a.0.bias": torch.full((16,), torch.nan)}), "h_a.0.bias holds values"),
        (
            lambda s: s.update({"g_a.0.weight": torch.zeros(4000, 3, 5, 5)}),
            r"expected \(4000, 1, 3\)",
        ),
        (lambda s: s.pop("entropy_bottleneck.quantiles"), "missing weights: entropy_bottleneck.quantiles"),
        (
            lambda s: s.update({"context_prediction.weight": torch.zeros(1)}),
            "serial context .* not supported",
        ),
        (lambda s: s.update({"QuantABCD.a": torch.zeros(1)}), "variable-rate .* not supported"),
    ],
)
def test_wrong_weights_are_named(model, tmp_path, change, said):
    state = dict(model.state_dict())
    change(state)
    path = written(tmp_path, state)
    with pytest.raises(CheckpointError, match=said) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "mbt2018"}, "no architecture is named 'mbt2018'; there are bmshj2018-factorized"),
        ({"N": 0}, "widths from 1"),
        ({"colour": 3}, "expected M, N, architecture"),
        ({"N": 1 << 30}, "widths from 1"),
    ],
)
def test_own_layout_refuses_other_dimensions(model, tmp_path, change, said):
    import json

    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    codec = load_checkpoint(written(tmp_path, model.state_dict())).codec
    save_checkpoint(tmp_path / "b.safetensors", codec)
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        document = json.loads(file.metadata()["polc"])
    document["config"] |= change
    save_file(
        load_file(tmp_path / "b.safetensors"), tmp_path / "c.safetensors", {"polc": json.dumps(document)}
    )
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "c.safetensors")


def test_a_family_that_nobody_knows_is_refused_by_name(tmp_path):
    from safetensors.torch import save_file

    metadata = {"polc": '{"config": {}, "codec_family": "vvc"}'}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(
        CheckpointError, match="no codec family is named 'vvc'; there are tinylic, compressai"
    ):
        load_checkpoint(tmp_path / "a.safetensors")


def test_a_checkpoint_of_no_family_says_who_was_asked_and_what_was_found(tmp_path):
    path = written(tmp_path, {f"encoder.{i}.weight": torch.zeros(1) for i in range(9)})
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert "begins with encoder.0.weight, " in message and "and 4 more" in message
    assert "tinylic expects neighbourhood attention (g_a1.residual_group" in message
    assert "compressai expects convolutions with divisive normalisation (g_a.0.weight" in message
