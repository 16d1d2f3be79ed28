"""An evaluation as JSON values: every number with what is needed to read it, and what its pictures are drawn from."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from simservice import __version__
from simservice.fidelity.front_page import Line
from simservice.fidelity.metric import metrics
from simservice.fidelity.outcomes import BINS
from simservice.fidelity.reading import Reading, interval_shown, shown
from simservice.fidelity.states import CONVENTION, TAU
from simservice.monitor.evaluation.evaluate import Evaluation
from simservice.monitor.evaluation.gather import Evidence, Pair
from simservice.types import Array

MOST_DIMENSIONS = 4  # that are drawn, those that vary the most
STRIP_FRAMES = 10
MOST_POINTS = 400


def figures(found: Evaluation) -> dict[str, Any]:
    """All of it; unknown numbers are null."""
    curve, page = found.curve, found.page
    return {
        "world": found.world,
        "family": found.family,
        "env_id": found.env_id,
        "attributes": dict(found.attributes),
        "verdict": {**asdict(page.verdict), "reasons": list(page.verdict.reasons)},
        "steps": found.steps,
        "lines": [_line(line) for line in page.lines],
        "details": _details(found),
        "curve": {
            "lead": list(range(1, len(curve.error) + 1)),
            "error": _numbers(curve.error),
            "lower": _numbers(curve.lower),
            "upper": _numbers(curve.upper),
            "alive": _numbers(curve.alive),
            "tau": TAU,
            "windows": curve.windows,
        },
        "trust_horizon_steps": _plain(found.scores["trust_horizon_steps"].value),
        "returns": _returns(found),
        "ranking": _ranking(found),
        "drift": _drift(found),
        "calibration": _calibration(found.evidence.steps),
        "rewards": _rewards(found.evidence.steps),
        "traces": _traces(found.evidence),
        "strips": _strips(found.evidence.strips),
        "how": _how(found),
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "key": line.key,
        "question": line.question,
        "mark": line.mark,
        "note": line.note,
        "readings": [_reading(reading) for reading in line.readings],
    }


def _reading(reading: Reading) -> dict[str, Any]:
    score = reading.score
    return {
        "name": reading.name,
        "metric": reading.metric,
        "mark": reading.mark,
        "value": _plain(score.value),
        "lower": _plain(score.lower),
        "upper": _plain(score.upper),
        "units": score.units,
        "unit": reading.unit,
        "level": reading.level,
        "floor": _plain(reading.floor.median),
        "floor_splits": reading.floor.splits,
        "bar": _plain(reading.bar),
        "at_most": reading.at_most,
        "size": reading.size,
        "decides": reading.decides,
        "kind": reading.kind,
        "convention": reading.convention,
        "why_unknown": reading.why_unknown,
        "shown": shown(score.value, reading.kind),
        "interval_shown": interval_shown(score, reading.kind),
        "bar_shown": f"{'≤' if reading.at_most else '≥'} {shown(reading.bar, reading.kind)}",
        "floor_shown": "" if math.isnan(reading.floor.median) else shown(reading.floor.median, reading.kind),
    }


def _details(found: Evaluation) -> list[dict[str, Any]]:
    rows = []
    for name, metric in metrics().items():
        score, floor = found.scores[name], found.floors[name]
        rows.append(
            {
                "metric": name,
                "level": metric.level,
                "value": _plain(score.value),
                "lower": _plain(score.lower),
                "upper": _plain(score.upper),
                "units": score.units,
                "unit": metric.unit,
                "perfect": _plain(metric.perfect),
                "floor": _plain(floor.median),
                "floor_kind": metric.floor,
                "noise_ratio": _plain(floor.ratio(metric, score.value)),
                "convention": metric.convention,
                "shown": shown(score.value),
                "interval_shown": interval_shown(score),
            }
        )
    return rows


def _returns(found: Evaluation) -> dict[str, Any]:
    exploited = found.exploited
    return {
        "policies": [
            {
                "policy": gap.policy,
                "imagined": gap.imagined_mean,
                "real": gap.real_mean,
                "gap": _plain(gap.gap.value),
                "lower": _plain(gap.gap.lower),
                "upper": _plain(gap.gap.upper),
            }
            for gap in found.returns.policies
        ],
        "range": _numbers([found.returns.low, found.returns.high]),
        "floor": _plain(found.returns.floor),
        "exploited": None
        if exploited is None
        else {"imagined": float(exploited.imagined.mean()), "real": float(exploited.real.mean())},
    }


def _ranking(found: Evaluation) -> dict[str, Any]:
    ranking = found.ranking
    return {
        "units": ranking.units,
        "spearman": _plain(ranking.spearman.value),
        "pearson": _plain(ranking.pearson.value),
        "mmrv": _plain(ranking.mmrv.value),
        "spearman_drop_one": _numbers(ranking.spearman_drop_one),
        "pearson_drop_one": _numbers(ranking.pearson_drop_one),
        "permutation_floor": ranking.permutation_floor,
        "convention": ranking.convention,
    }


def _drift(found: Evaluation) -> dict[str, Any]:
    reading = found.drift.reading
    if reading is None:
        return {"known": False, "why_unknown": found.drift.why_unknown}
    return {
        "known": True,
        "log10_evidence": {kind: round(value, 4) for kind, value in reading.log10_evidence.items()},
        "log10_threshold": reading.log10_threshold,
        "alarmed": list(reading.alarmed),
        "probes": reading.probes,
    }


def _calibration(steps: Pair) -> list[dict[str, Any]]:
    """Of the probability of an end: what was said and what happened, by bins of what was said."""
    real, imagined = steps
    both = real.valid[:, 0] & imagined.valid[:, 0]
    if imagined.termination_probability is None:
        return []
    said, happened = imagined.termination_probability[both, 0], real.terminated[both, 0]
    place = np.minimum((said * BINS).astype(int), BINS - 1)
    return [
        {
            "said": float(said[place == k].mean()),
            "happened": float(happened[place == k].mean()),
            "steps": int((place == k).sum()),
        }
        for k in range(BINS)
        if np.any(place == k)
    ]


def _rewards(steps: Pair) -> dict[str, Any]:
    real, imagined = steps
    both = np.flatnonzero(real.valid[:, 0] & imagined.valid[:, 0])
    rows = both[:: -(-len(both) // MOST_POINTS)] if len(both) else both
    return {"real": _numbers(real.reward[rows, 0]), "imagined": _numbers(imagined.reward[rows, 0])}


def _traces(evidence: Evidence) -> list[dict[str, Any]]:
    """The numbers of one window over time: of those that lasted longest, the one with the median error."""
    real, imagined = evidence.windows
    if evidence.strips is not None:
        return []  # pictures are looked at as pictures
    length = real.valid.sum(axis=1)
    longest = np.flatnonzero(length == length.max())
    held = imagined.held()
    error = np.mean((held[longest] - real.observation[longest]) ** 2, axis=(1, 2))
    window = int(longest[np.argsort(error, kind="stable")[(len(longest) - 1) // 2]])
    steps = int(length[window]) + 1
    spread = real.observation[:, 1:][real.valid].std(axis=0)
    chosen = sorted(np.argsort(-spread, kind="stable")[:MOST_DIMENSIONS].tolist())
    return [
        {
            "place": place,
            "real": _numbers(real.observation[window, :steps, place]),
            "imagined": _numbers(held[window, :steps, place]),
            "lower": _numbers(evidence.lower[window, :steps, place]),
            "upper": _numbers(evidence.upper[window, :steps, place]),
            "difference": _numbers(held[window, :steps, place] - real.observation[window, :steps, place]),
            "spread": float(spread[place]),
        }
        for place in chosen
    ]


def _strips(strips: Pair | None) -> list[dict[str, Any]]:
    """Each window as a PNG of three rows: real, imagined, their difference about grey."""
    if strips is None or strips[0].frames is None or strips[1].frames is None:
        return []
    found = []
    for window in range(strips[0].windows):
        steps = int(strips[0].valid[window].sum())
        columns = np.unique(np.linspace(0, steps, STRIP_FRAMES).round().astype(int))
        real, dream = strips[0].frames[window, columns], strips[1].frames[window, columns]
        difference = np.clip(128 + (dream.astype(int) - real) // 2, 0, 255).astype(np.uint8)
        rows = [np.concatenate(list(frames), axis=1) for frames in (real, dream, difference)]
        found.append({"steps": columns.tolist(), "png": _png(np.concatenate(rows, axis=0))})
    return found


def _png(picture: Array) -> str:
    """A data URI."""
    shaped = picture[..., 0] if picture.shape[-1] == 1 else picture
    out = io.BytesIO()
    Image.fromarray(shaped).save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _how(found: Evaluation) -> dict[str, Any]:
    return {
        "seed": found.seed,
        "real_episodes": found.real_episodes,
        "real_steps": found.real_steps,
        "imagined_steps": found.imagined_steps,
        "served_horizon_steps": found.served_horizon_steps,
        "data_hash": found.data_hash,
        "success_bar": _plain(found.evidence.success_bar),
        "support_reference": found.evidence.support_reference,
        "convention": CONVENTION,
        "missing": dict(found.missing),
        "finished_at": found.finished_at,
        "seconds": round(found.seconds, 1),
        "code_version": __version__,
    }


def _plain(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return float(value) if math.isfinite(value) else None


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [None if not math.isfinite(value) else float(f"{value:.6g}") for value in values]
