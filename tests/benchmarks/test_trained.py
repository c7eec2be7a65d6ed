"""Trained networks inside and outside of their groups."""
import json

import pytest
from comparisons import options

pytest.importorskip('lightning')
from benchmarks import accuracy, trained  # noqa: E402

NETWORKS = {
    'qm9': ['QM9Net', 'EGNN'],
    'nbody': ['NBodyNet'],
    'modelnet40': ['SO(2)xM, harmonic', 'SO(3), implicit'],
    'rmd17': ['Potential'],
    'voxels': ['steerable', 'CNN'],
}


@pytest.mark.parametrize('task', list(NETWORKS))
def test_inside_and_outside(tmp_path, task, capsys):
    command, out = options(task, tmp_path), tmp_path / 'out'
    accuracy.main([*command, '--networks', *NETWORKS[task], '--out', str(out)])
    files = (command[command.index('--npz'):] if '--npz' in command else [])
    capsys.readouterr()
    found = trained.main([str(out), *files])
    claimed = [n for n in NETWORKS[task] if n not in ('EGNN', 'CNN')]
    assert list(found) == claimed
    # QuotientELU, an integral over the sphere, is a sum over its points.
    tol = 1e-3 if task == 'modelnet40' else 1e-10
    for row in found.values():
        assert row['inside, float64'] < tol
        assert row['inside, float32'] < 1e-3
        assert row['outside, float64'] > max(1e-6, 10 * tol)
        assert row['outside, float32'] > max(1e-6, 10 * tol)
    assert json.loads((out / 'trained.json').read_text())['error'] == found
    assert f'| {claimed[0]} | ' in capsys.readouterr().out
