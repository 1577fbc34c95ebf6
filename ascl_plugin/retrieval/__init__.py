"""The model, its inputs, its evaluation, and the audit of its scores."""
