"""Normalisation of fields."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.modules.batchnorm import _BatchNorm

from ... import checks
from ...ops.precision import at_least_float32, full_precision
from ...symmetry.fields import FieldType
from ...symmetry.queries import field_index, field_mean, invariant_vectors
from ..field import FieldModule


class RunningStatistics(_BatchNorm):
    """Where a norm keeps its statistics, and what torch's tools look for:
    :func:`torch.optim.swa_utils.update_bn` averages them anew, and
    :meth:`torch.nn.SyncBatchNorm.convert_sync_batchnorm` asks for those of
    all processes. It is never called.
    """
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, scalars: int, fields: int, momentum: float | None):
        super().__init__(fields, momentum=momentum, affine=False)
        dtype = at_least_float32(self.running_var)
        self.running_mean = torch.zeros(scalars, dtype=dtype)
        self.running_var = torch.ones(fields, dtype=dtype)


class SharedStatistics(RunningStatistics):
    """Those of all processes, in place of a :class:`torch.nn.SyncBatchNorm`,
    which holds buffers that are taken over.
    """
    def __init__(self, other: torch.nn.SyncBatchNorm):
        super().__init__(0, 0, other.momentum)
        self._buffers.update(other._buffers)
        self.process_group = other.process_group
        self.training = other.training


class FixedStatistics(torch.nn.Module):
    """Statistics that nothing changes any more, neither training nor torch's
    tools.
    """
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, stats: torch.nn.Module, momentum: float | None):
        super().__init__()
        for name, value in stats.named_buffers():
            self.register_buffer(name, value)
        self.momentum = momentum


class _AllReduce(torch.autograd.Function):
    """The sum over all processes, differentiable any number of times."""
    @staticmethod
    def forward(ctx, x: Tensor, group) -> Tensor:
        ctx.group = group
        x = x.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _AllReduce.apply(grad, ctx.group), None


class FieldBatchNorm(FieldModule):
    r"""Batch normalisation of whole fields,

    .. math::
        \mathbf{y}_f = \gamma_f \frac{\mathbf{x}_f - \bar{\mathbf{x}}_f}
        {\sqrt{\langle |\mathbf{x}_f - \bar{\mathbf{x}}_f|^2 / d_f \rangle +
        \epsilon}} + \boldsymbol{\beta}_f

    with one scale for all components of a field, and mean and shift only in
    the part of a field that the group leaves alone (a scalar), so that it
    commutes with G to rounding. (Conventions of `"Implicit Neural
    Convolutional Kernels" <https://arxiv.org/abs/2212.06096>`_, section 5.1,
    and of the field batch-norm of `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_.)

    Statistics are taken and kept in at least float32: also those of half
    precision inputs, under autocast, and after :obj:`.half()`. Inputs without
    rows leave them alone. They live in :obj:`norm.stats`, where PyTorch's
    tools find them: :func:`torch.optim.swa_utils.update_bn` averages them
    over a data set, and after
    :meth:`torch.nn.SyncBatchNorm.convert_sync_batchnorm` those of a batch are
    taken over the rows of all processes, on any device.

    Args:
        field_type (FieldType): The type of input and output.
        eps (float, optional): (default: :obj:`1e-5`)
        momentum (float, optional): Of the running statistics; :obj:`None`
            for the average over all batches since the last reset.
            (default: :obj:`0.1`)
        affine (bool, optional): Learn :math:`\gamma, \beta`.
            (default: :obj:`True`)
        normalization (str, optional): :obj:`"component"` for components of
            unit variance, as above, or :obj:`"norm"` for fields of unit mean
            square norm, without :math:`d_f`, as in the code of "3D Steerable
            CNNs". (default: :obj:`"component"`)

    Shapes:
        - **input:** :math:`[*, d]`, **output:** :math:`[*, d]`, in the dtype
          of the input

    Raises:
        ValueError: If the input has another width, or an option has no
            meaning.
    """
    in_type: FieldType
    out_type: FieldType
    stats: RunningStatistics | FixedStatistics
    weight: Parameter | None
    bias: Parameter | None
    index: Tensor
    size_of: Tensor
    invariant: Tensor

    def __init__(self, field_type: FieldType, eps: float = 1e-5,
                 momentum: float | None = 0.1, affine: bool = True,
                 normalization: str = 'component'):
        super().__init__()
        checks.choice('normalization', normalization, ('component', 'norm'))
        self.set_types(field_type)
        field_type = self.in_type
        self.eps = checks.real('eps', eps, 0.)
        self.affine = checks.flag('affine', affine)
        if momentum is not None:
            momentum = checks.real('momentum', momentum, 0., 1.)
        self.register_constant('index', field_index(field_type))
        mean = field_mean(field_type)
        self.register_constant('size_of', mean if normalization == 'component'
                               else mean.sign())
        self.register_constant('invariant', invariant_vectors(field_type))
        fields, scalars = field_type.num_fields, self.invariant.shape[1]
        self.register_weights('weight', fields if affine else 0)
        self.register_weights('bias', scalars if affine else 0)
        self.stats = RunningStatistics(scalars, fields, momentum)
        self.keep_in_full('stats.running_mean', 'stats.running_var')
        self.reset_parameters()

    # Statistics ############################################################

    def add_module(self, name: str, module: torch.nn.Module | None) -> None:
        """What a conversion of batch norms puts in place of the statistics
        only says that they are to be shared. (As such it would be called on
        GPUs only, says DistributedDataParallel.)
        """
        if isinstance(module, torch.nn.SyncBatchNorm):
            module = SharedStatistics(module)
        super().add_module(name, module)

    @property
    def running_mean(self) -> Tensor:
        """The running means of the invariant parts."""
        return self.stats.running_mean

    @property
    def running_var(self) -> Tensor:
        """The running variances of the fields."""
        return self.stats.running_var

    @property
    def momentum(self) -> float | None:
        """The momentum of the running statistics."""
        return self.stats.momentum

    @momentum.setter
    def momentum(self, value: float | None) -> None:
        self.stats.momentum = value

    def reset_parameters(self):
        """Forgets the statistics and learned scales."""
        self.stats.running_mean.zero_()
        self.stats.running_var.fill_(1.)
        self.stats.num_batches_tracked.zero_()
        if self.weight is not None:
            torch.nn.init.ones_(self.weight)
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Sets the statistics to those of the given rows."""
        self.check_input(x)
        mean, var = self._moments(x.reshape(-1, x.shape[-1]), 1, None)
        self.stats.running_mean.copy_(mean)
        self.stats.running_var.copy_(var)
        self.stats.num_batches_tracked.zero_()

    def freeze(self) -> None:
        """Makes the statistics constants, for training and for PyTorch's
        tools: those of a norm that always sees the same rows.
        """
        self.stats = FixedStatistics(self.stats, self.momentum)

    def _statistics(self, x: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
        """Means and variances, with the components along a dimension."""
        stats = self.stats
        if not (isinstance(stats, _BatchNorm) and stats.training):
            return stats.running_mean, stats.running_var
        processes = self._processes()
        if x.numel() == 0 and processes is None:
            return stats.running_mean, stats.running_var
        mean, var = self._moments(x, dim, processes)
        with torch.no_grad():
            stats.num_batches_tracked.add_(1)
            for running, new in ((stats.running_mean, mean),
                                 (stats.running_var, var)):
                running.lerp_(new.to(running.dtype), self._step(
                    stats.num_batches_tracked.to(running.dtype)))
        return mean, var

    def _step(self, batches: Tensor) -> float | Tensor:
        """How far the running statistics go to those of a batch, the last
        one of so many.
        """
        step = self.stats.momentum
        return 1 / batches if step is None else step

    def _processes(self):
        """The processes to take statistics over, if more than this one."""
        if (not isinstance(self.stats, SharedStatistics)
                or not torch.distributed.is_available()
                or not torch.distributed.is_initialized()):
            return None
        group = self.stats.process_group or torch.distributed.group.WORLD
        return group if torch.distributed.get_world_size(group) > 1 else None

    def _moments(self, x: Tensor, dim: int, processes
                 ) -> tuple[Tensor, Tensor]:
        """Means, and variances about them, in two passes."""
        others = [i for i in range(x.dim()) if i != dim]
        with full_precision(x):
            x = x.to(at_least_float32(x, self.running_var))
            invariant = self.invariant.to(x.dtype)
            if processes is None:
                def average(t):
                    return t.mean(others)
            else:
                rows = x.new_tensor(x.numel() // max(1, x.shape[dim]))
                rows = _AllReduce.apply(rows, processes).clamp(min=1)

                def average(t):
                    return _AllReduce.apply(t.sum(others), processes) / rows

            mean = average(x) @ invariant
            shift = invariant @ mean
            centred = x - shift.view([-1] + (x.dim() - dim - 1) * [1])
            var = average(centred.square()) @ self.size_of.to(x.dtype)
        return mean, var

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if not self.in_type.dim:
            return x
        mean, var = self._statistics(x.reshape(-1, x.shape[-1]))
        with full_precision(x):
            dtype = at_least_float32(x, var)
            invariant = self.invariant.to(dtype)
            scale = (var.to(dtype) + self.eps).rsqrt()
            if self.weight is not None:
                scale = scale * self.weight
            out = (x - invariant @ mean.to(dtype)) * scale[self.index]
            if self.bias is not None:
                out = out + invariant @ self.bias.to(dtype)
        return out.to(x.dtype)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # Where the statistics once were.
        for name in ('running_mean', 'running_var'):
            value = state_dict.pop(prefix + name, None)
            if value is not None:
                state_dict[f'{prefix}stats.{name}'] = value
                state_dict.setdefault(
                    f'{prefix}stats.num_batches_tracked',
                    self.stats.num_batches_tracked.detach().clone())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type})'
