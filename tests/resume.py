"""An example is killed and started again."""
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

EXAMPLES = Path(__file__).parent.parent / 'examples'
sys.path.insert(0, str(EXAMPLES))


def assert_resumes(tmp_path, script: str, main, options: list[str],
                   keys: list[str]) -> None:
    """Checks that the results and weights are those of an uninterrupted
    run.
    """
    whole = main([*options, '--out', str(tmp_path / 'whole')])
    part = tmp_path / 'part'
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / script), *options, '--out',
         str(part)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.time() + 120
    while not (part / 'last.ckpt').exists():
        assert process.poll() is None and time.time() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (part / 'results.json').exists(), 'ended before it was killed'
    resumed = main([*options, '--out', str(part)])
    for key in keys:
        assert resumed[key] == whole[key]
    first, second = (
        torch.load(tmp_path / name / 'last.ckpt', weights_only=False)
        for name in ('whole', 'part'))
    for key, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][key]), key
    logs = [(tmp_path / name / 'metrics.csv').read_text().count('\n')
            for name in ('whole', 'part')]
    # Killed between an epoch's checkpoint and its last line in the log.
    assert logs[0] - logs[1] in (0, 1)
