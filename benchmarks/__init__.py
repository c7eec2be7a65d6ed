"""Speed and accuracy. Run from the folder of the repository, for example
``python -m benchmarks.conv``.
"""
