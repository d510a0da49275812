"""The web page of `quantum-diffusion ui`: a local server, its API, and the files it serves."""
