"""The page of `quantum-diffusion ui`: a server on this machine, what it answers, and the files it serves."""
