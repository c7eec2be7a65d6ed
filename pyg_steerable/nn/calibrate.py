"""Scales of a fresh network, measured on data."""
from __future__ import annotations

import torch

from .conv import SteerableConv


@torch.no_grad()
def calibrate(model: torch.nn.Module, *args, **kwargs) -> dict[str, float]:
    r"""Gives the output of every steerable convolution unit mean square on
    the given input, layer after layer in one forward pass: the measurement
    that precedes training in `"Implicit Neural Convolutional Kernels"
    <https://arxiv.org/abs/2212.06096>`_, section 5.1, made on data and for
    whole layers (layer-sequential unit variance, `"All You Need is a Good
    Init" <https://arxiv.org/abs/1511.06422>`_).

    Constructors assume typical neighbourhoods, which suffices where norms
    follow convolutions; use this for deep networks without them.

    Args:
        model (torch.nn.Module): A network, or a convolution.
        *args, **kwargs: Its input.

    Returns:
        The root mean square of each convolution's output before, by name.
    """
    found: dict[str, float] = {}

    def scale(name):
        def hook(conv, inputs, out):
            rms = out.float().square().mean().sqrt()
            found[name] = float(rms)
            if not 0 < found[name] < float('inf'):
                return out
            conv.kernel.scale /= rms
            for parameter in (conv.lin.weight, conv.lin.bias):
                if parameter is not None:
                    parameter /= rms
            return out / rms
        return hook

    handles = [
        module.register_forward_hook(scale(name))
        for name, module in model.named_modules()
        if isinstance(module, SteerableConv)
    ]
    try:
        model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return found
