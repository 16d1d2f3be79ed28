"""Which ONNX operators a policy may use, and how many multiply-adds each takes. Knows no ONNX, only its names.

Absent are those that loop or branch (their bodies are graphs of their own), draw random numbers, make or take strings,
sequences and optionals, or give results whose size depends on values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_ELEMENTWISE = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast
CastLike Ceil Celu Clip Cos Cosh CumSum Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual GroupNormalization
HardSigmoid HardSwish InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
LpNormalization Max Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu
Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
"""

_MOVING = """
Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot Pad
Range Reshape ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze
"""

_REDUCING = """
ArgMax ArgMin GlobalAveragePool GlobalLpPool GlobalMaxPool Hardmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
"""

_POOLING = ["AveragePool", "LpPool", "MaxPool"]
_MULTIPLYING = ["Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"]
_SORTING = ["TopK"]

ALLOWED = frozenset([*f"{_ELEMENTWISE}{_MOVING}{_REDUCING}".split(), *_POOLING, *_MULTIPLYING, *_SORTING])

Shape = Sequence[int]


def multiply_adds(
    operator: str, attributes: Mapping[str, Any], inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> int:
    """Of one node: an upper estimate, in which anything done to an element counts as one."""
    taken = sum(math.prod(shape) for shape in inputs)
    given = sum(math.prod(shape) for shape in outputs)
    if operator in ("MatMul", "Gemm"):
        shared = inputs[0][0] if attributes.get("transA") else inputs[0][-1]
        return math.prod(outputs[0]) * shared + given
    if operator == "Conv":
        return math.prod(outputs[0]) * math.prod(inputs[1][1:]) + given
    if operator == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(inputs[1][1:]) + given
    if operator == "Einsum":
        return einsum(attributes["equation"], inputs) + given
    if operator in _POOLING:
        kernel: Shape = attributes["kernel_shape"]
        return given * math.prod(kernel)
    if operator in _SORTING:
        return taken * max(1, math.ceil(math.log2(max(2, taken))))
    return taken + given


def workspace(operator: str, attributes: Mapping[str, Any], inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Of one node: how many numbers it may keep while it works, beside its inputs and outputs."""
    if operator in ("Conv", "ConvTranspose"):  # unfolds one image
        across = outputs[0] if operator == "Conv" else inputs[0]
        return math.prod(inputs[1][1:]) * math.prod(across[2:])
    if operator == "Einsum" and len(inputs) > 2:  # multiplies two by two
        return einsum(attributes["equation"], inputs)
    return 0


def einsum(equation: str, inputs: Sequence[Shape]) -> int:
    """The product over all its labels: what it takes when nothing is factored out. Ellipses count as one label each."""
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.partition("->")[0].split(","), inputs, strict=False):
        word = term.strip().replace(" ", "")
        before, dots, after = word.partition("...")
        for label, size in zip(before, shape, strict=False):
            sizes[label] = max(size, sizes.get(label, 1))
        for label, size in zip(reversed(after), reversed(shape), strict=False):
            sizes[label] = max(size, sizes.get(label, 1))
        if dots:
            middle = shape[len(before) : len(shape) - len(after)]
            sizes["..."] = max(math.prod(middle), sizes.get("...", 1))
    return math.prod(sizes.values())
