"""Training, driven by Hugging Face Accelerate."""
