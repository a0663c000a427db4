"""What a camera wrote into a picture: when and where it was taken, and by which camera.

    taken = read_exif(header(encoded).exif)         # multimodal.pictures.decode.header
    taken.date, taken.camera                        # datetime(2024, 6, 1, 12, 0), "X100"; None where it does not say

Tags as in EXIF 3.0 (CIPA DC-008). Nothing is guessed: a picture without DateTimeOriginal has no date, whatever its file's time is. EXIF may
be damaged, or somebody's attack: `read_exif` never raises.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

MAX_BYTES = 1 << 26
"""More is a TIFF whose pixels are in the way, and is read as well; a larger one has no date."""
MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Taken:
    """date: the camera's local time, without a time zone. latitude, longitude: in degrees, north and east positive; both or neither."""

    date: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def read_exif(exif: bytes) -> Taken:
    """From a TIFF structure, with or without "Exif" before it. What is missing or damaged is None."""
    if not exif or len(exif) > MAX_BYTES:
        return Taken()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged directories, of which the rest is read
            parsed = Image.Exif()
            parsed.load(exif)
            first = dict(parsed)
            details = dict(parsed.get_ifd(ExifTags.IFD.Exif))
            place = dict(parsed.get_ifd(ExifTags.IFD.GPSInfo))
    except Exception:  # files from anywhere are parsed here, and Pillow raises SyntaxError, struct.error, TypeError ...: they say nothing
        return Taken()
    latitude = _degrees(place, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S", 90)
    longitude = _degrees(place, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W", 180)
    if latitude is None or longitude is None:
        latitude = longitude = None
    return Taken(_date(details.get(ExifTags.Base.DateTimeOriginal)), _text(first.get(ExifTags.Base.Model)), latitude, longitude)


def _text(value: Any) -> str | None:
    """A text of one line, without the NULs and blanks that cameras pad with."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    text = " ".join(value.partition("\0")[0].split())
    return text if text and len(text) <= MAX_CHARACTERS and text.isprintable() else None


def _date(value: Any) -> datetime | None:
    """ "2024:06:01 12:00:00"; None for a clock that was never set ("0000:00:00 00:00:00") and anything else that is no time."""
    text = _text(value)
    for form in ("%Y:%m:%d %H:%M:%S", "%Y-%m-%d %H:%M:%S") if text else ():
        try:
            return datetime.strptime(text or "", form)
        except ValueError:
            continue
    return None


def _degrees(place: Mapping[int, Any], tag: int, reference: int, negative: str, most: int) -> float | None:
    try:
        whole, minutes, seconds = (float(part) for part in place[tag])
        degrees = whole + minutes / 60 + seconds / 3600
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not math.isfinite(degrees) or not 0 <= degrees <= most:
        return None
    return round(-degrees if _text(place.get(reference)) == negative else degrees, 7)
