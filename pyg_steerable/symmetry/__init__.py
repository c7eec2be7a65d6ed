"""Groups, fields and the maps between them: structure, frozen, in float64."""
