"""Where tests find their neighbours, and without which extras none is collected."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
if not all(map(importlib.util.find_spec, ("accelerate", "datasets", "h5py"))):
    collect_ignore_glob = ["test_*.py"]  # extras `recipes` and `regions`
