"""Sample from a saved model, verify every circuit by simulation, and compare with baselines.

Run: python scripts/evaluate_model.py evaluation.dataset=./datasets/srv_dataset evaluation.model_dir=./models/quick_test
All keys: python scripts/evaluate_model.py --help
"""

from quantum_diffusion.cli import run_script

if __name__ == "__main__":
    run_script("evaluate")
