"""Region features in files."""
