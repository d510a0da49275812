"""Networks that only compute: backbones, embeddings, condition encoders."""
