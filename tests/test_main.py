"""``python -m pyg_steerable`` says what is there."""
import subprocess
import sys

import pytest
import torch

import pyg_steerable
from pyg_steerable.__main__ import facts


@pytest.mark.parametrize('options', [[], ['--help'], ['--version']],
                         ids=str)
def test_command(options):
    done = subprocess.run([sys.executable, '-m', 'pyg_steerable', *options],
                          capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    if options != ['--version']:
        assert 'pyg_steerable.viz' in done.stdout
        assert 'examples/qm9.py --demo' in done.stdout
    if options != ['--help']:
        assert pyg_steerable.__version__ in done.stdout


def test_unknown_option():
    done = subprocess.run([sys.executable, '-m', 'pyg_steerable', '--what'],
                          capture_output=True, text=True)
    assert done.returncode == 2 and '--what' in done.stderr


def test_facts():
    found = facts()
    assert found['torch'] == torch.__version__.split('+')[0] or \
        found['torch'] == torch.__version__
    assert 'torch' in found['neighbour engines'].split(', ')
    assert found['threads'] == str(torch.get_num_threads())
