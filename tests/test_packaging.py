"""What a user gets who installs the wheel, and what importing the library costs.

The wheel is installed into an environment of its own. Torch and numpy, too large to install again,
are lent by the environment that runs the tests: a `.pth` file appends its folder to `sys.path`,
behind the new environment's own, and a folder so appended is no site folder, so that an editable
install of this project in it stays out of sight.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from importlib.metadata import distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from served import served

import ascl_plugin

ROOT = Path(__file__).parents[1]
EXTRAS = (
    "transformers", "accelerate", "datasets", "PIL", "timm", "safetensors", "yaml", "tqdm",
    "huggingface_hub",
)  # fmt: skip

#: folders that only the source distribution has
BESIDE = ("docs", "tests", "examples", "benchmarks")


def run(*command: object, **options: Any) -> str:
    """What a command prints; its errors are in the message when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the sources."""
    tree = tmp_path_factory.mktemp("tree")
    for path in ROOT.iterdir():  # a copy, for a build leaves folders behind
        if path.is_file():
            shutil.copy(path, tree)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("ascl_plugin", "adapters", "recipes", *BESIDE):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    return tree


@pytest.fixture(scope="module")
def dist(tree, tmp_path_factory) -> Path:
    """A folder of the source distribution, and of the wheel that was built from that."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree)
    return out


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    """The wheel."""
    (built,) = dist.glob("*.whl")
    return built


def new_environment(wheel: Path, folder: Path) -> Path:
    """Make an environment with the wheel and nothing else; return its site-packages."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", wheel)
    return Path(run(python, "-c", "import site; print(site.getsitepackages()[0])").strip())


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel, and behind it everything that the tests' own has."""
    folder = tmp_path_factory.mktemp("environment")
    lent = "".join(f"{path}\n" for path in sys.path if path.endswith("site-packages"))
    (new_environment(wheel, folder) / "lent.pth").write_text(lent)
    return folder


@pytest.fixture(scope="module")
def base_install(wheel, tmp_path_factory) -> Path:
    """An environment of the wheel, its dependencies without extras, and theirs, as links."""
    folder = tmp_path_factory.mktemp("base")
    site = new_environment(wheel, folder)
    (own,) = distributions(path=[str(site)])
    for name in required(own.requires or []):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(installed.locate_file(top))
    return folder


def required(requirements: list[str]) -> set[str]:
    """Return the names of the requirements that hold here without extras, and of all of theirs."""
    found: set[str] = set()
    queue = [Requirement(line) for line in requirements]
    while queue:
        wanted = queue.pop()
        holds = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if holds and wanted.name not in found:
            found.add(wanted.name)
            queue += map(Requirement, distribution(wanted.name).requires or [])
    return found


@pytest.mark.recipe
def test_the_source_distribution_holds_docs_tests_and_examples(dist):
    (built,) = dist.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        held = {str(Path(*Path(name).parts[1:])) for name in archive.getnames()}
    told = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md")
    wanted = {*told, "SECURITY.md", "constraints.txt", "mkdocs.yml", "pyproject.toml"}
    for name in BESIDE:
        files = {p for p in (ROOT / name).rglob("*") if p.is_file() and p.suffix != ".pyc"}
        assert files
        wanted |= {str(path.relative_to(ROOT)) for path in files}
    assert not wanted - held


@pytest.mark.recipe
def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {"ascl_plugin/py.typed", "ascl_plugin/demo/templates/base.html"} <= set(names)
    configs = {p.relative_to(ROOT) for p in (ROOT / "recipes").rglob("*.yaml")}
    assert len(configs) > 10 and {f"ascl_plugin/{path}" for path in configs} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"ascl_plugin"}
    code = {str(p.relative_to(ROOT)) for p in (ROOT / "ascl_plugin").rglob("*.py")}
    for linked in ("adapters", "recipes"):
        code |= {f"ascl_plugin/{p.relative_to(ROOT)}" for p in (ROOT / linked).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == code


@pytest.mark.recipe
def test_the_installed_wheel_imports_from_its_own_environment(environment, tmp_path):
    code = (
        "import json, ascl_plugin, ascl_plugin.adapters, ascl_plugin.adapters.frozen as frozen\n"
        "from ascl_plugin import AsymmetryLoss, rerank\n"
        "modules = ascl_plugin, ascl_plugin.adapters, frozen\n"
        "print(json.dumps([m.__file__ for m in modules]))"
    )
    # from an empty folder, or the source tree would be what is imported
    files = json.loads(run(environment / "bin" / "python", "-c", code, cwd=tmp_path))
    for file in files:
        assert Path(file).is_relative_to(environment)
    assert files[1].endswith("ascl_plugin/adapters/__init__.py")


@pytest.mark.recipe
def test_the_installed_wheel_trains_and_reports(environment, tmp_path):
    """From an empty folder: a study, whose run is `ascl train`, and commands on what it leaves."""
    pytest.importorskip("accelerate", reason="extra `recipes`")
    ascl = environment / "bin" / "ascl"
    study = {
        "launch": f"{ascl} train", "config": "scenes", "models": {"small": {}}, "seeds": [0],
        "experiments": {"main": {}},
        "options": {
            **{f"scenes_{split}": 12 for split in ("train", "val", "test")},
            "batch_size": 4, "balanced_pairs": 2, "max_steps": 3, "cpu": True, "num_threads": 1,
        },
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    told = run(ascl, "experiment", "all", "--config", "study.yaml", "--output_dir=s", cwd=tmp_path)
    assert "small, reranked" in told
    trained = Path("s", "runs", "small-0")
    log = (tmp_path / f"{trained}.log").read_text()
    assert f"results and model in {trained}" in log.replace(f"{tmp_path}/", "")
    told = run(ascl, "rerank", trained / "scores_test.npy", cwd=tmp_path)
    assert "before" in told and "after" in told
    if find_spec("uvicorn"):  # extra `demo`
        with (
            served([ascl, "demo", trained, "--port=0"], tmp_path) as (address, _),
            urllib.request.urlopen(f"{address}search?q=a+red+square", timeout=60) as answer,
        ):
            assert "Pictures for <q>a red square</q>" in answer.read().decode()
    run(ascl, "report", trained, "--output", "page.html", cwd=tmp_path)
    assert "Rsum" in (tmp_path / "page.html").read_text()


@pytest.mark.recipe
def test_the_wheel_asks_for_torch_and_numpy_alone(environment, tmp_path):
    code = (
        "import json\nfrom importlib.metadata import requires\n"
        "print(json.dumps(requires('ascl-plugin')))"
    )
    wanted = json.loads(run(environment / "bin" / "python", "-c", code, cwd=tmp_path))
    base = [name for name in wanted if "extra ==" not in name]
    assert sorted(name.split(">")[0] for name in base) == ["numpy", "torch"]


@pytest.mark.recipe
def test_an_editable_install_is_a_path(tree, tmp_path):
    """Type checkers and editors follow a path; a hook of the importer they cannot."""
    code = f"from setuptools.build_meta import build_editable; build_editable({str(tmp_path)!r})"
    run(sys.executable, "-c", code, cwd=tree)
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        (name,) = (name for name in archive.namelist() if ".dist-info/" not in name)
        assert name.endswith(".pth") and archive.read(name).decode().strip() == str(tree)


def test_one_version_everywhere():
    version = ascl_plugin.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = next(li for li in (ROOT / "CHANGELOG.md").read_text().splitlines() if li[:4] == "## [")
    assert newest.startswith((f"## [{version}] - ", "## [Unreleased]"))


USER = """
from typing_extensions import assert_type
import numpy as np
import torch
from ascl_plugin import AsymmetryLoss, CrossModalFusion, ImageFeatures, TextFeatures, rerank
from ascl_plugin import retrieval_metrics
from ascl_plugin.adapters.losses.open_clip import OpenClipAsymmetryLoss
from ascl_plugin.adapters.towers.timm_grid import TimmGrid

sim = torch.eye(4)
assert_type(AsymmetryLoss(temperature=0.05)(sim, negative_sim=sim), torch.Tensor)
head = CrossModalFusion(8, 2)
images, texts = ImageFeatures(torch.zeros(2, 3, 8)), TextFeatures(torch.zeros(2, 3, 8))
assert_type(head(images, texts), torch.Tensor)
assert_type(retrieval_metrics(rerank(sim, k=3).i2t, np.arange(4))["rsum"], float)
assert_type(TimmGrid("resnet18").forward(torch.zeros(1, 3, 224, 224)), ImageFeatures)
OpenClipAsymmetryLoss(balance="a")
rerank(sim, method="csls", neighbor=3)
"""


@pytest.mark.recipe
def test_a_users_script_is_type_checked(environment, tmp_path):
    """Against the installed package: nothing of the above is Any, and wrong options are found."""
    pytest.importorskip("mypy", reason="extra `dev`")
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "user.py", "--no-color-output"]
    command += ["--python-executable", str(environment / "bin" / "python")]
    # torch takes a while: what the check of the project found out about it, by the same options
    cache = ROOT / ".mypy_cache" / "user"
    for known in (ROOT / ".mypy_cache").glob("3.*"):
        if not (cache / known.name).exists():
            shutil.copytree(known, cache / known.name)
    command += ["--cache-dir", str(cache), "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    found = [line for line in done.stdout.splitlines() if ": error: " in line]
    wrong = (
        'Argument "balance" to "OpenClipAsymmetryLoss"',
        'Unexpected keyword argument "neighbor"',
    )
    assert len(found) == 2, done.stdout + done.stderr
    assert all(text in line for text, line in zip(wrong, found, strict=True)), found


COMMANDS = ("rerank", "report", "evaluate", "convert", "demo", "experiment", "components")
TRIED = [
    "rerank sims.npy --captions_per_image 1",
    "train --max_steps 1",
    "evaluate run",
    "demo run",
    "report run",
    "convert x_ims.npy y.h5",
    "experiment all --config study.yaml --output_dir study",
]
#: runs each line of its first argument as words of `ascl`; prints exit statuses and outputs
EACH = """
import contextlib, io, json, sys
from ascl_plugin.commands.main import main
for line in sys.argv[1].splitlines():
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = main(line.split())
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, out.getvalue(), errors.getvalue()]))
"""


@pytest.mark.recipe
def test_commands_on_the_base_install(base_install, tmp_path):
    """Help, `components` and `rerank` work; the others say what is missing in one line."""
    python = base_install / "bin" / "python"
    code = "from importlib.util import find_spec as f; print(*map(bool, map(f, {})))"
    names = ["torch", "numpy", "accelerate", "yaml", "h5py"]
    found = run(python, "-c", code.format(names), cwd=tmp_path)
    assert found.split() == ["True", "True", "False", "False", "False"]
    assert set(COMMANDS) <= set(run(base_install / "bin" / "ascl", "--help", cwd=tmp_path).split())

    np.save(tmp_path / "sims.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "run").mkdir()
    (tmp_path / "study.yaml").write_text("experiments: [main]\n")
    lines = [*(f"{name} --help" for name in COMMANDS), "components", *TRIED]
    outcomes = map(json.loads, run(python, "-c", EACH, "\n".join(lines), cwd=tmp_path).splitlines())
    found = dict(zip(lines, outcomes, strict=True))
    for name in COMMANDS:
        status, out, _ = found[f"{name} --help"]
        assert status == 0 and out.startswith("usage:"), name
    assert "bidirectional" in found["components"][1]
    assert found[TRIED[0]][0] == 0 and "after" in found[TRIED[0]][1]
    for line in TRIED[1:]:
        status, _, errors = found[line]
        assert status == 2 and errors.startswith("ascl: error: "), line
        assert errors.count("\n") == 1 and "Traceback" not in errors, line


LIGHT = (
    "ascl_plugin.losses", "ascl_plugin.reranking", "ascl_plugin.fusion", "ascl_plugin.asymmetry",
    "ascl_plugin.metrics.recall", "ascl_plugin.scoring.matrix",
)  # fmt: skip


def test_the_library_imports_with_torch_and_numpy_alone():
    """What torch itself imports (tqdm, if installed) is not ours; everything else is barred."""
    code = (
        "import sys, torch, numpy, torch.hub, importlib\n"
        f"for name in set({EXTRAS}) - set(sys.modules): sys.modules[name] = None\n"
        "before = set(sys.modules)\n"
        f"for name in ('ascl_plugin', *{LIGHT}): importlib.import_module(name)\n"
        "ours = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(ours - set(sys.stdlib_module_names) - {'torch', 'numpy'}))"
    )
    assert run(sys.executable, "-c", code).strip() == "['ascl_plugin']"


def test_every_public_name_is_there_and_the_model_comes_when_asked_for():
    code = (
        "import sys, ascl_plugin.commands.main\n"
        "assert 'torch' not in sys.modules  # help comes at once\n"
        "from ascl_plugin import *\nimport ascl_plugin\n"
        "assert all(hasattr(ascl_plugin, name) for name in ascl_plugin.__all__)\n"
        "assert 'ascl_plugin.retrieval.model' not in sys.modules\n"
        "print(ascl_plugin.RetrievalModel.__name__, rerank.__name__)"
    )
    assert run(sys.executable, "-c", code).split() == ["RetrievalModel", "rerank"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Rerank'"):
        ascl_plugin.Rerank  # noqa: B018
