"""``python -m pyg_steerable.viz``."""
from .command import main

main()
