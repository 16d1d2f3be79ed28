"""The whole inspection of one file: read, allowed, fitting, affordable, tried. Runs in a process of its own only."""

from __future__ import annotations

import time

import numpy as np

from simservice.engine.uploads.costs import estimate
from simservice.engine.uploads.graph import declared, parse_model
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.record import PolicyGraph
from simservice.engine.uploads.requirements import SAMPLES, Requirements
from simservice.engine.uploads.runtime import OnnxSession
from simservice.engine.uploads.signature import check_inputs, check_outputs, told
from simservice.engine.uploads.weights import encode_weights
from simservice.errors import InvalidPolicy, PolicyLimitExceeded

ALONE_TOLERANCE = 1e-3  # matrix products of other sizes round otherwise


def inspect(file: bytes, requirements: Requirements, limits: PolicyLimits) -> tuple[PolicyGraph, bytes]:
    """The graph and its weights; InvalidPolicy or PolicyLimitExceeded says what is wrong with the file."""
    try:
        parsed = parse_model(file, limits)
    except UnicodeDecodeError as error:
        raise InvalidPolicy(
            "the file holds names that are no text", "send what torch.onnx.export wrote, whole"
        ) from error
    check_inputs(parsed.inputs, requirements.leaves)
    costs = estimate(parsed, limits)
    outputs = check_outputs(costs.outputs, requirements.distribution, requirements.head, limits)
    skeleton = parsed.skeleton
    del skeleton.graph.output[:]
    skeleton.graph.output.extend(declared(spec) for spec in outputs)
    graph = PolicyGraph(
        distribution=requirements.distribution,
        inputs=parsed.inputs,
        outputs=outputs,
        weights=tuple(spec for spec, _ in parsed.weights),
        rows_per_call=costs.rows_per_call,
        skeleton=skeleton.SerializeToString(deterministic=True),
    )
    weights = encode_weights(parsed.weights)
    _try(graph, weights, requirements, limits)
    return graph, weights


def _try(graph: PolicyGraph, weights: bytes, requirements: Requirements, limits: PolicyLimits) -> None:
    session = OnnxSession(graph.skeleton + weights, [spec.name for spec in graph.outputs])
    observation = requirements.observation()
    feeds = {spec.name: observation[spec.name] for spec in graph.inputs}
    together = session.run(feeds)
    for spec, found in zip(graph.outputs, together, strict=True):
        if found.shape != (SAMPLES, *spec.shape) or found.dtype != spec.dtype:
            raise InvalidPolicy(
                f"output {spec.name!r} came as {found.dtype} {list(found.shape)} for {SAMPLES} lanes instead of "
                f"{told(spec.shape, spec.dtype.name)}",
                "let shapes depend on constants and the number of lanes alone",
            )
    for lane in range(SAMPLES):
        alone = session.run({name: array[lane : lane + 1] for name, array in feeds.items()})
        for spec, one, all_ in zip(graph.outputs, alone, together, strict=True):
            if not np.allclose(one[0], all_[lane], rtol=ALONE_TOLERANCE, atol=ALONE_TOLERANCE, equal_nan=True):
                raise InvalidPolicy(
                    f"output {spec.name!r} of a lane changes with the other lanes of the batch",
                    "export the network in evaluation mode; no lane may know its neighbours",
                )
    rows = graph.rows_per_call
    many = {name: np.resize(array, (rows, *array.shape[1:])) for name, array in feeds.items()}
    session.run(many)
    began = time.process_time()
    session.run(many)
    spent = time.process_time() - began
    if spent > limits.trial_call_cpu_s:
        raise PolicyLimitExceeded(
            f"seconds for one call of {rows} lanes",
            found=f"{spent:.2f}",
            most=limits.trial_call_cpu_s,
            remedy="send a smaller network",
        )
