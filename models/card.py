"""The model card of a bundle, for people: what it is for, what it was made from, how good it is, where it ends.

After Mitchell et al. 2019, *Model Cards for Model Reporting* (arXiv 1810.03993). It says only what the bundle knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.bundle import Bundle


def model_card(bundle: Bundle) -> str:
    """Markdown."""
    manifest, book = bundle.manifest, bundle.codebook
    data = manifest.data
    hz = manifest.rate_hz
    return f"""# {bundle.reference}

Recognises {len(bundle.labels)} activities of a wearable at the {manifest.body_site}:
{", ".join(bundle.labels)}.

## Input

- {", ".join(book.channels)} at {hz:g} Hz (± 5 %), as {book.bits}-bit codes of codebook `{book.short_digest.hex()}`
- windows of {manifest.window / hz:g} s, one every {manifest.stride / hz:g} s
- network: {manifest.network["kind"]}, {bundle.network.parameter_count():,} parameters; quantizer:
  {manifest.training.get("quantizer", "unknown")}, weight of the rate λ = {manifest.training.get("rate_weight", 0):g}

## Intended use

Telling these activities apart in demonstrations and prototypes. Not for medical or safety decisions. The answer
`unknown` is a hint, not a guarantee: an activity that training never showed is often taken for another.

## Data

- {data.dataset}, {data.licence}
- {data.citation}
- trained on {_people(data.train_subjects, data.split_by)}
- validated and calibrated on {_people(data.validation_subjects, data.split_by)}{_refit(bundle)}
- tested on {_people(data.test_subjects, data.split_by)}
- activities that it is not to know: {", ".join(data.excluded_labels) or "none"}
- of these, shown in training as examples of the unknown: {", ".join(data.background_labels) or "none"}

{_scores(bundle)}
## Limits

Few people, one make of wearable, one place of wear, activities as that data set defines them. With another part, strap
or population it may score lower; `gammawear evaluate` says how much, on your own recordings.
"""


def _people(names: list[str], kind: str) -> str:
    return f"{len(names)} {kind}s: {', '.join(names)}"


def _refit(bundle: Bundle) -> str:
    return "; then trained once more, on these too" if bundle.manifest.training.get("refit") else ""


def _scores(bundle: Bundle) -> str:
    scores, hz = bundle.manifest.scores, bundle.manifest.rate_hz
    if scores is None:
        return ""
    bandwidth = ""
    if scores.payload_bits is not None and scores.all_in_bits is not None:
        bandwidth = (
            f"- in packets of 1 s: {scores.payload_bits:.2f} bits a sample and channel, {scores.all_in_bits:.2f} with "
            f"headers, which is {hz * scores.all_in_bits:.0f} bits a second and channel\n"
        )
    pure = "" if scores.macro_f1_pure is None else f", on windows of one activity {scores.macro_f1_pure:.3f}"
    return f"""## Scores

{scores.protocol}; scoring rule `{scores.scoring_rule}`, {scores.windows} windows.

- macro-F1 {scores.macro_f1:.3f}{pure}; accuracy {scores.accuracy:.3f}
- answered `unknown`: {scores.unknown_share:.1%}
{bandwidth}"""
