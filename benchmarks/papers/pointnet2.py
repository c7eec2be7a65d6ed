r"""From PointNet++ to steerable, in a change of twenty lines.

The classifier of "PointNet++" (https://arxiv.org/abs/1706.02413) as users of
PyG write it, with a plain training loop, and the same network with its
convolution replaced by a steerable one: :class:`PointNetLevel` becomes
:class:`SteerableLevel`, and what is pooled in the end are invariants. The
training loop stays as it is::

    python -m benchmarks.papers.pointnet2       # both, on shapes made here
    python -m benchmarks.papers.pointnet2 --only steerable --epochs 30

Both are trained on upright shapes and tested on upright and on turned ones:
the steerable network for O(3) does not see the difference.
"""
import time

import torch
from torch_geometric.loader import DataLoader
from torch_geometric.nn import (
    MLP,
    PointNetConv,
    global_max_pool,
    global_mean_pool,
)

from benchmarks.commandline import new_parser
from pyg_steerable import FieldType, Group
from pyg_steerable.datasets import generate_shapes
from pyg_steerable.graph import fps, radius
from pyg_steerable.nn import FieldBatchNorm, ImplicitSteerableConv, NormGate


def neighborhoods(pos, batch, ratio, r):
    """Centres, and the edges to them from all points in a ball."""
    index = fps(pos, batch, ratio)
    target, source = radius(pos, pos[index], r, batch, batch[index],
                            max_num_neighbors=32)
    return index, torch.stack([source, target])


class PointNetLevel(torch.nn.Module):
    """Set abstraction of PointNet++."""
    def __init__(self, ratio, r, widths):
        super().__init__()
        self.ratio, self.r = ratio, r
        self.conv = PointNetConv(MLP(widths), add_self_loops=False)

    def forward(self, x, pos, batch):
        index, edge_index = neighborhoods(pos, batch, self.ratio, self.r)
        x_target = None if x is None else x[index]
        x = self.conv((x, x_target), (pos, pos[index]), edge_index)
        return x, pos[index], batch[index]


class PointNet2(torch.nn.Module):
    """Two levels, a last MLP on all points left, and the head."""
    def __init__(self, num_classes):
        super().__init__()
        self.level1 = PointNetLevel(0.5, 0.3, [3, 32, 32, 64])
        self.level2 = PointNetLevel(0.25, 0.6, [64 + 3, 64, 64, 128])
        self.last = MLP([128 + 3, 128, 256])
        self.head = MLP([256, 128, num_classes], dropout=0.3)

    def forward(self, pos, batch):
        x, pos, batch = self.level1(None, pos, batch)
        x, pos, batch = self.level2(x, pos, batch)
        x = self.last(torch.cat([x, pos], dim=1))
        return self.head(global_max_pool(x, batch))


# The change ##################################################################


class SteerableLevel(torch.nn.Module):
    """The same with a steerable convolution."""
    def __init__(self, ratio, r, in_type, out_type):
        super().__init__()
        self.ratio, self.r = ratio, r
        self.conv = ImplicitSteerableConv(in_type, out_type, radius=r / 2,
                                          hidden=8, aggr='mean')
        self.norm, self.act = FieldBatchNorm(out_type), NormGate(out_type)

    def forward(self, x, pos, batch):
        index, edge_index = neighborhoods(pos, batch, self.ratio, self.r)
        x = self.conv((x, x[index]), (pos, pos[index]), edge_index)
        return self.act(self.norm(x)), pos[index], batch[index]


class SteerablePointNet2(torch.nn.Module):
    """Fields 0e + 1o + 2e in between, invariants in the end."""
    def __init__(self, num_classes, group='O(3)', channels=16):
        super().__init__()
        hidden = FieldType.sphere(channels, 2, group)
        invariants = FieldType('128x0e', group)
        self.level1 = SteerableLevel(0.5, 0.3, FieldType('1o', group), hidden)
        self.level2 = SteerableLevel(0.25, 0.6, hidden, invariants)
        self.head = MLP([128, 128, num_classes], dropout=0.3)

    def forward(self, pos, batch):
        # Vectors. Seen from the centre: positions would change with a shift.
        x = pos - global_mean_pool(pos, batch)[batch]
        x, pos, batch = self.level1(x, pos, batch)
        x, pos, batch = self.level2(x, pos, batch)
        return self.head(global_max_pool(x, batch))


# The training loop, as it was ################################################


def train(model, loader, optimizer):
    """One epoch; the mean loss."""
    model.train()
    total = 0.
    for data in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model(data.pos, data.batch), data.y)
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * data.num_graphs
    return total / len(loader.dataset)


@torch.no_grad()
def test(model, loader, group=None):
    """The accuracy, with clouds moved by random elements of a group."""
    model.eval()
    torch.manual_seed(0)
    correct = 0
    for data in loader:
        pos = data.pos
        if group is not None:
            R = group.sample(data.num_graphs).to(pos)[data.batch]
            pos = torch.einsum('nij,nj->ni', R, pos)
        label = model(pos, data.batch).argmax(dim=1)
        correct += int((label == data.y).sum())
    return correct / len(loader.dataset)


def build_parser():
    """The options and their defaults."""
    parser = new_parser(__doc__)
    parser.add_argument('--only', choices=['pointnet', 'steerable'],
                        help='train one of the two (default: both)')
    parser.add_argument('--epochs', type=int, default=10,
                        help='passes over the training shapes')
    parser.add_argument('--points', type=int, default=128,
                        help='of each shape')
    parser.add_argument('--train', type=int, default=500,
                        help='shapes made for training')
    parser.add_argument('--test', type=int, default=200,
                        help='shapes made for the test')
    return parser


def main(argv=None):
    """Trains one or both; returns {name: (upright, turned)}."""
    args = build_parser().parse_args(argv)
    train_set = generate_shapes(args.train, args.points, seed=1)
    train_loader = DataLoader(train_set, 16, shuffle=True, drop_last=True)
    test_loader = DataLoader(generate_shapes(args.test, args.points, seed=2),
                             50)
    models = {'pointnet': PointNet2, 'steerable': SteerablePointNet2}
    results = {}
    for name, build in models.items():
        if args.only not in (None, name):
            continue
        torch.manual_seed(0)
        model = build(len(train_set.classes))
        size = sum(p.numel() for p in model.parameters())
        print(f'{name}: {size} parameters')
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for epoch in range(1, args.epochs + 1):
            start = time.perf_counter()
            loss = train(model, train_loader, optimizer)
            seconds = time.perf_counter() - start
            print(f'  epoch {epoch:2d}  loss {loss:.3f}  {seconds:.1f} s  '
                  f'about {(args.epochs - epoch) * seconds:.0f} s left',
                  flush=True)
        results[name] = (test(model, test_loader),
                         test(model, test_loader, Group('O(3)')))
        print('  test accuracy: upright {:.1%}, turned and mirrored '
              '{:.1%}'.format(*results[name]))
    return results


if __name__ == '__main__':
    main()
