"""Generate a data set of random, simplified, distinct, exactly labelled circuits.

Run: python scripts/generate_dataset.py datasets=quick_test_srv datasets.output_path=./datasets/srv_dataset
All keys: python scripts/generate_dataset.py --help
"""

from quantum_diffusion.cli import run_script

if __name__ == "__main__":
    run_script("generate")
