"""Conversion between this package's formats and those of genQC and the Hugging Face Hub."""
