"""A CompressAI codec: its networks as graphs of plain convolutions, its tables, its coding plan."""

from __future__ import annotations

from typing import Any

import torch
from compressai.layers import GDN
from torch import Tensor, nn

from polc_runtime.bitstream.plan import CodingPlan, Hyper, Pad, Plane, Quality, Reach
from polc_runtime.bitstream.schedule import ALL_POSITIONS, Step
from polc_runtime.bitstream.tables import CdfTable, EntropyTables
from polc_runtime.bundle import Axes

from ...entropy import official_prior_keys
from ...graphs import Graph, GraphSpec
from ...model import FIXED_QUALITY, CodecModel
from ...reach import convolution_reach, total_stride
from ...tables import gaussian_table, scale_table
from .architectures import ARCHITECTURES, CompressAiConfig

HYPER_SYNTHESIS = "hyper_synthesis"
NETWORK = "network."


class CompressAiCodec(CodecModel):
    """A codec of one rate around a network of the package compressai.

    Args:
        config: architecture and dimensions.
    """

    family = "compressai"
    decoding = ("h_s.",)
    config: CompressAiConfig

    def __init__(self, config: CompressAiConfig) -> None:
        super().__init__()
        self.config = config
        self.architecture = ARCHITECTURES[config.architecture]
        self.network: Any = self.architecture.network(config.N, config.M)
        self.plan = self._plan()

    def _plan(self) -> CodingPlan:
        network, config = self.network, self.config
        stride, reach = total_stride(network.g_a), convolution_reach(network.g_a)
        hyper, z_stride, z_reach = None, stride, reach
        if self.architecture.hyper:
            z_stride = stride * total_stride(network.h_a)
            z_reach = convolution_reach(network.h_a, reach)
            hyper = Hyper(config.N, z_stride, HYPER_SYNTHESIS)
        return CodingPlan(
            pad=Pad(z_stride, 64),
            quality=Quality(FIXED_QUALITY, FIXED_QUALITY, FIXED_QUALITY),
            latent=Plane(config.M, stride),
            hyper=hyper,
            steps=(Step(0, None if hyper is None else HYPER_SYNTHESIS, slice(0, config.M), ALL_POSITIONS),),
            reach=Reach(stride * reach, z_stride * z_reach, convolution_reach(network.g_s), 64),
        )

    def graphs(self) -> dict[str, GraphSpec]:
        """See `CodecModel.graphs`; later changes of the weights do not change them."""
        network, plan = self.network, self.plan
        unit, ratio = plan.pad.multiple, plan.pad.multiple // plan.latent.stride
        image: Axes = ("batch", 3, f"{unit}*h", f"{unit}*w")
        y: Axes = ("batch", plan.latent.channels, f"{ratio}*h", f"{ratio}*w")
        g_a, g_s = folded(network.g_a), folded(network.g_s)
        synthesis = GraphSpec(
            "synthesis", {"y_hat": y}, {"image": image}, Graph(g_s, lambda y_hat: g_s(y_hat).clamp(0, 1))
        )
        if plan.hyper is None:
            analysis = GraphSpec("analysis", {"image": image}, {"y": y}, Graph(g_a, g_a))
            return {spec.name: spec for spec in (analysis, synthesis)}
        h_a, h_s = network.h_a, network.h_s
        z: Axes = ("batch", plan.hyper.channels, "h", "w")

        def hyper_analyse(y: Tensor) -> Tensor:
            return h_a(y.abs() if self.architecture.magnitude else y)

        def analyse(image: Tensor) -> tuple[Tensor, ...]:
            y = g_a(image)
            return y, hyper_analyse(y)

        def hyper_synthesise(z_hat: Tensor) -> tuple[Tensor, ...]:
            return h_s(z_hat).chunk(len(parameters), 1)

        parameters = {"scales": y} | ({"means": y} if self.architecture.means else {})
        specs = (
            GraphSpec(
                "analysis", {"image": image}, {"y": y, "z": z}, Graph(nn.ModuleList([g_a, h_a]), analyse)
            ),
            GraphSpec("hyper_analysis", {"y": y}, {"z": z}, Graph(h_a, hyper_analyse)),
            GraphSpec(HYPER_SYNTHESIS, {"z_hat": z}, parameters, Graph(h_s, hyper_synthesise), exact=True),
            synthesis,
        )
        return {spec.name: spec for spec in specs}

    def tables(self) -> EntropyTables:
        """The tables that the installed compressai codes with: its own, in float32.

        So the symbols' bytes are those that its `compress` gives. Tables of the Gaussian are there for a
        factorised prior too, which does not use them.
        """
        prior, gaussian = self.network.entropy_bottleneck, getattr(self.network, "gaussian_conditional", None)
        with torch.no_grad():
            self.network.update(force=True)
        medians = prior.quantiles[:, 0, 1].detach().cpu().numpy()
        if gaussian is None:
            scales = scale_table()
            return EntropyTables(_table(prior), medians, gaussian_table(scales), scales)
        return EntropyTables(_table(prior), medians, _table(gaussian), gaussian.scale_table.cpu().numpy())

    def official_weights(self) -> dict[str, Tensor]:
        """See `CodecModel.official_weights`."""
        return official_prior_keys(
            {name.removeprefix(NETWORK): value for name, value in self.named_parameters()}
        )


def official_name(key: str) -> str:
    """Official name of one of the codec's parameters."""
    (name,) = official_prior_keys({key.removeprefix(NETWORK): torch.empty(0)})
    return name


class FoldedGdn(nn.Module):
    """Generalised divisive normalisation (Ballé et al., 2016) with its parametrisation folded into constants.

    x / sqrt(beta + gamma x^2), or times the root for the inverse, on maps [B,C,H,W]: a 1x1 convolution.
    """

    def __init__(self, layer: GDN) -> None:
        super().__init__()
        beta, gamma = layer.beta_reparam(layer.beta), layer.gamma_reparam(layer.gamma)
        self.norm = nn.Conv2d(len(beta), len(beta), 1, device=beta.device, dtype=beta.dtype)
        self.norm.weight = nn.Parameter(gamma[:, :, None, None])
        self.norm.bias = nn.Parameter(beta)
        self.inverse = layer.inverse

    def forward(self, x: Tensor) -> Tensor:
        """Normalises `x`; same shape."""
        norm = self.norm(x**2)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())


@torch.no_grad()
def folded(network: nn.Sequential) -> nn.Sequential:
    """A network with the same layers, but for its normalisations, which are folded."""
    return nn.Sequential(*(FoldedGdn(layer) if isinstance(layer, GDN) else layer for layer in network))


def _table(model: Any) -> CdfTable:
    buffers = (model.quantized_cdf, model.cdf_length, model.offset)
    return CdfTable(*(buffer.cpu().numpy() for buffer in buffers))
