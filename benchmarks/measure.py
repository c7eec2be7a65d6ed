"""What benchmarks measure, and where."""
from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import torch


def machine(device: str) -> dict:
    """What the figures depend on."""
    facts = {
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'python': platform.python_version(),
        'device': device,
    }
    if device == 'cuda':
        facts['device'] = torch.cuda.get_device_name()
    return facts


def commit() -> str | None:
    """That of the program, and whether files differ from it."""
    def git(*command: str) -> str:
        return subprocess.run(['git', *command], capture_output=True,
                              text=True, check=True,
                              cwd=Path(__file__).parent).stdout.strip()

    try:
        changed = git('status', '--porcelain', '--untracked-files=no')
        return git('rev-parse', 'HEAD') + ('+changes' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory(device: str) -> int:
    """The high-water mark so far, in bytes."""
    if device == 'cuda':
        return torch.cuda.max_memory_allocated()
    try:  # of this program, not of the one that started it
        with open('/proc/self/status') as status:
            line = next(s for s in status if s.startswith('VmHWM'))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fresh(*arguments: str) -> str:
    """The last line that a new interpreter prints, where nothing is cached
    and no memory is in use yet.

    Raises:
        RuntimeError: If it fails, with what it complained about.
    """
    done = subprocess.run([sys.executable, '-W', 'ignore', *arguments],
                          capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or 'killed')
    return done.stdout.splitlines()[-1]
