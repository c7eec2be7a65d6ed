"""``python -m docs.make_picture`` draws docs/kernels.png, kernels from scalars
to scalars and vectors, and docs/groups.png, the bars of a table in
docs/results.md.
"""
import re
from pathlib import Path

import matplotlib
import torch

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.papers.groups import plot  # noqa: E402
from pyg_steerable import FieldType  # noqa: E402
from pyg_steerable.nn import ImplicitSteerableConv, QuotientELU  # noqa: E402

GROUPS = ['1', 'M', 'C3', 'C4', 'SO(2)', 'SO(3)']
PLANES = {'x, y': (0, 1), 'x, z': (0, 2)}


def kernel_on(group: str, plane: tuple[int, int], grid: torch.Tensor):
    """A scalar-to-scalar and a scalar-to-vector kernel on a plane."""
    torch.manual_seed(4)
    conv = ImplicitSteerableConv(
        FieldType('1x0e', group), FieldType('1x0e + 1x1o', group), hidden=32,
        max_degree=3, num_layers=4, radius=0.8,
        activation=QuotientELU).eval()
    x = torch.zeros(grid.numel()**2, 3)
    first, second = torch.meshgrid(grid, grid, indexing='xy')
    x[:, plane[0]], x[:, plane[1]] = first.flatten(), second.flatten()
    with torch.no_grad():
        k = conv.kernel(x)[..., 0].view(len(grid), len(grid), 4)
    return k[..., 0], k[..., 1 + plane[0]], k[..., 1 + plane[1]]


def draw_groups() -> None:
    """Draws what the table says: means and deviations. (The accuracies of
    single runs, which benchmarks/papers/groups.py draws too, were not kept.)
    """
    results = Path(__file__).with_name('results.md')
    row = re.compile(r'^\| (\S+) \| (harmonic|implicit) \| [^|]+\| '
                     r'([\d.]+) ± ([\d.]+) \|', re.M)
    table = {}
    for group, kernel, mean, std in row.findall(
            results.read_text()):
        table.setdefault(group, {})[kernel] = {'z/z': {
            'mean': float(mean), 'std': float(std), 'values': []}}
    plot(table, Path(__file__).parent)


def draw_kernels() -> None:
    """Draws random kernels of some groups."""
    fine, coarse = torch.linspace(-2, 2, 121), torch.linspace(-1.8, 1.8, 13)
    figure, axes = plt.subplots(2, len(GROUPS), figsize=(12, 4.4),
                                constrained_layout=True)
    for i, (column, group) in enumerate(zip(axes.T, GROUPS)):
        column[0].set_title(f'G = {group}')
        for ax, (name, plane) in zip(column, PLANES.items()):
            scalar = kernel_on(group, plane, fine)[0]
            limit = float(scalar.abs().max())
            ax.imshow(scalar, origin='lower', extent=(-2, 2, -2, 2),
                      cmap='RdBu_r', vmin=-limit, vmax=limit)
            _, u, v = kernel_on(group, plane, coarse)
            ax.quiver(coarse, coarse, u, v, width=0.008)
            ax.set(xticks=[], yticks=[])
            if i == 0:
                ax.set_ylabel(f'plane {name}')
    figure.savefig(Path(__file__).with_name('kernels.png'), dpi=80)


if __name__ == '__main__':
    draw_kernels()
    draw_groups()
