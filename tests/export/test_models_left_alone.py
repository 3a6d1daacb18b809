"""An export leaves the caller's model as it is: attention kernels and training mode of every module."""

import pytest
from formula import formula_codec

from polc import preset, set_attention_kernel
from polc_export.onnx.graph import export_graph
from polc_export.torchscript import trace_graph


@pytest.mark.parametrize("export", [lambda spec: export_graph(spec, 20, {}), trace_graph])
def test_an_export_leaves_kernels_and_modes_alone(export):
    codec = formula_codec(preset("polc-tiny")).train()
    codec.g_s.eval()
    set_attention_kernel(codec, "reference")
    set_attention_kernel(codec.h_s, "tiled")
    spec = codec.graphs()["hyper_synthesis"]
    before = [(getattr(m, "kernel", None), m.training) for m in codec.modules()]
    export(spec)
    assert [(getattr(m, "kernel", None), m.training) for m in codec.modules()] == before
