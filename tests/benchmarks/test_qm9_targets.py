"""All targets with what was chosen on one."""
import json

import pytest

pytest.importorskip('lightning')
from benchmarks import accuracy, qm9_targets  # noqa: E402


def test_two_targets(tmp_path, capsys):
    accuracy.main(['qm9', '--networks', 'EGNN', 'PaiNN', '--rates', '1e-3',
                   '1e-2', '--train', '64', '--valid', '16', '--epochs', '1',
                   '--batch-size', '16', '--out', str(tmp_path / 'homo')])
    command = ['--like', str(tmp_path / 'homo'), '--targets', 'homo', 'U0',
               '--out', str(tmp_path / 'out')]
    found = qm9_targets.main(command)
    assert list(found) == ['homo', 'U0']
    chosen = json.loads((tmp_path / 'homo/table.json').read_text())
    for target, row in found.items():
        assert set(row) == {'EGNN', 'PaiNN'}
        for name, error in row.items():
            rate = chosen['networks'][name]['rate']
            run = json.loads((tmp_path / 'out' / target /
                              f'{name}_{rate:g}_0.json').read_text())
            assert run['test']['MAE'] == error > 0 and run['steps'] == 4
    # Of the first target all is as it was.
    name = f"EGNN_{chosen['networks']['EGNN']['rate']:g}_0.json"
    first, again = (json.loads((tmp_path / folder / name).read_text())
                    for folder in ('homo', 'out/homo'))
    assert first['valid'] == again['valid']
    assert (tmp_path / 'out/targets.png').stat().st_size > 0
    capsys.readouterr()
    written = (tmp_path / 'out/U0').stat().st_mtime_ns
    assert qm9_targets.main(command) == found  # nothing is done again
    assert (tmp_path / 'out/U0').stat().st_mtime_ns == written
    assert '| U0 | meV |' in capsys.readouterr().out


def test_another_task(tmp_path):
    (tmp_path / 'table.json').write_text('{"task": "nbody"}')
    with pytest.raises(ValueError, match="'--like'.*nbody"):
        qm9_targets.main(['--like', str(tmp_path), '--out',
                          str(tmp_path / 'out')])
