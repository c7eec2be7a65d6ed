"""Shapes, as points, meshes and voxels."""
