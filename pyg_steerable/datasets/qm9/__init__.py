"""QM9: small molecules and their quantum-chemical properties."""
