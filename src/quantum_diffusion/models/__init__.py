"""Networks: backbones, embeddings and condition encoders; pipelines combine them with a diffusion process."""
