"""Fixtures that tests share: runs on several ranks, tar files, small pictures, features."""

from __future__ import annotations

import io
import json
import runpy
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "programs"))
from forked import start

from ascl_plugin.features import ImageFeatures, TextFeatures

#: The same examples in every run; `--hypothesis-profile default` draws new ones.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")

#: Files that launch processes or compile, the slowest first; so workers of xdist end together.
SLOW = (
    "test_gpu_check", "test_processes", "test_faults", "test_packaging", "test_experiments",
    "test_triton", "test_engines", "test_extract_features", "test_devices", "test_eccv",
    "test_stream", "test_resume", "test_recipes", "test_shards", "test_open_clip_trainer",
    "test_memory", "test_sharding",
)  # fmt: skip

CHROMIUM_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def pytest_configure(config):
    """Keep the order below; pytest-xdist would begin with the files of most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Put the slow files first."""
    places = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.stem, len(SLOW)))


@pytest.fixture(scope="session")
def run_ranks():
    """Return a function that runs a program once per rank and loads the `OUT/RANK.pt` it writes.

    Each rank is `python PROGRAM OUT` with one thread and the environment that torchrun would set,
    forked from a process that has imported torch and run nothing (this one has threads, which a
    fork would inherit). It starts its process group by
    `init_process_group("gloo", init_method=os.environ["INIT_METHOD"])`, before any Accelerator.
    """

    def run(program, out, world=2, timeout=600):
        with tempfile.TemporaryDirectory() as folder:
            ranks = [
                start(program, [out], _rank_environment(rank, world, f"{folder}/store"))
                for rank in range(world)
            ]
            try:
                for process in ranks:
                    process.join(timeout)
                assert [process.exitcode for process in ranks] == [0] * world
            finally:
                for process in ranks:
                    process.kill()
        return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(world)]

    return run


@pytest.fixture
def run_ranks_of(run_ranks, tmp_path_factory):
    """Return a function that runs the `main` of a program on two ranks.

    It returns exit status, output and errors of each.
    """

    def run(program, *arguments):
        out = tmp_path_factory.mktemp("ranks")
        (out / "command.json").write_text(json.dumps([str(program), *map(str, arguments)]))
        return run_ranks(Path(__file__).parent / "programs" / "one_rank.py", out)

    return run


def _rank_environment(rank, world, store):
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    return {name: str(number) for name, number in numbers.items()} | {
        "INIT_METHOD": f"file://{store}?rank={rank}&world_size={world}"
    }


@pytest.fixture
def run_recipe(capsys):
    """Return a function of flags that runs recipes/ascl_coco.py in this process.

    It returns the exit status and the last line of stderr.
    """
    recipe = Path(__file__).parents[1] / "recipes" / "ascl_coco.py"
    main = runpy.run_path(str(recipe))["main"]

    def run(*flags):
        code = main(list(map(str, flags)))
        return code, (capsys.readouterr().err.strip().splitlines() or [""])[-1]

    return run


@pytest.fixture(scope="session")
def write_tar():
    """Return a function that writes a tar file in the layout of webdataset."""

    def write(path, samples):
        """Write samples, a dictionary of key -> {extension: bytes}."""
        with tarfile.open(path, "w") as tar:
            for key, files in samples.items():
                for extension, data in files.items():
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))

    return write


@pytest.fixture(scope="session")
def png():
    """Return a function that encodes a small picture of one shade of red, 0 to 255, as PNG."""
    from PIL import Image

    def draw(number):
        file = io.BytesIO()
        Image.new("RGB", (40, 30), (number, 0, 0)).save(file, "PNG")
        return file.getvalue()

    return draw


@pytest.fixture(scope="session")
def features():
    """Return a function that draws features without any relation, padded at either end."""

    def draw(images=7, texts=9, masked=True, tail=True, dim=4, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def drawn(items, places):
            lengths = torch.randint(1, places + 1, (items, 1), generator=generator)
            real = torch.arange(places) < lengths
            real = (real if tail else real.flip(1)) if masked else None
            return torch.randn(items, places, dim, generator=generator), real

        v, w = drawn(images, 3), drawn(texts, 5)
        return ImageFeatures(*v, torch.randn(images, dim, generator=generator)), TextFeatures(*w)

    return draw


@pytest.fixture
def cores():
    """Sets the number of threads torch may use, for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Return a headless Chromium, its log and its network recorded; skip where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="extra `test`")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = selenium.Chrome(options, selenium.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture
def set_width(browser):
    """Return a function of a browser and a width in pixels; a phone's below 500."""

    def change(page, width):
        # a window of Chromium is no narrower than 500 pixels, its device may be
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    yield change
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
