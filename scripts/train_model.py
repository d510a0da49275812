"""Train a conditional diffusion model on a data set and save it with everything needed to use and reproduce it.

Run: python scripts/train_model.py training=quick_test_srv training.general.dataset=./datasets/srv_dataset
All keys: python scripts/train_model.py --help
"""

from quantum_diffusion.cli import run_script

if __name__ == "__main__":
    run_script("train")
