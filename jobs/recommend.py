"""Ask a model for the best items of a user: `python -m jobs.recommend SNAPSHOT_FOLDER --user 429 --n 10 [--json]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from cluster.ending import ending
from cluster.models.model_files import ModelFilesError
from cluster.recommend import RecommendError, recommender_of
from cluster.snapshots.errors import SnapshotError
from cluster.summary import show_items


def main(
    folder: Annotated[Path, typer.Argument(help="Model folder: snapshots/RUN/snapshots/NUMBER.")],
    user: Annotated[str | None, typer.Option(help="Id of the user, as in the records.")] = None,
    similar_to: Annotated[
        str | None, typer.Option(help="Id of an item: list the items like it instead.")
    ] = None,
    n: Annotated[int, typer.Option("--n", help="How many items.")] = 10,
    *,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out what the user has rated.")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list on standard output, best first.")
    ] = False,
) -> None:
    """Print the best items for a user with the ratings predicted, or the items most like another with their cosines."""
    with ending(ModelFilesError, SnapshotError, RecommendError):
        if (user is None) == (similar_to is None):
            raise RecommendError("expected either --user or --similar-to; give the one to ask about")
        recommender = recommender_of(folder)
        if similar_to is not None:
            title, figure, items = f"like {similar_to}", "cosine", recommender.similar(similar_to, n)
        else:
            title, figure = f"for {user}", recommender.figure
            items = recommender.recommend(str(user), n, exclude_seen=exclude_seen)
    if as_json:
        typer.echo(orjson.dumps([{"item": item, figure: value} for item, value in items]).decode())
    else:
        show_items(title, figure, items, Console())


if __name__ == "__main__":
    typer.run(main)
