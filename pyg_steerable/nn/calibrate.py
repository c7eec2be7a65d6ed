"""Lengths and scales of a fresh network, measured on data."""
from __future__ import annotations

import torch

from .. import checks
from .conv.steerable import SteerableConv
from .pointwise import FieldBatchNorm


@torch.no_grad()
def calibrate(model: torch.nn.Module, *args, **kwargs) -> dict[str, float]:
    r"""Fits every steerable convolution to the given input, layer after layer
    in one forward pass, before training:

    1. the radius of its basis, from the distances of the neighbours that it
       sees: their root mean square for implicit kernels, the largest (of 95%)
       for the last shell of harmonic ones, without those beyond a cutoff.
       Radii are buffers (:obj:`conv.kernel.basis.radius`) and are saved with
       the weights;
    2. the running statistics of every field batch norm, also those inside
       kernels: they become those of this input;
    3. the scale of its weights, for an output of unit mean square: the
       measurement of `"Implicit Neural Convolutional Kernels"
       <https://arxiv.org/abs/2212.06096>`_, section 5.1, made on data and for
       whole layers (layer-sequential unit variance, `"All You Need is a Good
       Init" <https://arxiv.org/abs/1511.06422>`_).

    .. code-block:: python

        batch = next(iter(loader))
        calibrate(model, batch.x, batch.pos, batch.edge_index)
        calibrate(model, batch)        # of a model that takes data

    A convolution that is called more than once keeps the radius of the first
    call; one without neighbours keeps its own.

    Args:
        model (torch.nn.Module): A network, or a convolution.
        *args, **kwargs: Its input, e.g. the first batch of training.

    Returns:
        The root mean square of each convolution's output before its scale
        was set, by name.

    Raises:
        TypeError: If the model is no module.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"Expected 'model' to be a torch.nn.Module (got "
                        f"{checks.show(model)})")
    found: dict[str, float] = {}
    fitted = set()

    def fit(basis, inputs):
        distance = basis.within(inputs[0].norm(dim=1))
        if len(distance) and basis not in fitted:
            fitted.add(basis)
            basis.set_radius(float(basis.fit_radius(distance)))

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

    handles, norms = [], []
    for name, module in model.named_modules():
        if isinstance(module, SteerableConv):
            handles += [module.kernel.basis.register_forward_pre_hook(fit),
                        module.register_forward_hook(scale(name))]
            module._seen = True  # it will fit
        elif isinstance(module, FieldBatchNorm):
            norms.append((module, module.momentum, module.training))
            module.momentum = 1.
            module.train()
    try:
        model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum, training in norms:
            norm.momentum = momentum
            norm.train(training)
    return found
