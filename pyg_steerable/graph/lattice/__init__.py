"""Voxels of a regular grid as graphs."""
