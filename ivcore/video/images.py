"""Still images: a clip of one frame. They are trained on beside videos and never scored."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from ivcore.video.probe import MAX_PIXELS, Unusable, regular_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
DECODER = f"pillow {PIL.__version__}"


def is_image(path: Path | str) -> bool:
    """Whether the file's name says it is one."""
    return Path(path).suffix.lower() in SUFFIXES


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The open image, its pixels not read yet; Unusable for what is none, or is too large."""
    regular_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the smaller limit
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as e:
        raise Unusable("too_large", str(e)) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        raise Unusable("unreadable", f"{type(e).__name__}: {e}".replace(str(path), path.name)) from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise Unusable("too_large", f"{image.width}x{image.height} is over {MAX_PIXELS} pixels")
        yield image


def probe(path: Path) -> dict[str, Any]:
    """width, height, codec, from the header alone; an image has no fps and no duration."""
    with opened(path) as image:
        return {"width": image.width, "height": image.height, "fps": None, "duration_s": None, "codec": _codec(image)}


def read(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], turned as the file says; Unusable where the pixels cannot be read."""
    with opened(path) as image:
        try:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as e:  # cut short, or damaged
            raise Unusable("truncated", f"{type(e).__name__}: {e}".replace(str(path), path.name)) from None


def _codec(image: Image.Image) -> str:
    return (image.format or "").lower()
