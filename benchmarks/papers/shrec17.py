r"""Shapes to classify and to retrieve (SHREC17, ShapeNetCore55): the network
and the experiment of "3D Steerable CNNs" (https://arxiv.org/abs/1807.02547),
section 5.2::

    python -m benchmarks.papers.shrec17 --root SHREC17 --jobs 16

The folder is that of the contest: <split>.csv and <split>_perturbed/*.obj for
the splits train, val and test. Without one, solids made here stand in, which
only show that everything runs. Lists in the form of the contest's evaluation
go to OUT/lists/test_perturbed.

Defaults are the paper's, for one GPU. Meshes become voxels once, training
meshes turned at random, and are kept in ROOT/voxels. Started again with the
same --out, it goes on where it was stopped.
"""
from __future__ import annotations

import argparse
import csv
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.transforms import Compose
from tqdm import tqdm

from benchmarks.commandline import (
    add_smoke_option,
    add_training_options,
    new_parser,
    read_run,
)
from benchmarks.papers.classification import (
    Classification,
    adam,
    confusion,
    predict,
    report,
    set_up,
    train,
)
from benchmarks.papers.runs import run_folder
from benchmarks.papers.training import EpochSampler
from benchmarks.report import whole_file
from pyg_steerable import Group
from pyg_steerable.datasets import (
    MeshToVoxels,
    Shrec17Meshes,
    VoxelData,
    mean_average_precision,
    retrieve,
    write_retrieval_lists,
)
from pyg_steerable.graph import RandomGroupElement
from pyg_steerable.models import ShrecNet


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    data = parser.add_argument_group('data')
    data.add_argument('--root', type=Path, default=None,
                      help='folder of the contest (default: solids made '
                      'here)')
    data.add_argument('--normal', action='store_true',
                      help='the meshes of <split>_normal, upright')
    data.add_argument('--size', type=int, default=64,
                      help='voxels along each axis')
    data.add_argument('--jobs', type=int, default=1,
                      help='processes that turn meshes into voxels')
    model = parser.add_argument_group('model')
    model.add_argument('--fields', nargs='+', default=None,
                       metavar='IRREPS',
                       help='of the first convolutions (default: those of '
                       'the paper)')
    model.add_argument('--invariants', type=int, default=512,
                       help='scalars before the classifier')
    model.add_argument('--smooth', action='store_true',
                       help='low-pass filter before subsampling')
    add_training_options(parser)
    parser.set_defaults(epochs=2000, lr=0.1, weight_decay=0.)
    parser.add_argument('--milestones', type=int, nargs='*',
                        default=[500, 1000], metavar='EPOCH',
                        help='where the learning rate falls tenfold')
    parser.add_argument('--validate-every', type=int, default=100,
                        metavar='EPOCHS',
                        help='how often to make the lists of the validation '
                        'set')
    add_smoke_option(parser, size=12, fields=7 * ['2x0e + 1x1o'],
                     invariants=8, epochs=3, batch_size=10, validate_every=1,
                     threads=1)
    return parser


def parse(argv=None) -> argparse.Namespace:
    """Reads the command line."""
    return read_run(build_parser(), argv,
                    lambda args: f'shrec17_{args.seed}')


# Data ########################################################################


class CachedVoxels(Dataset):
    """Voxels of meshes, made when they are first needed and kept on disk."""
    def __init__(self, meshes: Shrec17Meshes, folder: Path, size: int,
                 turned: bool):
        self.meshes, self.folder = meshes, folder
        rotations = [RandomGroupElement('SO(3)')] if turned else []
        self.transform = Compose([*rotations, MeshToVoxels(size)])
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self.meshes)

    def path(self, i: int) -> Path:
        """The file of one mesh."""
        return self.folder / f'{self.meshes.names[i]}.npz'

    def is_made(self, i: int) -> bool:
        """Whether there are voxels of the mesh as it is."""
        mesh = Path(self.meshes.folder) / f'{self.meshes.names[i]}.obj'
        path = self.path(i)
        return (path.exists()
                and path.stat().st_mtime_ns >= mesh.stat().st_mtime_ns)

    def make(self, i: int) -> None:
        """Writes a file, whole or not at all. The rotation depends on the
        place in the list only.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(i)
            voxels = self.transform(self.meshes[i]).voxels
        with (whole_file(self.path(i)) as part,
              part.open('wb') as file):  # parts of a voxel come in eighths
            np.savez_compressed(file,
                                eighths=(8 * voxels).byte().numpy())

    def make_all(self, jobs: int, quiet: bool) -> None:
        """Writes what is missing, or older than its mesh."""
        missing = [i for i in range(len(self)) if not self.is_made(i)]
        bar = dict(total=len(missing), disable=quiet or not missing,
                   desc=str(self.folder))
        if jobs == 1:
            for i in tqdm(missing, **bar):
                self.make(i)
            return
        spawn = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(jobs, spawn) as pool:
            for _ in tqdm(pool.map(self.make, missing, chunksize=8), **bar):
                pass

    def __getitem__(self, i: int) -> VoxelData:
        with np.load(self.path(i)) as file:
            voxels = torch.from_numpy(file['eighths'])
        return VoxelData(voxels=voxels.float() / 8, y=self.meshes.label[[i]])


class BalancedSampler(EpochSampler):
    """As many items of each class as the smallest class has, others in every
    epoch.
    """
    def __init__(self, dataset, seed: int, label: Tensor):
        super().__init__(dataset, seed)
        counts = label.bincount()
        self.label, self.least = label, int(counts[counts > 0].min())
        total = self.least * int((counts > 0).sum())
        self.num_samples = total // self.num_replicas

    def __iter__(self):
        generator = torch.Generator().manual_seed(
            hash((self.seed, self.epoch)) % 2**31)
        order = torch.randperm(len(self.label), generator=generator)
        kind = self.label[order]
        chosen = torch.cat([order[kind == k][:self.least]
                            for k in kind.unique()])
        chosen = chosen[torch.randperm(len(chosen), generator=generator)]
        share = chosen[self.rank::self.num_replicas][:self.num_samples]
        return iter(share.tolist())


def make_solids(root: Path, kind: str, num: int = 30) -> Path:
    """A folder in the layout of the contest with made-up solids of random
    proportions.
    """
    import trimesh
    creation, rng = trimesh.creation, np.random.default_rng(0)
    rotations = iter(Group('SO(3)').sample(
        2 * num, generator=torch.Generator().manual_seed(0)).numpy())
    shapes = {
        '01_box': lambda: creation.box((1., 1., 1.)),
        '02_cylinder': lambda: creation.cylinder(0.5, 1., sections=16),
        '03_cone': lambda: creation.cone(0.5, 1., sections=16),
        '04_ball': lambda: creation.icosphere(2, 0.5),
    }
    for split, n in (('train', num), ('val', num // 2), ('test', num // 2)):
        folder = root / f'{split}_{kind}'
        folder.mkdir(parents=True, exist_ok=True)
        with (root / f'{split}.csv').open('w', newline='') as file:
            lines = csv.writer(file)
            lines.writerow(['id', 'synsetId', 'subSynsetId', 'modelId'])
            for i in range(n):
                name = f'{split}{i:04d}'
                synset = list(shapes)[rng.integers(len(shapes))]
                mesh = shapes[synset]()
                mesh.apply_scale(rng.uniform(0.6, 1.4, 3))
                if kind == 'perturbed':
                    turn = np.eye(4)
                    turn[:3, :3] = next(rotations)
                    mesh.apply_transform(turn)
                mesh.export(folder / f'{name}.obj')
                lines.writerow([name, synset, synset, name])
    return root


def load(args) -> dict[str, CachedVoxels]:
    """The three splits."""
    root, kind = args.root, 'normal' if args.normal else 'perturbed'
    if root is None:
        root = make_solids(args.out / 'made_up', kind)
        print(f'no --root: solids made here, not ShapeNet ({root})')
    parts: dict[str, CachedVoxels] = {}
    for split in ('train', 'val', 'test'):
        classes = parts['train'].meshes.classes if parts else None
        meshes = Shrec17Meshes(str(root), split, not args.normal, classes)
        parts[split] = CachedVoxels(
            meshes, root / 'voxels' / f'{split}_{kind}_{args.size}',
            args.size, split == 'train')
        parts[split].make_all(args.jobs, args.quiet)
    return parts


# Training ####################################################################


class Retrieval(Classification):
    """Validation by what the retrieval lists lack of perfect ones."""
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.found: list[tuple[Tensor, Tensor]] = []

    def validation_step(self, batch, _):
        logits = self(batch)
        self._log('val', batch, logits, sync_dist=True)
        self.found.append((logits.cpu(), batch.y.cpu()))

    def on_validation_epoch_end(self):
        score = mean_ap(*map(torch.cat, zip(*self.found)))
        self.found.clear()
        self.log('val_lacking', 2 - score.micro - score.macro)


def mean_ap(scores: Tensor, label: Tensor):
    """How well the lists that scores give find the items of a class."""
    return mean_average_precision(retrieve(scores), label)


def stepped(net: torch.nn.Module, args):
    """The learning rate falls tenfold at args.milestones."""
    return adam(net.parameters(), args,
                lambda epoch: 0.1**sum(epoch >= m for m in args.milestones))


def main(argv=None) -> dict:
    """Trains and reports; returns the figures."""
    args = parse(argv)
    with run_folder(args, __file__, argv):
        return run(args)


def run(args) -> dict:
    """One run in its folder."""
    set_up(args)
    parts = load(args)
    meshes = parts['train'].meshes
    options = {} if args.fields is None else dict(fields=args.fields)
    net = ShrecNet(len(meshes.classes), invariants=args.invariants,
                   smooth=args.smooth, **options)
    module = Retrieval(args, net, configure=stepped)
    sampler = BalancedSampler(parts['train'], args.seed, meshes.label)
    if not train(args, module, parts['train'], parts['val'], 'val_lacking',
                 sampler=sampler,
                 check_val_every_n_epoch=args.validate_every):
        return {}
    scores, label = predict(module, parts['test'])
    score = mean_ap(scores, label)
    lists = args.out / 'lists' / parts['test'].folder.name.rsplit('_', 1)[0]
    write_retrieval_lists(str(lists), retrieve(scores),
                          parts['test'].meshes.names)
    print(f'mean average precision: micro {score.micro:.3f}, macro '
          f'{score.macro:.3f}, sum {score.micro + score.macro:.3f}' +
          ('' if args.root is None else ' (paper, perturbed: 1.110)'))
    print(f'retrieval lists: {lists}')
    return report(args, module, {'test': confusion(scores, label)},
                  meshes.classes, 'SHREC17', micro_map=score.micro,
                  macro_map=score.macro, size=args.size,
                  data='made up' if args.root is None else str(args.root))


if __name__ == '__main__':
    main()
