"""Search: a question put to an archive, its answers with evidence, and everything that shows them.

`search_archive` is what the command calls: it resolves a question to tiles, asks the index (or the store), and fills
the document from which page, GeoJSON, JSON and terminal text are made.
"""

from dataclasses import dataclass
from pathlib import Path

from histokin.artefacts import write_json, write_text
from histokin.cohort import file_name_of
from histokin.pipeline.searching.answering import Answered, Level, Wish, answer
from histokin.pipeline.searching.archive import Archive, Place, find_place, open_archive
from histokin.pipeline.searching.document import search_document
from histokin.pipeline.searching.questions import Asked, Question, resolve
from histokin.progress import Reporter, silent
from histokin.report.search.csv import answers_csv
from histokin.report.search.document import SearchDocument
from histokin.report.search.explaining import explain
from histokin.report.search.geojson import to_geojson
from histokin.report.search.page import write_search
from histokin.report.search.text import search_text

__all__ = [
    "Answered",
    "Archive",
    "Asked",
    "Level",
    "Place",
    "Question",
    "SearchResult",
    "Wish",
    "find_place",
    "open_archive",
    "search_archive",
]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One search.

    Attributes:
        asked: the question as tiles.
        answered: slides, tiles or regions, best first, with evidence.
        document: the same for people, with pictures.
    """

    asked: Asked
    answered: Answered
    document: SearchDocument

    @property
    def text(self) -> str:
        """The answers for a terminal."""
        return search_text(self.document)

    def write(self, folder: Path) -> Path:
        """Write the page, `search.json`, `answers.csv` and a GeoJSON a slide into a folder; returns the page."""
        write_json(folder / "search.json", self.document.to_json())
        write_text(folder / "answers.csv", answers_csv(self.document))
        for slide, collection in to_geojson(self.document).items():
            write_json(folder / "qupath" / f"{file_name_of(slide)}.geojson", collection)
        return write_search(self.document, folder)

    def explain(self, rank: int = 1) -> str:
        """Why the answer of a rank is where it is, in sentences.

        Raises:
            SearchError: there is no such rank.
        """
        return explain(self.document, rank)


def search_archive(
    place: Place | Path | str,
    question: Question,
    wish: Wish | None = None,
    *,
    archive: Archive | None = None,
    command: str = "",
    is_pictured: bool = True,
    report: Reporter = silent,
) -> SearchResult:
    """Ask an archive for tissue like a tile, a region, a picture or a slide.

    Args:
        place: a workspace, a folder of embeddings, or where an archive's parts lie (`find_place`).
        question: what is asked for.
        wish: how answers are wanted; by default the ten best of the question's own kind, without its patient.
        archive: an open one, for many questions; by default the place's is opened.
        command: shown, so that the search can be repeated.
        is_pictured: False draws no pictures.
        report: progress, of a slide from outside.

    Raises:
        SearchError: the question or the wish cannot be met; says why.
        SlideError, EncoderError: a file from outside cannot be read or embedded.
    """
    wish = wish or Wish()
    place = place if isinstance(place, Place) else find_place(Path(place))
    archive = archive or open_archive(place, exact=wish.exact)
    asked = resolve(question, place, archive, report)
    answered = answer(asked, archive, wish)
    document = search_document(asked, answered, place, archive, wish, command, is_pictured=is_pictured)
    return SearchResult(asked, answered, document)
