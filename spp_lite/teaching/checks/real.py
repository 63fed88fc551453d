"""Checks of notebook 09: parameters of SPP, bytes that training takes."""

from collections.abc import Callable

from .common import answer, compare


def ex_09a(function: Callable) -> str:
    """spp_count(shapes, r): sum of r · in + out over (out, in) shapes."""
    for shapes, r in (([(4096, 4096), (11008, 4096), (4096, 11008)], 16), ([(6, 10)], 2), ([(5, 3), (3, 5)], 1)):
        right = sum(r * inputs + out for out, inputs in shapes)
        reasons = [
            (
                sum(r * out + inputs for out, inputs in shapes),
                "in and out are swapped: alpha has r rows of `in` numbers",
            ),
            (
                sum(r * (inputs + out) for out, inputs in shapes),
                "that is LoRA's count; SPP's beta is one column, without r",
            ),
            (sum(out * inputs for out, inputs in shapes), "that counts the frozen weights"),
            (sum(r * inputs for _, inputs in shapes), "beta is missing: one number for every output"),
            (sum(out for out, _ in shapes), "alpha is missing: r rows of `in` numbers"),
            (sum(inputs + out for out, inputs in shapes), "alpha has r rows, not one"),
            (r * shapes[0][1] + shapes[0][0], "that is the first layer alone: add up all of them"),
        ]
        compare("Ex 09a", answer("Ex 09a", function, shapes, r), right, reasons, case=f"shapes {shapes}, r = {r}")
    return "Ex 09a: right."


def ex_09b(function: Callable) -> str:
    """training_bytes(frozen, trainable): bfloat16 frozen weights; float32 factors, gradients and two Adam moments."""
    for frozen, trainable in ((1_000, 10), (7_000_000, 20_000)):
        right = 2 * frozen + 16 * trainable
        reasons = [
            (4 * frozen + 16 * trainable, "the frozen weights are bfloat16: 2 bytes each"),
            (18 * frozen + 16 * trainable, "frozen weights have neither gradients nor moments"),
            (16 * (frozen + trainable), "frozen weights have neither gradients nor moments, and take 2 bytes each"),
            (2 * frozen + 12 * trainable, "one of four is missing: the factor, its gradient, two moments"),
            (2 * frozen + 4 * trainable, "the gradients and Adam's two moments take room too"),
            (2 * frozen + 8 * trainable, "Adam's two moments take room too, or everything is float32: 4 bytes each"),
            (2 * (frozen + trainable), "factors are float32, and have gradients and moments"),
            (right / 2**30, "bytes are asked for, not GiB"),
        ]
        case = f"{frozen:,} frozen, {trainable:,} trainable"
        compare("Ex 09b", answer("Ex 09b", function, frozen, trainable), right, reasons, case=case)
    return "Ex 09b: right."
