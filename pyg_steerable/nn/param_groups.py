"""Which parameters weight decay is for."""
from __future__ import annotations

import torch
from torch.nn.parameter import Parameter, UninitializedParameter

from .. import checks
from .field import FieldModule

_NORMS = (torch.nn.modules.batchnorm._NormBase, torch.nn.LayerNorm,
          torch.nn.GroupNorm, torch.nn.LocalResponseNorm)


def param_groups(model: torch.nn.Module, weight_decay: float = 0.01
                 ) -> list[dict]:
    r"""The parameters of a network in two groups for an optimiser: weights
    of maps, which decay, and all others, which do not: biases, scales of
    norms and activations, and the widths of kernels.

    .. code-block:: python

        optimizer = torch.optim.AdamW(param_groups(model, 0.05), lr=1e-3)

    The weights of equivariant maps are stored as one vector for each layer,
    as each path has a matrix of its own shape. Rules that go by the number
    of dimensions (decay for matrices only) take them for biases; this
    function goes by what layers say (:obj:`FieldModule.flat_maps`). Of all
    other parameters those of two or more dimensions decay, but for biases and
    norms.

    Optimisers that orthogonalise matrices, such as :class:`torch.optim.Muon`,
    are for none of the vectors: give them to another one.

    Args:
        model (torch.nn.Module): The network.
        weight_decay (float, optional): Of the first group.
            (default: :obj:`0.01`)

    Returns:
        Two dictionaries with :obj:`"params"` and :obj:`"weight_decay"`, which
        hold every parameter once.

    Raises:
        ValueError: If a parameter has no shape yet (of a lazy module), or
            the weight decay is negative.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"Expected 'model' to be a torch.nn.Module (got "
                        f"{checks.show(model)})")
    weight_decay = checks.real('weight_decay', weight_decay, 0.)
    groups: dict[bool, list[Parameter]] = {True: [], False: []}
    seen: set[Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, UninitializedParameter):
                full = f'{prefix}.{name}' if prefix else name
                raise ValueError(f"Expected 'model' with parameters that have "
                                 f"a shape (got '{full}', which has none "
                                 f"yet). Call the model once before")
            if parameter not in seen:
                seen.add(parameter)
                groups[_decays(module, name, parameter)].append(parameter)
    return [{'params': groups[True], 'weight_decay': weight_decay},
            {'params': groups[False], 'weight_decay': 0.}]


def _decays(module: torch.nn.Module, name: str,
            parameter: torch.Tensor) -> bool:
    if 'bias' in name.split('_'):
        return False
    if isinstance(module, FieldModule) and name in module.flat_maps:
        return True
    is_norm = isinstance(module, _NORMS) or 'Norm' in type(module).__name__
    return parameter.dim() > 1 and not is_norm
