"""Small data for every task of benchmarks.accuracy."""
import numpy as np

TINY = ['--epochs', '1', '--batch-size', '8', '--train', '32', '--valid',
        '16', '--rates', '1e-3', '1e-2']


def nbody_file(path):
    """The layout; where the particles go is of no matter here."""
    rng, values = np.random.default_rng(0), {}
    for part, size in (('train', 40), ('valid', 20), ('test', 20)):
        values[f'{part}_charge'] = rng.choice([-1., 1.], (size, 5))
        for key in ('pos', 'vel', 'target'):
            values[f'{part}_{key}'] = rng.normal(size=(size, 5, 3))
    np.savez(path, **values)
    return str(path)


def clouds_file(path, seed):
    points = np.random.default_rng(seed).normal(size=(80, 150, 3))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)  # spheres
    np.savez(path, points=points.astype('float32'),
             label=np.arange(80) % 4, classes=np.array(list('abcd')))
    return str(path)


def frames_file(path, seed):
    """Seven atoms near their places."""
    rng = np.random.default_rng(seed)
    places = 3 * np.random.default_rng(0).uniform(size=(7, 3))
    np.savez(path, nuclear_charges=np.array([1, 1, 6, 6, 8, 1, 1]),
             coords=places + 0.1 * rng.normal(size=(60, 7, 3)),
             energies=rng.normal(size=60) - 5e4,
             forces=rng.normal(size=(60, 7, 3)))
    return str(path)


def voxels_file(path):
    rng = np.random.default_rng(0)
    values = {'classes': np.array(list('abcd'))}
    for part in ('train', 'test'):
        values[f'{part}_label'] = np.arange(60) % 4
        values[part] = np.packbits(rng.uniform(size=(60, 20, 20, 20)) < 0.2,
                                   axis=-1)
    np.savez(path, **values)
    return str(path)


def options(task, tmp_path):
    """The command line of a task, without --out."""
    files = {
        'qm9': lambda: [],
        'nbody': lambda: [nbody_file(tmp_path / 'nbody.npz')],
        'modelnet40': lambda: [clouds_file(tmp_path / f'{i}.npz', i)
                               for i in range(2)],
        'rmd17': lambda: [frames_file(tmp_path / f'{i}.npz', i)
                          for i in range(2)],
        'voxels': lambda: [voxels_file(tmp_path / 'voxels.npz')],
    }[task]()
    return [task, *TINY, *(['--npz', *files] if files else [])]
