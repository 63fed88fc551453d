"""The arithmetic of SPP on plain tensors: the effective weight and the fused linear, with its plain form beside it.

Knows nothing about PEFT. Factors and effective weights are computed in float32 (float64 for float64) and cast once: in
float16 a factor could overflow, and 0 · inf = nan would destroy the mask.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def row_blocks(out: int, r: int, device=None) -> Tensor:
    """block(i) = ⌊i · r / out⌋ for every output row i: the row of α that R(α) repeats there. Returns (out,) int64."""
    return torch.arange(out, device=device) * r // out


def wide_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def effective_weight(weight: Tensor, factors: list[tuple[Tensor, Tensor, float]], start: float = 1.0) -> Tensor:
    """W′ = W ⊙ (1 + Σ s · R(α)β) (Eq. 5, merged), over one or more (α, β, s); start: 0 for the update alone.

    weight: (out, in); α: (r, in); β: (out,). Returns (out, in) in the weight's type. Differentiable.
    """
    out, wide = len(weight), wide_type(weight.dtype)
    factor = torch.full((), start, dtype=wide, device=weight.device)
    for alpha, beta, scaling in factors:
        alpha, beta = alpha.to(wide), beta.to(wide)
        if out % len(alpha):
            rows = alpha[row_blocks(out, len(alpha), weight.device)]
            factor = torch.addcmul(factor, beta[:, None], rows, value=scaling)
        else:  # equal blocks: R(α) is a view, not a copy
            blocks = factor if factor.dim() == 0 else factor.view(len(alpha), -1, weight.shape[1])
            factor = torch.addcmul(blocks, beta.view(len(alpha), -1, 1), alpha[:, None, :], value=scaling)
            factor = factor.view(weight.shape)
    product = factor.mul_(weight) if factor.dim() and not torch.is_grad_enabled() else factor * weight
    return product.to(weight.dtype)


def spp_linear_ref(
    x: Tensor, weight: Tensor, bias: Tensor | None, alpha: Tensor, beta: Tensor, scaling: float
) -> Tensor:
    """The plain form of spp_linear: autograd through the effective weight. Keeps two tensors of size out × in."""
    return F.linear(x, effective_weight(weight, [(alpha, beta, scaling)]).to(x.dtype), bias)


def spp_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    alpha: Tensor,
    beta: Tensor,
    scaling: float,
    token_fraction: float = 1.0,
) -> Tensor:
    """y = x W′ᵀ + b with W′ = W ⊙ (1 + s · R(α)β), rebuilt in backward: nothing of size out × in is kept.

    x: (…, in), in the type to compute in; weight: (out, in); bias: (out,) or None; alpha: (r, in); beta: (out,).
    token_fraction: below 1, dα and dβ come from a random share of the tokens, scaled up: unbiased, cheaper.
    """
    return spp_linear_sum(x, weight, bias, [(alpha, beta, scaling)], token_fraction)


def spp_linear_sum(
    x: Tensor, weight: Tensor | Callable[[], Tensor], bias: Tensor | None, factors: list[tuple[Tensor, Tensor, float]],
    token_fraction: float = 1.0, start: float = 1.0,
) -> Tensor:  # fmt: skip
    """The same for several (α, β, s), whose updates add, and for a frozen weight that a function makes (dequantised,
    loaded), in backward anew. start: 0 for the update alone, y = x [W ⊙ Σ s · R(α)β]ᵀ."""
    pairs, scalings = [factor for pair in factors for factor in pair[:2]], [scaling for *_, scaling in factors]
    return _SppLinear.apply(x, weight, bias, start, token_fraction, scalings, *pairs)


class _SppLinear(torch.autograd.Function):
    @staticmethod
    def forward(x, weight, bias, start, token_fraction, scalings, *factors):
        weight = weight if isinstance(weight, Tensor) else weight()
        triples = list(zip(factors[::2], factors[1::2], scalings, strict=True))
        return F.linear(x, effective_weight(weight, triples, start).to(x.dtype), bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _bias, ctx.start, ctx.token_fraction, ctx.scalings, *factors = inputs
        ctx.make_weight = None if isinstance(weight, Tensor) else weight
        ctx.save_for_backward(x, None if ctx.make_weight else weight, *factors)

    @staticmethod
    def backward(ctx, grad):
        x, weight, *factors = ctx.saved_tensors
        weight = ctx.make_weight() if ctx.make_weight else weight
        triples = list(zip(factors[::2], factors[1::2], ctx.scalings, strict=True))
        need_x, need_weight, need_bias, _, _, _, *need_factors = ctx.needs_input_grad
        dx = dweight = dbias = None
        rows = grad.reshape(-1, grad.shape[-1])  # a token each, of one vector too
        dfactors = [None] * len(factors)
        if need_x:
            dx = grad @ effective_weight(weight, triples, ctx.start).to(grad.dtype)
        if need_bias:
            dbias = rows.sum(0)
        if need_weight or any(need_factors):
            dmerged = _weight_gradient(rows, x.reshape(-1, x.shape[-1]), ctx.token_fraction)
            wide = wide_type(weight.dtype)
            if need_weight:
                ones = torch.ones_like(weight, dtype=wide)
                dweight = (dmerged * effective_weight(ones, triples, ctx.start)).to(weight.dtype)
            product = dmerged.mul_(weight) if dmerged.dtype == wide == weight.dtype else dmerged.to(wide) * weight
            dfactors = [gradient for triple in triples for gradient in _factor_gradients(product, *triple)]
        return dx, dweight, dbias, None, None, None, *dfactors


def _weight_gradient(grad: Tensor, x: Tensor, token_fraction: float) -> Tensor:
    """dL/dW′ = gyᵀ x, (out, in); from a random share of the tokens where asked."""
    if token_fraction < 1:
        kept = max(1, round(token_fraction * len(x)))
        chosen = torch.randperm(len(x), device=x.device)[:kept]
        return (grad[chosen].T @ x[chosen]).mul_(len(x) / kept)
    return grad.T @ x


def _factor_gradients(product: Tensor, alpha: Tensor, beta: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """dα and dβ are sums of P = dW′ ⊙ W: over the rows of a block, weighted by β; over a row, weighted by α."""
    out, r, alpha, beta = len(product), len(alpha), alpha.to(product.dtype), beta.to(product.dtype)
    if out % r:
        block = row_blocks(out, r, product.device)
        dbeta = torch.linalg.vecdot(product, alpha[block])
        dalpha = torch.zeros_like(alpha).index_add_(0, block, product * beta[:, None])
    else:
        product = product.view(r, out // r, -1)
        dbeta = (product @ alpha[:, :, None]).flatten()
        dalpha = (beta.view(r, 1, -1) @ product).squeeze(1)
    return dalpha.mul_(scaling), dbeta.mul_(scaling)  # autograd gives them the factors' types
