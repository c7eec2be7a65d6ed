"""Point clouds: neighbours, sampling, periodic images."""
