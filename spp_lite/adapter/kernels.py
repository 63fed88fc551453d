"""The arithmetic of SPP on plain tensors: the effective weight and the fused linear, with its plain form beside it.

Knows nothing about PEFT. Factors and effective weights are computed in float32 (float64 for float64) and cast once: in
float16 a factor could overflow, and 0 · inf = nan would destroy the mask.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def row_blocks(out: int, r: int, device=None) -> Tensor:
    """block(i) = ⌊i · r / out⌋ for every output row i: the row of α that R(α) repeats there. Returns (out,) int64."""
    return torch.arange(out, device=device) * r // out


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def effective_weight(weight: Tensor, factors: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """W′ = W ⊙ (1 + Σ s · R(α)β) (Eq. 5, merged), over one or more (α, β, s).

    weight: (out, in); α: (r, in); β: (out,). Returns (out, in) in the
    weight's type. Differentiable.
    """
    out, wide = len(weight), _wide(weight.dtype)
    factor = torch.ones((), dtype=wide, device=weight.device)
    for alpha, beta, scaling in factors:
        if out % len(alpha):
            factor = torch.addcmul(
                factor, beta[:, None], alpha[row_blocks(out, len(alpha), weight.device)], value=scaling
            )
        else:  # equal blocks: R(α) is a view, not a copy
            blocks = factor if factor.dim() == 0 else factor.view(len(alpha), -1, weight.shape[1])
            factor = torch.addcmul(blocks, beta.view(len(alpha), -1, 1), alpha[:, None, :], value=scaling)
            factor = factor.view(weight.shape)
    product = factor * weight if torch.is_grad_enabled() else factor.mul_(weight)
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
    return _SppLinear.apply(x, weight, bias, alpha, beta, scaling, token_fraction)


class _SppLinear(torch.autograd.Function):
    @staticmethod
    def forward(x, weight, bias, alpha, beta, scaling, token_fraction):
        return F.linear(x, effective_weight(weight, [(alpha, beta, scaling)]).to(x.dtype), bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _bias, alpha, beta, ctx.scaling, ctx.token_fraction = inputs
        ctx.save_for_backward(x, weight, alpha, beta)

    @staticmethod
    def backward(ctx, grad):
        x, weight, alpha, beta = ctx.saved_tensors
        need_x, need_weight, need_bias, need_alpha, need_beta, *_ = ctx.needs_input_grad
        dx = dweight = dbias = dalpha = dbeta = None
        if need_x:
            dx = grad @ effective_weight(weight, [(alpha, beta, ctx.scaling)]).to(grad.dtype)
        if need_bias:
            dbias = grad.flatten(0, -2).sum(0)
        if need_alpha or need_beta or need_weight:
            dmerged = _weight_gradient(grad.flatten(0, -2), x.flatten(0, -2), ctx.token_fraction)
            if need_weight:
                ones = torch.ones_like(weight, dtype=_wide(weight.dtype))
                dweight = (dmerged * effective_weight(ones, [(alpha, beta, ctx.scaling)])).to(weight.dtype)
            dalpha, dbeta = _factor_gradients(dmerged, weight, alpha, beta, ctx.scaling)
        return dx, dweight, dbias, dalpha, dbeta, None, None


def _weight_gradient(grad: Tensor, x: Tensor, token_fraction: float) -> Tensor:
    """dL/dW′ = gyᵀ x, (out, in); from a random share of the tokens where asked."""
    if token_fraction < 1:
        kept = max(1, round(token_fraction * len(x)))
        chosen = torch.randperm(len(x), device=x.device)[:kept]
        return (grad[chosen].T @ x[chosen]).mul_(len(x) / kept)
    return grad.T @ x


def _factor_gradients(dmerged: Tensor, weight: Tensor, alpha: Tensor, beta: Tensor, scaling: float):
    """dα and dβ are sums of P = dW′ ⊙ W: over the rows of a block, weighted by β; over a row, weighted by α."""
    out, r = len(weight), len(alpha)
    wide = _wide(weight.dtype)
    product = dmerged.mul_(weight) if dmerged.dtype == wide == weight.dtype else dmerged.to(wide) * weight
    if out % r:
        block = row_blocks(out, r, weight.device)
        dbeta = torch.linalg.vecdot(product, alpha[block])
        dalpha = torch.zeros_like(alpha).index_add_(0, block, product * beta[:, None])
    else:
        product = product.view(r, out // r, -1)
        dbeta = (product @ alpha[:, :, None]).flatten()
        dalpha = (beta.view(r, 1, -1) @ product).squeeze(1)
    return dalpha.mul_(scaling), dbeta.mul_(scaling)
