"""Why one answer is where it is, in sentences."""

from histokin.errors import SearchError
from histokin.report import wording
from histokin.report.search import words
from histokin.report.search.document import Answer, SearchDocument

_PAIRS = 5


def explain(document: SearchDocument, rank: int) -> str:
    """What was compared, which tiles carried the answer and how far, and what else could have answered.

    Args:
        document: of the search.
        rank: of the answer, from 1.

    Raises:
        SearchError: there is no answer of this rank.
    """
    answer = next((found for found in document.answers if found.rank == rank), None)
    if answer is None:
        there_are = wording.counted(len(document.answers), "answer")
        raise SearchError(f"no answer has rank {rank}", "explaining", f"The search has {there_are}, ranked from 1.")
    searched = document.searched
    how = f", by {searched.strategy}" if searched.strategy else ""
    named = _named(answer, document.label_of(answer))
    lines = [
        f"Rank {rank} of {len(document.answers)}: {named}, score {words.score(answer.score)}{how}.",
        words.summary(document),
    ]
    if answer.percentile is not None:
        lines.append(f"The score lies {words.more_alike_than(answer.percentile)} of tiles across patients.")
    if answer.p is not None:
        lines.append(f"Of queries of the archive's own kind, a share of {answer.p:.3f} comes no nearer to others.")
    if answer.evidence:
        shown = sorted(answer.evidence, key=lambda pair: -pair.share)[:_PAIRS]
        covered = sum(pair.share for pair in shown)
        pairs = f"{len(shown)} of {wording.counted(len(answer.evidence), 'pair')} of tiles"
        lines.append(f"{pairs} {'carries' if len(shown) == 1 else 'carry'} {covered:.0%} of the score:")
        lines += [
            f"  query ({pair.query.box.x:.0f}, {pair.query.box.y:.0f}) met ({pair.answer.box.x:.0f}, "
            f"{pair.answer.box.y:.0f}): {words.score(pair.score)}, share {pair.share:.0%}"
            for pair in shown
        ]
    out = [f"{left.what} ({wording.counted(left.n_slides, 'slide')})" for left in searched.left_out]
    if out:
        lines.append(f"Could not answer: {'; '.join(out)}.")
    return "\n".join(lines)


def _named(answer: Answer, label: str) -> str:
    who = f" of patient {answer.patient}" if answer.patient else ""
    where = f", tile {answer.tile}" if answer.tile is not None else ""
    where += f" at ({answer.box.x:.0f}, {answer.box.y:.0f})" if answer.box else ""
    return f"slide {answer.slide}{where}{who}" + (f", {label}" if label else "")
