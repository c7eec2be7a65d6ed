"""Fewer points or voxels, more of them, and one vector for each cloud."""
