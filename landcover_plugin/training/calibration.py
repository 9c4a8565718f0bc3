"""How far probabilities can be trusted, and the temperature that mends them."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ..errors import LandcoverError
from ..legend import NODATA
from ..models.outputs import class_probabilities
from .temperature import LIMITS

#: Bins of the confidence.
BINS = 15


class ConfidenceBins(Metric):
    """Labelled pixels in 15 bins of equal width by their confidence, the probability of the most likely class.

    Bins are closed above, as in Guo et al. 2017 (https://arxiv.org/abs/1706.04599). Memory does not grow with the
    pixels, and counts of several processes are added up.
    """

    full_state_update = False
    pixels: Tensor
    confidence: Tensor
    hits: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ('pixels', 'confidence', 'hits'):
            self.add_state(name, torch.zeros(BINS, dtype=torch.float64), dist_reduce_fx='sum')

    def update(self, confidence: Tensor, right: Tensor, labelled: Tensor) -> None:
        """Count pixels: their confidence, and which are right and which are labelled; all of one shape."""
        self._count(confidence, right, labelled)

    def _count(self, confidence: Tensor, right: Tensor, labelled: Tensor) -> None:
        bins = ((confidence.double() * BINS).ceil().long() - 1).clamp_(0, BINS - 1)
        bins = bins.where(labelled, BINS).flatten()  # the last bin is thrown away: quicker than to pick pixels
        both = torch.bincount(2 * bins + right.flatten(), minlength=2 * BINS + 2).reshape(-1, 2)[:BINS].double()
        self.pixels += both.sum(1)
        self.hits += both[:, 1]
        self.confidence += torch.bincount(bins, confidence.flatten().double(), minlength=BINS + 1)[:BINS]

    def compute(self) -> Tensor:
        """Pixels, sum of their confidence and number of right ones in each bin, shape ``(3, 15)``."""
        return torch.stack([self.pixels, self.confidence, self.hits])


class CalibrationError(ConfidenceBins):
    """Expected calibration error: how far confidence and accuracy lie apart, as a share in 0..1.

    It is the mean distance of accuracy and mean confidence over the bins, weighted by their pixels (Naeini et al. 2015,
    https://doi.org/10.1609/aaai.v29i1.9602). Without a labelled pixel it is NaN.

    Examples:
        >>> error = CalibrationError()
        >>> error.update(torch.tensor([[0, 0.9, 0.1], [0, 0.9, 0.1]]), torch.tensor([1, 2]))
        >>> round(float(error.compute()), 3)
        0.4
    """

    def update(self, probabilities: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Count a batch.

        Args:
            probabilities: Shape ``(B, num_classes, …)``.
            target: Codes, shape ``(B, …)``; no data does not count.
        """
        confidence, codes = probabilities.max(dim=1)
        self._count(confidence, codes == target, target != NODATA)

    def compute(self) -> Tensor:
        """The expected calibration error, in 0..1."""
        return (self.hits - self.confidence).abs().sum() / self.pixels.sum()


class PixelSample:
    """A uniform sample of labelled pixels, without replacement, in memory that does not grow with their number.

    Each pixel draws a number; those with the smallest are kept. The same pixels in the same order give the same sample.

    Args:
        size: Pixels to keep at most.
        seed: Of the numbers drawn.
    """

    def __init__(self, size: int = 200_000, seed: int = 0) -> None:
        self.size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None  # number drawn, logits, codes

    def add(self, logits: Tensor, mask: Tensor) -> None:
        """Offer a batch: logits ``(B, num_classes, H, W)`` and codes ``(B, H, W)``."""
        labelled = mask != NODATA
        drawn = torch.rand(int(labelled.sum()), generator=self._generator, dtype=torch.float64)
        limit = float(self._kept[0].max()) if self._kept and len(self._kept[0]) == self.size else 1.0
        chosen = drawn < limit
        where = labelled.flatten().nonzero().flatten().cpu()[chosen].to(logits.device)
        rows = logits.detach().movedim(1, -1).flatten(0, -2)[where].float().cpu()
        new = drawn[chosen], rows, mask.flatten()[where].long().cpu()
        parts = [torch.cat(pair) for pair in zip(self._kept, new, strict=True)] if self._kept else list(new)
        if len(parts[0]) > self.size:
            smallest = parts[0].topk(self.size, largest=False, sorted=False).indices.sort().values
            parts = [part[smallest] for part in parts]
        self._kept = (parts[0], parts[1], parts[2])

    @property
    def pixels(self) -> tuple[Tensor, Tensor]:
        """Logits ``(N, num_classes)`` and codes ``(N,)``.

        Raises:
            LandcoverError: If no pixel was labelled.
        """
        if self._kept is None or not len(self._kept[0]):
            raise LandcoverError('no labelled pixel to calibrate on: check that the labels cover the validation ground')
        return self._kept[1], self._kept[2]


@dataclass(frozen=True)
class Calibration:
    """What a temperature does to the probabilities of labelled pixels.

    Attributes:
        temperature: Logits are divided by it.
        pixels: Number of pixels that it was fitted to.
        nll_before: Mean negative log-likelihood at temperature 1.
        nll_after: At the fitted one.
        ece_before: Expected calibration error at temperature 1, see :class:`CalibrationError`.
        ece_after: At the fitted one.
    """

    temperature: float
    pixels: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float

    def figures(self) -> dict[str, Any]:
        """All but the temperature, by name."""
        return {k: v for k, v in asdict(self).items() if k != 'temperature'}

    def __str__(self) -> str:
        return (
            f'temperature {self.temperature:.3f} from {self.pixels:,} labelled pixels; negative log-likelihood '
            f'{self.nll_before:.3f} -> {self.nll_after:.3f}, expected calibration error {self.ece_before:.1%} -> '
            f'{self.ece_after:.1%}'
        )


def calibrate(logits: Tensor, codes: Tensor) -> Calibration:
    """Fit one temperature to labelled pixels (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    Args:
        logits: Shape ``(N, num_classes)``; the channel of no data is left out.
        codes: Shape ``(N,)``.
    """
    temperature = fit_temperature(logits, codes)
    before, after = (class_probabilities(logits / t) for t in (1.0, temperature))
    figures = [_nll(logits, codes, 1.0), _nll(logits, codes, temperature), _ece(before, codes), _ece(after, codes)]
    return Calibration(temperature, len(codes), *figures)


def fit_temperature(logits: Tensor, codes: Tensor) -> float:
    """The temperature of the least negative log-likelihood.

    The likelihood is convex in ``1 / T``: its derivative, mean logit expected minus mean logit of the class, is
    monotone, so that halving the interval finds the one minimum, or the limit that it lies beyond.

    Args:
        logits: Shape ``(N, num_classes)``; the channel of no data is left out.
        codes: Shape ``(N,)``.

    Examples:
        Three of four pixels are what logits of 4 and 0 say, so that the odds should be 3:

        >>> logits = torch.tensor([[0.0, 4.0, 0.0]]).repeat(4, 1)
        >>> temperature = fit_temperature(logits, torch.tensor([1, 1, 1, 2]))
        >>> round(float(torch.tensor(4 / temperature).exp()), 4)
        3.0
    """
    real = logits[:, NODATA + 1 :].double()
    own = real.gather(1, codes[:, None].long() - NODATA - 1).mean()
    low, high = (torch.log(torch.tensor(1 / t, dtype=torch.float64)) for t in reversed(LIMITS))
    for _ in range(40):
        middle = (low + high) / 2
        expected = ((real * middle.exp()).softmax(1) * real).sum(1).mean()
        low, high = (low, middle) if expected > own else (middle, high)
    return float(torch.exp(-(low + high) / 2).clamp(*LIMITS))


def _nll(logits: Tensor, codes: Tensor, temperature: float) -> float:
    real = logits[:, NODATA + 1 :].double() / temperature
    return float(torch.nn.functional.cross_entropy(real, codes.long() - NODATA - 1))


def _ece(probabilities: Tensor, codes: Tensor) -> float:
    error = CalibrationError()
    error.update(probabilities, codes)
    return float(error.compute())
