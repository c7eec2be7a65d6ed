"""The examples on lattices and on Tetris."""
import pytest
from resume import EXAMPLES  # noqa: F401  (puts the examples on the path)

pytest.importorskip('matplotlib')
pytest.importorskip('lightning')
import lattice_equivariance  # noqa: E402
import tetris_points  # noqa: E402


def test_low_pass_helps(tmp_path):
    table = lattice_equivariance.main([
        '--size', '17', '--widths', '1.5', '--rotations', '2', '--inputs',
        '1', '--out', str(tmp_path)])
    assert 0 < table['low-pass'][0] < 0.6 * table['plain'][0]
    assert (tmp_path / 'equivariance.png').stat().st_size > 0


def test_mirror_images():
    """SO(3) tells them apart, invariants of O(3) cannot."""
    found = tetris_points.main(['--steps', '80', '--copies', '5', '--seeds',
                                '0'])
    assert found['SO(3)'][0] > 0.95
    assert found['O(3)'][0] == 7 / 8
