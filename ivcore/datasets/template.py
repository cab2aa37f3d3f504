"""captions.csv to fill in: a row for each video of a folder, its caption empty."""

import csv
from pathlib import Path

from ivcore.config import DataConfig
from ivcore.datasets.files import BESIDE, Place, root_folder
from ivcore.errors import UserError

COLUMNS = ("path", "caption", "language", "split")  # those that most fill in; docs/your-videos.md has them all


def write(data: DataConfig) -> tuple[Path, list[str], list[str]]:
    """Write data.root/captions.csv; its path, the videos in it, and those that no row can name, with the reason.

    Raises:
        UserError: there is no such folder, it holds no video, or captions.csv is there already.
    """
    folder = root_folder(data)
    found = Place(data, folder).videos()
    videos = [row["path"] for row in found if "error" not in row]
    if not videos:
        raise UserError(f"{folder} holds no video that can be named; give the folder that holds your videos")
    file = folder / BESIDE
    try:
        with file.open("x", newline="", encoding="utf-8") as out:
            table = csv.writer(out, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows((path, *[""] * (len(COLUMNS) - 1)) for path in videos)
    except FileExistsError:
        raise UserError(f"{file} is there already; fill it in, or take it away and say this again") from None
    return file, videos, [f"{row['path']}: {row['detail']}" for row in found if "error" in row]
