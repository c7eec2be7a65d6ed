"""Proteins: structures to classify, and surroundings of amino acids."""
