import sys

import numpy as np
import pytest
import torch

from pyg_steerable import FieldType
from pyg_steerable.nn import (
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    LatticeSteerableConv,
)
from pyg_steerable.viz import (
    SteerableDemo,
    changes,
    equivariance_movie,
    kernel_of,
    main,
    plain_demo,
    plot_arrows,
    plot_slices,
    rotated_frames,
    sample_plane,
    vector_kernels,
)

VECTORS = FieldType('1o', 'SO(3)')


def blob(size=17):
    """Something smooth without symmetry."""
    line = torch.arange(size) - (size - 1) / 2
    z, y, x = torch.meshgrid(line, line, line, indexing='ij')
    ball = torch.exp(-(x**2 + y**2 + z**2) / 8)
    return (ball * (1 + 0.5 * x + 0.3 * y * z)).unsqueeze(0)


def turns(n):
    angle = 2 * np.pi / n * np.arange(n)
    c, s, o = np.cos(angle), np.sin(angle), 0 * angle
    return np.stack([c, -s, o, s, c, o, o, o, o + 1], 1).reshape(n, 3, 3)


def test_the_three_vector_kernels():
    x = torch.randn(20, 3)
    r = x.norm(dim=1)[:, None, None]
    outer = x[:, :, None] * x[:, None]
    one = torch.eye(3).expand(20, 3, 3)
    cross = torch.linalg.cross(x[:, None].expand(20, 3, 3), one).mT
    expected = [one, cross / r, 3 * outer / r**2 - one]  # curl: x ^ v
    for kernel, form in zip(vector_kernels().values(), expected):
        k = kernel(x)
        factor = (k * form).sum((1, 2)) / (form**2).sum((1, 2))
        # Proportional; softening leaves one part in a thousand.
        rest = k - factor[:, None, None] * form
        assert rest.norm() < 5e-3 * k.norm()
        assert (factor > 0).all()


@pytest.mark.parametrize('make', [
    lambda t: HarmonicSteerableConv(t, t),
    lambda t: HarmonicSteerableConv(t, t).kernel,
    lambda t: LatticeSteerableConv(t, t, 3),
    lambda t: ImplicitSteerableConv(t, t),
    lambda t: ImplicitSteerableConv(t, t).double(),
])
def test_planes(make):
    module = make(VECTORS)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    values = sample_plane(module, 'y', extent=2., resolution=5, offset=0.5)
    assert values.shape == (5, 5, 3, 3)
    # Rows run along z, columns along x.
    point = torch.tensor([[-1., 0.5, 2.]]).to(values.dtype)
    assert torch.allclose(values[4, 1], kernel_of(module)(point)[0],
                          atol=1e-6)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])
    assert module.training


def test_a_kernel_with_attributes():
    conv = ImplicitSteerableConv(VECTORS, VECTORS,
                                 edge_type=FieldType('2x0e', 'SO(3)'))
    a, b = (sample_plane(conv, resolution=4, attr=torch.tensor([1., v]))
            for v in (0., 1.))
    assert a.shape == b.shape and not torch.allclose(a, b)
    with pytest.raises(ValueError, match='attributes'):
        sample_plane(conv)


def test_pictures(tmp_path):
    pytest.importorskip('matplotlib')
    conv = LatticeSteerableConv(FieldType('0e + 1o', 'SO(3)'), VECTORS, 3)
    figure = plot_slices(conv, 'x', resolution=7)
    *axes, bar = figure.axes
    assert len(axes) == 3 * 4 and bar.get_ylabel() == 'kernel'
    assert [ax.get_xlabel() for ax in axes[8:]] == ['1', *'xyz']
    assert [ax.get_ylabel() for ax in axes[::4]] == [*'xyz']
    image = figure.axes[5].images[0].get_array()
    values = sample_plane(conv, 'x', resolution=7)
    assert np.allclose(image, values[..., 1, 1])
    types = [FieldType('1x2e', 'SO(3)'), VECTORS]
    figure = plot_slices(HarmonicSteerableConv(*types), resolution=4)
    assert [ax.get_xlabel() for ax in figure.axes[10:-1]] == [
        '2,-2', '2,-1', '2,0', '2,1', '2,2']
    for kernel in vector_kernels().values():
        figure = plot_slices(kernel, resolution=4)
        assert [ax.get_ylabel() for ax in figure.axes[:-1:3]] == [*'xyz']
    figure = plot_slices(lambda x: x[:, :, None], resolution=4)
    assert [ax.get_ylabel() for ax in figure.axes[:-1]] == ['0', '1', '2']
    figure = plot_arrows({'a': conv, 'b': conv}, (1, 0, 0), 'xyz',
                         vector_in=1, resolution=5)
    assert len(figure.axes) == 6
    figure.savefig(tmp_path / 'arrows.png')
    assert (tmp_path / 'arrows.png').stat().st_size > 1000


def test_arrows_are_what_a_vector_becomes():
    """A convolution turns a vector at the centre of a grid into the arrows."""
    pytest.importorskip('matplotlib')
    conv = LatticeSteerableConv(VECTORS, VECTORS, 5)
    x = torch.zeros(1, 3, 5, 5, 5)
    x[0, :, 2, 2, 2] = torch.tensor([0., 0., 1.])
    out = conv(x)[0, :, 2].detach()  # the plane z = 0
    figure = plot_arrows({'k': conv}, normals='z', resolution=5)
    arrows = figure.axes[0].collections[1]
    assert np.allclose(arrows.U.reshape(5, 5), out[0], atol=1e-6)
    assert np.allclose(arrows.V.reshape(5, 5), out[1], atol=1e-6)
    colours = figure.axes[0].collections[0].get_array()
    assert np.allclose(colours.reshape(5, 5), out[2], atol=1e-6)


def test_fields_rotated_back_stay():
    torch.manual_seed(1)
    net = SteerableDemo(2, 3).double()
    frames = rotated_frames(net, blob().double(), net.out_type, turns(4))
    assert len(frames) == 4 and frames[0].fields.shape == (4, 17, 17, 17)
    # Turns by 90 degrees are exact, but for the grid's edge.
    assert max(changes(frames)) < 1e-10
    assert not torch.allclose(frames[1].fields, frames[0].fields)
    some = turns(7)[1:3]
    steerable = rotated_frames(net, blob().double(), net.out_type,
                               [np.eye(3), *some])
    plain = rotated_frames(plain_demo(4, 3).double(), blob().double(),
                           net.out_type, [np.eye(3), *some])
    assert max(changes(steerable)) < 0.2
    assert max(changes(plain)) > 0.5


def test_movie(tmp_path):
    pytest.importorskip('matplotlib')
    from PIL import Image
    path = tmp_path / 'new' / 'movie.gif'
    torch.manual_seed(0)
    errors = equivariance_movie(str(path), SteerableDemo(2, 3), blob(13),
                                baseline=plain_demo(2, 3), frames=3)
    assert len(errors) == 3 and errors[0] == 0
    with Image.open(path) as movie:
        assert movie.n_frames == 3


def test_command(tmp_path, capsys):
    pytest.importorskip('matplotlib')
    main(['--out', str(tmp_path), '--frames', '2'])
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ['equivariance.gif', 'slices_curl.png',
                     'slices_gradient_of_divergence.png',
                     'slices_identity.png', 'slices_random.png',
                     'vector_kernels.png']
    assert 'relative change' in capsys.readouterr().out


def test_bad_input(tmp_path, monkeypatch):
    conv = LatticeSteerableConv(VECTORS, VECTORS, 3)
    for kwargs in (dict(normal='w'), dict(extent=0.), dict(resolution=1)):
        with pytest.raises(ValueError, match=f"'{[*kwargs][0]}'"):
            sample_plane(conv, **kwargs)
    for path, frames, word in (('movie.mp4', 2, '.gif'),
                               ('movie.gif', 0, "'frames'")):
        with pytest.raises(ValueError, match=word):
            equivariance_movie(str(tmp_path / path), frames=frames)
    for bad in ([], {}, conv):
        with pytest.raises(TypeError, match="'modules'"):
            plot_arrows(bad)
    with pytest.raises(TypeError, match="'module'"):
        plot_slices(3)
    with pytest.raises(ValueError, match='scalar field'):
        equivariance_movie(str(tmp_path / 'm.gif'), conv)
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(ImportError, match='pip install matplotlib'):
        plot_slices(conv)
