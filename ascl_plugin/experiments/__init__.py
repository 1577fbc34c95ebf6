"""The papers' experiments, and the ones they lack, on any data and encoders."""
