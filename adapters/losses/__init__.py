"""The loss in other projects' trainers."""
