"""Coding for real while a model trains: what it gives, and that the model is left as it is."""

import numpy as np
import pytest
from formula import formula_codec

from polc import preset, set_attention_kernel
from polc_training.validate import RealCoder


@pytest.fixture
def codec():
    return formula_codec(preset("polc-tiny"))


def test_a_model_that_is_coded_with_keeps_its_kernels_and_its_mode(codec):
    codec.train()
    codec.g_s.eval()
    set_attention_kernel(codec, "portable")
    set_attention_kernel(codec.h_s, "reference")
    before = [(getattr(m, "kernel", None), m.training) for m in codec.modules()]
    coder = RealCoder(codec)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    coder.synthesise(coder.code(pixels, 3.0), 70, 90)
    assert [(getattr(m, "kernel", None), m.training) for m in codec.modules()] == before


def test_a_model_in_training_mode_codes_as_in_evaluation_mode(codec):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    for module in codec.modules():
        if hasattr(module, "drop_path_rate"):
            module.drop_path_rate = 0.5
    expected = RealCoder(codec.eval()).code(pixels, 3.0)
    coded = RealCoder(codec.train()).code(pixels, 3.0)
    assert (coded.bpp, coded.estimated_bpp) == (expected.bpp, expected.estimated_bpp)
    assert 0 < coded.payload_bpp < coded.bpp
