"""Normalising image files: what keeps its bytes, what is encoded again, what is rejected and why."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data_shards.images import pixels as pixels_module
from data_shards.images.jpeg import count_scans, read_head
from data_shards.images.normalize import encode, normalise
from data_shards.images.other_formats import FORMATS
from data_shards.images.pixels import Rejected
from tests.support.small_set import jpeg, photo

PHOTO = photo(3, 60, 44, grain=0.5)
PLAIN = jpeg(PHOTO)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False).astype(int)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        jpeg(PHOTO[..., 0]),
        saved(Image.fromarray(PHOTO), "JPEG", progressive=True),
        saved(Image.fromarray(PHOTO), "JPEG", exif=Image.Exif()),
        PLAIN + b"bytes after the end",
    ],
    ids=["baseline", "grey", "progressive", "exif", "trailing"],
)
@pytest.mark.parametrize("verify", [True, False])
def test_plain_jpeg_keeps_its_bytes(data, verify):
    image = normalise(data, verify=verify)
    assert image == (data, 60, 44, None)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_applied(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(PHOTO), kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    image = normalise(data)
    assert "EXIF orientation" in image.converted
    assert (image.height, image.width) == upright.shape[:2]
    assert np.abs(pixels(image.jpeg) - upright).mean() < 2
    assert read_head(image.jpeg).orientation == 1


def test_broken_exif_is_no_orientation():
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 500)
    data = PLAIN[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + PLAIN[2:]
    assert normalise(data).jpeg == data


def test_cmyk_and_ycck_as_pillow_has_them():
    cmyk = Image.fromarray(PHOTO).convert("CMYK")
    for data in (saved(cmyk, "JPEG", quality=100), YCCK):
        image = normalise(data)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert image.converted == "CMYK"
        assert read_head(image.jpeg).components == 3
        assert np.abs(pixels(image.jpeg) - expected).mean() < 2


def ycck() -> bytes:
    """A CMYK file whose Adobe marker says YCCK: the first three components are read as YCbCr."""
    data = bytearray(saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=100))
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    data[place] = 2
    return bytes(data)


YCCK = ycck()


def test_jpeg_of_rgb_components_is_coded_anew():
    data = simplejpeg.encode_jpeg(PHOTO, 100, colorsubsampling="444")
    start = data.index(b"\xff\xe0")
    end = start + 2 + struct.unpack_from(">H", data, start + 2)[0]
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x00"
    rgb = data[:start] + adobe + data[end:]
    image = normalise(rgb)
    assert image.converted == "RGB coding"
    assert np.abs(pixels(image.jpeg) - pixels(rgb)).mean() < 2


GREY = Image.fromarray(PHOTO).convert("L")
DEEP = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (Image.fromarray(PHOTO), "PNG", {}, PHOTO),
        (Image.fromarray(PHOTO), "PPM", {}, PHOTO),
        (Image.fromarray(PHOTO), "BMP", {}, PHOTO),
        (Image.fromarray(PHOTO), "WEBP", {"lossless": True}, PHOTO),
        (Image.fromarray(PHOTO), "TIFF", {"compression": "tiff_lzw"}, PHOTO),
        (GREY, "PNG", {}, GREY),
        (GREY, "PPM", {}, GREY),
        (GREY, "GIF", {}, GREY),
        (DEEP, "PNG", {}, GREY),
        (DEEP, "PPM", {}, GREY),
        (DEEP, "TIFF", {}, GREY),
        (GREY.convert("1"), "PNG", {}, GREY.convert("1").convert("L")),
    ],
)
def test_other_formats(image, kind, options, expected):
    image = normalise(saved(image, kind, **options))
    assert kind in image.converted
    assert (image.width, image.height) == (60, 44)
    expected = np.asarray(expected).reshape(44, 60, -1)
    if kind != "GIF":  # stored with a palette, hence as colour
        assert read_head(image.jpeg).components == expected.shape[2]
    assert np.abs(pixels(image.jpeg) - expected).mean() < 2.5


def test_16_bit_colour_png():
    ok, data = cv2.imencode(".png", PHOTO[..., ::-1].astype(np.uint16) * 257)
    assert ok
    assert np.abs(pixels(normalise(data.tobytes()).jpeg) - PHOTO).mean() < 2


def test_alpha_is_laid_on_white():
    image = Image.fromarray(PHOTO)
    image.putalpha(Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 30, 1).repeat(44, 0)))
    image = normalise(saved(image, "PNG"))
    assert "alpha" in image.converted
    assert pixels(image.jpeg)[:, :26].min() > 240
    assert np.abs(pixels(image.jpeg)[:, 34:] - PHOTO[:, 34:]).mean() < 2


def test_size_cuts_the_centre_and_averages():
    data = simplejpeg.encode_jpeg(PHOTO, 100, colorsubsampling="444")
    image = normalise(data, size=22)
    expected = pixels(data)[:, 8:52].reshape(22, 2, 22, 2, 3).mean((1, 3))
    assert (image.width, image.height, image.converted) == (22, 22, "resized")
    assert np.abs(pixels(image.jpeg) - expected).mean() < 3
    assert normalise(image.jpeg, size=22) == (image.jpeg, 22, 22, None)
    assert normalise(jpeg(PHOTO[..., 0]), size=96)[1:] == (96, 96, "resized")


def test_crop_is_clipped_and_cut_first():
    image = normalise(PLAIN, crop=(-5, 4, 25, 20))
    assert (image.width, image.height, image.converted) == (20, 20, "cut")
    assert np.abs(pixels(image.jpeg) - pixels(PLAIN)[4:24, :20]).mean() < 2
    with pytest.raises(Rejected, match="outside"):
        normalise(PLAIN, crop=(100, 0, 10, 10))


def test_harmless_warning_is_coded_anew():
    data = bytearray(PLAIN)
    scan = data.index(b"\xff\xda")
    data[scan + 2 + struct.unpack_from(">H", data, scan + 2)[0] - 2] = 10
    image = normalise(bytes(data))
    assert image.converted == "Invalid SOS parameters for sequential JPEG"
    assert np.abs(pixels(image.jpeg) - pixels(PLAIN)).mean() < 2


def huge(width: int, height: int) -> bytes:
    frame = PLAIN.index(b"\xff\xc0")
    return PLAIN[: frame + 5] + struct.pack(">HH", height, width) + PLAIN[frame + 9 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not a picture"),
        (b"%PDF-1.4", "not a picture"),
        (PLAIN[:3], "truncated JPEG header"),
        (PLAIN[:200], "truncated JPEG header"),
        (PLAIN[: len(PLAIN) // 2], "Premature end"),
        (PLAIN[:-30], "does not decode"),
        (huge(60_000, 60_000), "too many"),
        (huge(0, 44), "0 x 44"),
        (saved(Image.fromarray(PHOTO), "PNG")[:2000], "truncated|broken"),
        (saved(Image.fromarray(PHOTO), "PPM")[:2000], "does not decode"),
        (saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating"),
        (b"P5 60000 60000 255\n" + bytes(100), "pixels"),
    ],
)
@pytest.mark.parametrize("size", [None, 32])
def test_rejected_with_reason(data, reason, size):
    with pytest.raises(Rejected, match=reason):
        normalise(data, size=size)


KINDS = [
    PLAIN,
    YCCK,
    *(saved(Image.fromarray(PHOTO), kind) for kind in FORMATS),
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS), st.floats(0, 1), st.integers(1, 255), st.floats(0, 1), st.sampled_from([None, 24])
)
def test_damage_never_crashes(data, place, change, length, size):
    damaged = bytearray(data)
    damaged[int(place * (len(data) - 1))] ^= change
    try:
        image = normalise(bytes(damaged[: max(1, int(length * 1.3 * len(data)))]), size=size)
    except Rejected:
        return
    decoded = simplejpeg.decode_jpeg(image.jpeg)
    assert decoded.shape[:2] == (image.height, image.width)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"P6 ", b"II*\0"]),
)
def test_noise_is_rejected(tail, start):
    with pytest.raises(Rejected):
        normalise(start + tail)


def test_encode_is_near_lossless():
    assert np.abs(pixels(encode(PHOTO)) - PHOTO).mean() < 2


def bomb(form: str, side: int) -> bytes:
    """A small file of that format whose header claims side x side pixels."""
    tiny = io.BytesIO()
    Image.new("RGB", (9, 7)).save(tiny, form, **({"lossless": True} if form == "WEBP" else {}))
    data = bytearray(tiny.getvalue())
    if form == "PNG":
        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif form == "BMP":
        data[18:26] = side.to_bytes(4, "little") * 2
    elif form == "GIF":
        data[6:10] = side.to_bytes(2, "little") * 2
    elif form == "PPM":
        data = bytearray(data.replace(b"9 7", b"%d %d" % (side, side), 1))
    elif form == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = side.to_bytes(2, "big") * 2
    elif form == "TIFF":
        entries = int.from_bytes(data[4:8], "little") + 2
        for at in range(entries, entries + 24, 12):  # the first two tags: width, height
            data[at + 2 : at + 12] = b"\x04\0\1\0\0\0" + side.to_bytes(4, "little")
    elif form == "WEBP":
        at = data.index(b"VP8L") + 9
        data[at : at + 4] = ((side - 1) | (side - 1) << 14).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF", "GIF"])
def test_a_bomb_is_refused_by_its_header(form):
    with pytest.raises(Rejected, match="12000 x 12000 pixels are too many"):
        normalise(bomb(form, 12_000))


def test_a_jpeg_of_endless_scans_is_refused():
    data = jpeg(photo(1, 48, 48))
    at = data.index(b"\xff\xda")
    with pytest.raises(Rejected, match="501 scans are too many"):
        normalise(data[:at] + data[at : at + 14] * 500 + data[at:])


def test_what_a_phone_appends_to_an_image_is_no_scan_of_it():
    assert normalise(PLAIN + b"\xff\xda" * 501).jpeg
    progressive = saved(Image.fromarray(PHOTO), "JPEG", progressive=True, comment=b"\xff\xda" * 9)
    assert count_scans(PLAIN) == 1
    assert count_scans(progressive) == count_scans(progressive + b"\xff\xda") == 10


def test_strips_change_no_pixel(monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (37, 23, 4), np.uint8)
    deep = rng.integers(0, 65536, (37, 23), np.uint16)
    images = [Image.fromarray(pixels, "RGBA"), Image.fromarray(deep), Image.fromarray(pixels, "CMYK")]
    images.append(images[0].convert("P"))
    images[-1].info["transparency"] = 3
    found = []
    for strip in (1 << 18, 50):
        monkeypatch.setattr(pixels_module, "STRIP", strip)
        for image, form in zip(images, ("PNG", "PNG", "JPEG", "PNG"), strict=True):
            data = io.BytesIO()
            image.save(data, form)
            found.append(normalise(data.getvalue()))
    assert found[:4] == found[4:]
