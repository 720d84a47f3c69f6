"""The model card of a detector bundle, for people. It says only what the bundle knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.vision.bundle import DetectorBundle


def detector_card(bundle: DetectorBundle) -> str:
    """Markdown."""
    manifest, book = bundle.manifest, bundle.codebook
    data, scores = manifest.data, manifest.scores
    parameters = sum(parameter.numel() for parameter in bundle.network.parameters())
    classes = "\n".join(
        f"- {name}: AP50 {'not in the test pictures' if score is None else f'{score:.3f}'}"
        for name, score in scores.ap50_by_class.items()
    )
    lights = ", ".join(f"× {light}: {score:.3f}" for light, score in scores.ap50_by_light.items())
    bits = (
        ""
        if scores.bits_per_photosite is None
        else f"\nCodes of the test frames: {scores.bits_per_photosite:.2f} bits a photosite, entropy coded.\n"
    )
    origin = " **Synthetic: its pictures were generated, not taken.**" if data.synthetic else ""
    return f"""# {bundle.reference}

Finds {", ".join(manifest.classes)} in RAW frames.{origin}

## Input

- Bayer mosaics of any of the four orders, {manifest.width} × {manifest.height} photosites, as {book.bits}-bit codes of
  codebook `{book.short_digest.hex()}`; larger frames are to be binned to about that size
- network: {parameters:,} parameters; quantizer:
  {manifest.training.get("quantizer", "unknown")}, weight of the rate λ = {manifest.training.get("rate_weight", 0):g}

## Data

- {data.dataset}, {data.licence}
- {data.citation}
- {data.protocol}: {data.train_pictures} pictures trained, {data.test_pictures} tested

## Scores

On the test pictures, turned into 12-bit RAW with noise: AP {scores.ap:.3f}, AP50 {scores.ap50:.3f}.

{classes}

AP50 by the factor on the scene's light, before noise and rounding: {lights}.
{bits}
## Limits

Trained on one small set. Cameras, scenes and sizes that it has not seen score lower. Not for safety,
medical or surveillance decisions.
"""
