import pytest
import torch
from helpers.datasets_voxels import CUBE, save
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_steerable import Group
from pyg_steerable.datasets import (
    MeshToVoxels,
    Shrec17Meshes,
    mean_average_precision,
    retrieve,
    rotate_voxels,
    write_retrieval_lists,
)

BOX = torch.tensor([[x, y, z] for x in (0., 4.) for y in (0., 2.)
                    for z in (0., 1.)])
FACES = [f for a, b, c, d in ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4),
                              (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
         for f in ((a, b, c), (a, c, d))]


def obj(pos=BOX, faces=FACES):
    return (''.join(f'v {x} {y} {z}\n' for x, y, z in pos.tolist()) +
            ''.join(f'f {a + 1} {b + 1} {c + 1}\n' for a, b, c in faces))


def shrec(root, split='train', ids=('000001', '000002', '000003'),
          kinds=('02', '01', '02')):
    folder = root / f'{split}_perturbed'
    folder.mkdir()
    for name in ids:
        save(folder / f'{name}.obj', obj())
    rows = [f'{name},{kind},x,y,{split}' for name, kind in zip(ids, kinds)]
    save(root / f'{split}.csv', '\n'.join(
        ['id,synsetId,subSynsetId,modelId,split', *rows]))
    return folder


def test_meshes(tmp_path):
    shrec(tmp_path)
    data = Shrec17Meshes(str(tmp_path), transform=MeshToVoxels(16))
    assert str(data) == 'Shrec17Meshes(3 meshes, 2 classes)'
    assert data.classes == ['01', '02'] and data.label.tolist() == [1, 0, 1]
    item = data[1]
    assert set(item.keys()) == {'voxels', 'y'} and item.y == 0
    voxels = item.voxels[0]
    assert voxels.shape == (16, 16, 16) and 0 < voxels.max() <= 1
    # A box of 4 x 2 x 1 in a ball of diameter 21 ** 0.5, on 16 voxels.
    size = [len(voxels.sum(axes).nonzero()) for axes in ((0, 1), (0, 2),
                                                         (1, 2))]
    expected = 16 / 21**0.5 * torch.tensor([4., 2., 1.])
    assert (torch.tensor(size) - expected).abs().max() < 2
    assert voxels[8, 8, 8] == 0  # hollow
    batch = next(iter(DataLoader(data, 3)))
    assert batch.voxels.shape == (3, 1, 16, 16, 16)


def test_rotated_meshes():
    face = torch.tensor(FACES).T
    # Off the planes between voxels, where rounding would decide.
    pos = BOX + 0.1 * torch.rand(8, 3)
    voxels = MeshToVoxels(12)(Data(pos=pos, face=face)).voxels
    for R in CUBE[::7]:
        turned = MeshToVoxels(12)(Data(pos=pos @ R.float().T, face=face))
        gap = (turned.voxels - rotate_voxels(voxels, R)).abs()
        # The corners that stand for the surface are not the same.
        assert gap.mean() < 0.1 * voxels.mean()
    line = torch.arange(12.) - 5.5
    for R in Group('SO(3)').sample(3).float():  # same size, same place
        turned = MeshToVoxels(12)(Data(pos=pos @ R.T, face=face)).voxels[0]
        # More voxels, as the faces are oblique: up to 3 ** 0.5 times.
        assert 0.9 < turned.sum() / voxels.sum() < 1.8
        far = (turned.nonzero() - 5.5).norm(dim=1).max()
        # The farthest corner, and up to half of a voxel's diagonal.
        assert abs(far - 6) < 0.87
        x = (turned.sum((0, 1)) * line).sum() / turned.sum()
        assert abs(x) < 0.5


def test_bad_meshes(tmp_path):
    folder = shrec(tmp_path)
    root = str(tmp_path)
    for text in ('', 'some words', obj(faces=[]), obj(faces=[(0, 1, 99)]),
                 obj(BOX * torch.nan)):
        save(folder / '000002.obj', text)
        with pytest.raises(ValueError, match='000002.obj: expected'):
            Shrec17Meshes(root)[1]
    with pytest.raises(ValueError, match='area 0.0'):
        MeshToVoxels()(Data(pos=torch.ones(3, 3),
                            face=torch.tensor([[0], [1], [2]])))
    (folder / '000003.obj').unlink()
    with pytest.raises(FileNotFoundError, match="'000003.obj', 1 of 3"):
        Shrec17Meshes(root)


def test_bad_lists(tmp_path):
    shrec(tmp_path)
    root = str(tmp_path)
    with pytest.raises(FileNotFoundError, match='val.csv'):
        Shrec17Meshes(root, 'val')
    with pytest.raises(ValueError, match="'02'"):
        Shrec17Meshes(root, classes=['01'])
    with pytest.raises(ValueError, match="'all'"):
        Shrec17Meshes(root, 'all')
    with pytest.raises(ValueError, match="'size'"):
        MeshToVoxels(0)
    for text in ('', 'id,synsetId\n', 'name,kind\na,b\n',
                 'id,synsetId\n000001,\n'):
        save(tmp_path / 'train.csv', text)
        with pytest.raises(ValueError, match='train.csv'):
            Shrec17Meshes(root)


def test_retrieval(tmp_path):
    scores = torch.tensor([[3., 0], [5, 0], [4, 0], [0, 1]])
    lists = retrieve(scores)
    assert [x.tolist() for x in lists] == 3 * [[1, 2, 0]] + [[3]]
    # Items 0, 2, 3 of class 0: the first two find two of three.
    score = mean_average_precision(lists, torch.tensor([0, 1, 0, 0]))
    part = (1 / 2 + 2 / 3) / 3
    assert score.micro == pytest.approx((2 * part + 1 + 1 / 3) / 4)
    assert score.macro == pytest.approx(((2 * part + 1 / 3) / 3 + 1) / 2)
    perfect = mean_average_precision(lists, torch.tensor([0, 0, 0, 1]))
    assert perfect == (1, 1)
    write_retrieval_lists(str(tmp_path / 'out'), lists, list('abcd'))
    assert (tmp_path / 'out' / 'a').read_text() == 'b 0\nc 1\na 2\n'
    assert len(list((tmp_path / 'out').iterdir())) == 4
