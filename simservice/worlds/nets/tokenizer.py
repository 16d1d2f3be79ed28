"""Pictures as grids of codes: every patch is encoded and decoded alone, so a token means what is in its own patch.

A tokenizer that sees beyond its patch spreads one moving dot over many tokens, which are then hard to predict.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from simservice.worlds.nets.quantize import Codebook, FiniteScalar


class Tokenizer(nn.Module):
    """Pictures (B, channels, height, width) float32 in [0, 1] to codes (B, tokens) int64 and back.

    Tokens run over rows, then columns, then the `depth` codes of one patch. No statistics of the batch or of the
    picture are taken anywhere.
    """

    mean: Tensor  # (patches, pixels) the mean picture of the data: what differs from it counts more in the loss
    spread: Tensor  # () how far the data's pictures are from it: the root mean square over pixels

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int,
        quantizer: FiniteScalar | Codebook,
        depth: int,
        hidden: int,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape, self.patch, self.depth = shape, patch, depth
        self.rows, self.columns = height // patch, width // patch
        self.count, self.pixels = self.rows * self.columns, patch * patch * channels
        self.tokens = self.count * depth
        self.quantizer = quantizer
        self.encoder = _network(self.pixels, hidden, depth * quantizer.width)
        self.decoder = _network(depth * quantizer.width, hidden, self.pixels)
        self.register_buffer("mean", torch.zeros(self.count, self.pixels))
        self.register_buffer("spread", torch.ones(()))

    def fit(self, pictures: Iterable[Tensor]) -> None:
        """Takes the mean picture and the spread from parts of the data."""
        count, total, squares = 0, torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        for part in pictures:
            patches = self.cut(part)
            count, total, squares = count + len(patches), total + patches.sum(0), squares + patches.square().sum(0)
        self.mean.copy_(total / count)
        self.spread.copy_((squares / count - self.mean.square()).mean().clamp(min=1e-6).sqrt())

    def residual(self, pictures: Tensor, code: Tensor) -> Tensor:
        """(B,) how much of pictures is not in their codes: the root mean square over pixels, in spreads."""
        missed = (self.decode(code).clamp(0, 1) - pictures).square().flatten(1)
        return (missed.sum(-1) * (1 / missed.shape[1])).sqrt() / self.spread

    def cut(self, pictures: Tensor) -> Tensor:
        """(B, patches, pixels) of pictures."""
        grid = pictures.reshape(-1, self.shape[0], self.rows, self.patch, self.columns, self.patch)
        return grid.permute(0, 2, 4, 1, 3, 5).reshape(-1, self.count, self.pixels)

    def join(self, patches: Tensor) -> Tensor:
        """The inverse of cut."""
        grid = patches.reshape(-1, self.rows, self.columns, self.shape[0], self.patch, self.patch)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, *self.shape)

    def encode(self, pictures: Tensor) -> Tensor:
        """Codes (B, tokens)."""
        code: Tensor = self.quantizer(self._vectors(self.cut(pictures)))[1]
        return code.reshape(-1, self.tokens)

    def decode(self, code: Tensor) -> Tensor:
        """Pictures of codes (B, tokens); a little beyond [0, 1] is possible."""
        found = self.quantizer.vectors(code.reshape(-1, self.count, self.depth))
        return self.join(self.decoder(found.flatten(-2)))

    @torch.no_grad()
    def patches(self) -> Tensor:
        """(codes, pixels) in [0, 1]: what each code stands for; where a patch has several, if all are that one."""
        code = torch.arange(self.quantizer.size, device=self.mean.device).unsqueeze(-1).expand(-1, self.depth)
        found: Tensor = self.decoder(self.quantizer.vectors(code).flatten(-2)).clamp(0, 1)
        return found

    def loss(self, pictures: Tensor, worst: float, emphasis: float) -> tuple[Tensor, dict[str, Tensor]]:
        """What is lost between pictures and their codes' pictures, and the named parts of it.

        Of a quarter of each picture's patches, those that differ most from the mean picture, and of as many random
        ones: most patches show the background, and what moves is what has to be learned. Squared error, pixels that
        differ from the mean picture weighted up to 1 + `emphasis`, plus `worst` times that of each patch's worst
        pixel: a small moving object is otherwise left out at little cost. Draws torch's own random numbers.
        """
        patches = self.cut(pictures)
        unusual = (patches - self.mean).square().sum(-1)
        quarter = -(-self.count // 4)
        picked = torch.cat([unusual.topk(quarter).indices, torch.rand_like(unusual).topk(quarter).indices], dim=1)
        wanted = patches.gather(1, picked.unsqueeze(-1).expand(-1, -1, self.pixels))
        quantised, _, commitment = self.quantizer(self._vectors(wanted))
        found = self.decoder(quantised.flatten(-2))
        # Beyond black and white nothing is lost, for there it is cut off: so the background comes out exactly.
        beyond = ((wanted <= 0) & (found < 0)) | ((wanted >= 1) & (found > 1))
        squared = (found - wanted).masked_fill(beyond, 0.0).square()
        weight = 1 + emphasis * (wanted - self.mean[picked]).abs().clamp(max=1)
        parts = {
            "reconstruction": (squared * weight).mean(),
            "worst pixel": squared.amax(-1).mean(),
            "commitment": commitment,
        }
        total = parts["reconstruction"] + worst * parts["worst pixel"] + commitment
        return total, {name: part.detach() for name, part in parts.items()} | {"squared error": squared.detach().mean()}

    def _vectors(self, patches: Tensor) -> Tensor:
        """(B, patches, depth, width) before quantisation."""
        vectors: Tensor = self.encoder(patches)
        return vectors.reshape(*patches.shape[:2], self.depth, self.quantizer.width)


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    layers = [nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)]
    return nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])
