"""The experiment with springs to a plane."""
import json

import pytest

for name in ('lightning', 'matplotlib', 'tqdm'):
    pytest.importorskip(name)
from benchmarks.papers import nbody_plane  # noqa: E402
from examples import nbody  # noqa: E402
from pyg_steerable.datasets import generate_nbody  # noqa: E402

OPTIONS = ['--stiffness', '0', '2', '--seeds', '0', '1', '--parameters',
           '400', '--train', '20', '--valid', '10', '--epochs', '1',
           '--batch-size', '10', '--hidden', '2', '--steps', '2', '--device',
           'cpu']


def test_all_runs(tmp_path, monkeypatch, capsys):
    made = []

    def generate(num, system, seed):
        made.append((system.law, system.stiffness))
        return generate_nbody(num, system, start=5, steps=10, seed=seed)

    monkeypatch.setattr(nbody, 'generate_nbody', generate)
    table = nbody_plane.main([*OPTIONS, '--out', str(tmp_path)])
    assert set(made) == {('springs', 0.), ('springs', 2.)}
    assert len(made) == 3 * 8
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'plane.json', 'plane.png', *(
        f'{group}_{stiffness}_{seed}' for group in ('O3', 'SO2xM')
        for stiffness in (0, 2) for seed in (0, 1))}
    assert json.loads((tmp_path / 'plane.json').read_text()) == table
    for group, row in table.items():
        for stiffness, entry in row.items():
            runs = [json.loads((tmp_path / f'{g}_{stiffness}_{seed}' /
                                'results.json').read_text())
                    for g in (group.replace('(', '').replace(')', ''), )
                    for seed in (0, 1)]
            assert [r['test_mse'] for r in runs] == entry['values']
            assert entry['mean'] == pytest.approx(sum(entry['values']) / 2)
            assert {r['options']['group'] for r in runs} == {group}
            assert all(r['options']['open'] for r in runs)
    sizes = [row['2']['parameters'] for row in table.values()]
    assert max(sizes) < 1.6 * min(sizes)
    monkeypatch.setattr(nbody, 'load', None)  # nothing is done again
    capsys.readouterr()
    assert nbody_plane.main([*OPTIONS, '--out', str(tmp_path)]) == table
    assert capsys.readouterr().out.count('test MSE') == 8
