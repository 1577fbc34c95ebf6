"""A picture comes out RGB, upright and whole, or an error names it."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("PIL")
from PIL import Image

from ascl_plugin.data.images import check_pictures, load_image
from ascl_plugin.data.rows import to_dataset


def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    picture.save(data, form, **options)
    return data.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "CMYK"])
def test_every_mode_comes_out_rgb(tmp_path, mode):
    picture = Image.new("RGB", (6, 4), "white").convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    (tmp_path / "a").write_bytes(encoded(picture, form))
    for cell in (
        {"path": str(tmp_path / "a"), "bytes": None},
        {"path": None, "bytes": encoded(picture, form)},
        picture,
    ):
        loaded = load_image(cell, "1")
        assert (loaded.mode, loaded.size) == ("RGB", (6, 4))
        assert loaded.getpixel((5, 3)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bits_of_grey_are_scaled(mode):
    """0, 8192 and 65535 of 65535 are 0, 32 and 255 of 255."""
    picture = Image.new("I", (3, 1))
    for x, grey in enumerate((0, 8192, 65535)):
        picture.putpixel((x, 0), grey)
    picture = picture.convert(mode)
    for cell in (picture, {"path": None, "bytes": encoded(picture, "TIFF")}):
        loaded = load_image(cell, "1")
        assert [loaded.getpixel((x, 0)) for x in range(3)] == [(v, v, v) for v in (0, 32, 255)]


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    loaded = load_image({"path": None, "bytes": data}, "1")
    assert (loaded.mode, loaded.getpixel((1, 1))) == ("RGB", (255, 0, 0))


def test_exif_orientation_is_applied():
    """Orientation 6: the camera was turned, so the picture is shown turned clockwise by 90 degrees.

    Left red, right blue in the file becomes top red, bottom blue; 40 x 20 becomes 20 x 40.
    """
    picture = Image.new("RGB", (40, 20), "blue")
    picture.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture, "PNG", exif=exif)
    for cell in ({"path": None, "bytes": data}, Image.open(io.BytesIO(data))):
        loaded = load_image(cell, "1")
        assert loaded.size == (20, 40)
        assert loaded.getpixel((10, 5)) == (255, 0, 0)
        assert loaded.getpixel((10, 35)) == (0, 0, 255)


def test_bytes_go_before_the_path():
    cell = {"path": "was/once/here.png", "bytes": encoded(Image.new("RGB", (3, 3)))}
    assert load_image(cell, "1").size == (3, 3)


@pytest.mark.parametrize("fault", ["text", "empty", "truncated"])
def test_what_does_not_decode_is_named(tmp_path, fault):
    good = encoded(Image.effect_noise((64, 64), 50), "JPEG")
    data = {"text": b"hello", "empty": b"", "truncated": good[: len(good) // 2]}[fault]
    path = tmp_path / "broken.jpg"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"image 42 \({path}\) does not decode"):
        load_image({"path": str(path), "bytes": None}, "42")
    with pytest.raises(ValueError, match=r"image 42 \(embedded\) does not decode"):
        load_image({"path": None, "bytes": data}, "42")


def test_missing_file_and_empty_cell(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"image 42 \(.*none.png\): no such file"):
        load_image({"path": str(tmp_path / "none.png"), "bytes": None}, "42")
    with pytest.raises(ValueError, match="image 42: the row has neither a path nor bytes"):
        load_image({"path": None, "bytes": None}, "42")


def test_the_limit_is_pillows_own(monkeypatch):
    data = encoded(Image.new("RGB", (10, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image({"path": None, "bytes": data}, "42").size == (10, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load_image({"path": None, "bytes": data}, "42").size == (10, 10)


def test_all_pictures_that_are_not_there_are_named_at_once(tmp_path):
    (tmp_path / "a.png").touch()

    def rows(*names):
        cells = [{"path": str(tmp_path / f"{n}.png"), "bytes": None} for n in names]
        return to_dataset(
            [
                {"image_id": n, "image": cell, "captions": ["x"], "caption_ids": ["y"], "split": ""}
                for n, cell in zip(names, cells, strict=True)
            ]
        )

    check_pictures({"train": rows("a")})
    with pytest.raises(FileNotFoundError, match=r"4 of 5 .* train image b .*b\.png\), .* 1 more"):
        check_pictures({"train": rows("a", "b"), "val": rows("c", "d", "e")})
