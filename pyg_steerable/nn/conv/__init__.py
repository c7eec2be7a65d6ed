"""Convolutions, of points and of voxels."""
