"""A component by name, by dotted path, and from another installed distribution."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest
import torch

from ascl_plugin import available, build, register, registry
from ascl_plugin.losses import AsymmetryLoss, TripletLoss


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def test_by_name_with_options():
    loss = build("loss", "ascl", temperature=0.1)
    assert isinstance(loss, AsymmetryLoss) and loss.temperature == 0.1
    assert available("loss") == ["ascl", "triplet"]
    assert available("nothing") == []
    assert registry.kinds() == sorted(registry.BUILT_IN)


def test_by_dotted_path():
    loss = build("loss", "ascl_plugin.losses:TripletLoss", margin=0.3)
    assert isinstance(loss, TripletLoss) and loss.margin == 0.3


def test_register_adds_a_name_and_the_last_wins():
    @register("loss", "mine")
    class First(torch.nn.Module):
        pass

    assert available("loss") == ["ascl", "mine", "triplet"]
    assert isinstance(build("loss", "mine"), First)
    register("loss", "ascl")(First)
    assert isinstance(build("loss", "ascl"), First)
    register("gallery", "mine")(First)  # a kind of its own
    assert "gallery" in registry.kinds() and available("gallery") == ["mine"]


@pytest.mark.parametrize(
    ("kind", "name", "error", "message"),
    [
        ("loss", "tripplet", KeyError, "no loss named 'tripplet'.*did you mean 'triplet'"),
        ("loss", "zzz", KeyError, "available: ascl, triplet, or a dotted path"),
        ("lost", "ascl", KeyError, "no component kind 'lost'; kinds are .*loss"),
        ("loss", "ascl_plugin.losses:Nothing", ImportError, "has no 'Nothing'"),
        ("loss", "no_such_package_here:Loss", ImportError, "no_such_package_here"),
    ],
)
def test_what_is_not_there_is_said(kind, name, error, message):
    with pytest.raises(error, match=message):
        build(kind, name)


def test_an_option_it_does_not_take_names_the_component():
    with pytest.raises(TypeError, match=r"loss 'ascl': .*'temprature'"):
        build("loss", "ascl", temprature=0.1)


def test_every_built_in_of_the_base_install_is_there():
    for kind in ("loss", "fusion", "rerank"):
        for name in available(kind):
            assert callable(registry.resolve(kind, name))


@pytest.fixture(scope="module")
def other_package(tmp_path_factory):
    """Folder with a distribution of somebody else's, installed there by pip from a wheel."""
    pytest.importorskip("pip", reason="this environment has no pip to install a package with")
    folder = tmp_path_factory.mktemp("other")
    wheel = folder / "other_losses-1.0-py3-none-any.whl"
    info = "other_losses-1.0.dist-info"
    files = {
        "other_losses.py": "class Hinge:\n    def __init__(self, margin=1):\n"
        "        self.margin = margin\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: other-losses\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": "[ascl_plugin.components]\n"
        "loss.hinge = other_losses:Hinge\nscene_maker.broken = other_losses:Nothing\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
        archive.writestr(f"{info}/RECORD", record)
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*command, "--target", str(site), str(wheel)], check=True)
    return site


def test_a_component_of_another_installed_package_is_found(other_package):
    program = (
        "import sys\nfrom ascl_plugin import available, build, registry\n"
        "assert available('loss') == ['ascl', 'hinge', 'triplet'], available('loss')\n"
        "assert 'scene_maker' in registry.kinds()\n"
        "assert 'other_losses' not in sys.modules, 'listing names must import nothing'\n"
        "print(build('loss', 'hinge', margin=3).margin)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(other_package)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_an_entry_point_that_does_not_load_fails_only_when_asked_for(other_package, monkeypatch):
    monkeypatch.syspath_prepend(str(other_package))
    assert available("scene_maker") == ["broken"]
    with pytest.raises(ImportError, match="'other_losses' has no 'Nothing'"):
        build("scene_maker", "broken")
