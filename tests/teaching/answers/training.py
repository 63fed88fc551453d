"""The checks of notebook 06 accept right variants and say what is wrong with plausible wrong ones."""

import math

import torch
import torch.nn.functional as F
from transformers import get_linear_schedule_with_warmup

from spp_lite.recover.data import PROMPT, PROMPT_WITH_INPUT, prompt
from spp_lite.teaching.checks import ex_06a, ex_06b, ex_06c, ex_06d, ex_06e


def right_ids(p, a, e):
    return [*p, *a, e]


def right_labels(p, a, e):
    return [-100] * len(p) + [*a, e]


def tensors(p, a, e):
    ids = torch.tensor(p + a + [e])
    labels = ids.clone()
    labels[: len(p)] = -100
    return ids, labels


def by_hand(record):
    asked = f"### Instruction:\n{record['instruction']}\n\n"
    given = ", paired with an input that provides further context" if record["input"] else ""
    given_text = f"### Input:\n{record['input']}\n\n" if record["input"] else ""
    ask = "Write a response that appropriately completes the request."
    return f"Below is an instruction that describes a task{given}. {ask}\n\n{asked}{given_text}### Response:\n"


def loss_by_loop(logits, labels):
    losses = [
        -math.log(float(torch.softmax(logits[t - 1].double(), 0)[labels[t]]))
        for t in range(1, len(labels))
        if labels[t] != -100
    ]
    return sum(losses) / len(losses)


def loss_by_gather(logits, labels):
    counts = labels[1:] != -100
    named = labels[1:][counts]
    return -(logits[:-1][counts].log_softmax(-1)[torch.arange(len(named)), named]).mean()


def rate_by_min(step, steps, peak, warmup):
    return peak * min(step / max(1, warmup) if step < warmup else 1.0, (steps - step) / (steps - warmup))


def rate_by_torch(step, steps, peak, warmup):
    parameter = torch.nn.Parameter(torch.zeros(1))
    schedule = get_linear_schedule_with_warmup(torch.optim.SGD([parameter], lr=peak), warmup, steps)
    return torch.tensor(peak * schedule.lr_lambdas[0](step))


RIGHT = [
    (ex_06c, loss_by_loop),
    (ex_06c, loss_by_gather),
    (ex_06c, lambda logits, labels: F.cross_entropy(logits[:-1].double(), labels[1:])),
    (ex_06e, rate_by_min),
    (ex_06e, rate_by_torch),
    (ex_06b, lambda p, a, e: (right_ids(p, a, e), right_labels(p, a, e))),
    (ex_06b, tensors),
    (ex_06b, lambda p, a, e: [p + a + [e], [*(-100 for _ in p), *a, e]]),
    (ex_06a, lambda r: (PROMPT_WITH_INPUT if r["input"] else PROMPT).format(**r)),
    (ex_06a, by_hand),
    (ex_06d, lambda alpha, lr, s: lr * s * alpha.abs()),
    (ex_06d, lambda alpha, lr, s: abs((1 + s * alpha * -lr) - 1)),
    (ex_06d, lambda alpha, lr, s: (lr * s * abs(alpha)).numpy()),
]
LABELS = [
    (lambda p, a, e: p + a + [e], "the prompt counts in the loss"),
    (lambda p, a, e: [-100] * len(p) + a, "one shorter than ids"),
    (lambda p, a, e: [-100] * len(p) + a + [-100], "EOS is masked"),
    (lambda p, a, e: [*a, e], "shorter than ids: put one -100"),
    (lambda p, a, e: [0] * len(p) + a + [e], "0 is a token"),
    (lambda p, a, e: [1] * len(p) + a + [e], "1 is a token"),
    (lambda p, a, e: [*right_labels(p, a, e)[1:], -100], "shifted to the left"),
    (lambda p, a, e: [*right_labels(p, a, e)[1:], e], "shifted to the left"),
    (lambda p, a, e: [-100, *right_labels(p, a, e)[:-1]], "shifted to the right"),
    (lambda p, a, e: p + [-100] * (len(a) + 1), "wrong way round"),
    (lambda p, a, e: [-100] * (len(p) + len(a) + 1), "nothing to learn"),
    (lambda p, a, e: [-100 if token in p else token for token in [*p, *a, e]], "by place, not by value"),
]


def cut(logits, labels):
    return logits[:-1], labels[1:]


def probabilities(logits, labels):
    counts = labels[1:] != -100
    return logits[:-1][counts].softmax(-1).gather(1, labels[1:][counts][:, None])


WRONG = [
    (ex_06c, lambda logits, labels: ..., "still blank"),
    (ex_06c, F.cross_entropy, "without the shift"),
    (ex_06c, lambda logits, labels: F.cross_entropy(logits[1:], labels[:-1]), "the other way"),
    (ex_06c, lambda logits, labels: F.cross_entropy(*cut(logits, labels), reduction="sum"), "that is the sum"),
    (ex_06c, lambda logits, labels: F.cross_entropy(*cut(logits, labels), reduction="none").mean(), "by all tokens"),
    (ex_06c, lambda logits, labels: -F.cross_entropy(*cut(logits, labels)), "sign is wrong"),
    (ex_06c, lambda logits, labels: probabilities(logits, labels).mean(), "mean probability"),
    (ex_06c, lambda logits, labels: -probabilities(logits, labels).log2().mean(), "base 2"),
    (ex_06c, lambda logits, labels: -probabilities(logits, labels).log()[:, 0], "one number"),
    (ex_06c, lambda logits, labels: F.cross_entropy(logits[:-1], labels[1:].clamp(min=0)), "-100 count in your mean"),
    (ex_06e, lambda step, steps, peak, warmup: None, "still blank"),
    (ex_06e, lambda step, steps, peak, warmup: peak, "step 0 has the rate 0"),
    (ex_06e, lambda step, steps, peak, warmup: peak * (steps - step) / steps, "step 0 has the rate 0"),
    (ex_06e, lambda step, steps, peak, warmup: rate_by_min(step, steps, 1.0, warmup), "multiply by the peak"),
    (ex_06e, lambda step, steps, peak, warmup: peak * min(1, (step + 1) / max(warmup, 1)), "count from 0"),
    (ex_06e, lambda step, steps, peak, warmup: peak * min(1, step / max(warmup, 1)), "not constant"),
    (
        ex_06e,
        lambda step, steps, peak, warmup: peak * min(step / (warmup or 0.1), 1 - (step - warmup) / steps),
        "steps − warmup steps",
    ),
    (
        ex_06e,
        lambda step, steps, peak, warmup: peak * min(step / 4, 1 - (step - 4) / steps),
        "step 5 .*you return 0.045",
    ),
    (ex_06e, lambda step, steps, peak, warmup: peak * step / warmup, "the rate falls: in a line"),
    *((ex_06b, lambda p, a, e, f=f: (right_ids(p, a, e), f(p, a, e)), message) for f, message in LABELS),
    (ex_06b, lambda p, a, e: ..., "still blank"),
    (ex_06b, lambda p, a, e: right_labels(p, a, e), "return two lists"),
    (ex_06b, lambda p, a, e: ("ids", "labels"), "return two lists"),
    (ex_06b, lambda p, a, e: (p + a, right_labels(p, a, e)), "ids lack EOS"),
    (ex_06b, lambda p, a, e: ([*a, e], right_labels(p, a, e)), "ids lack the prompt"),
    (ex_06b, lambda p, a, e: ([*p, e, *a], right_labels(p, a, e)), "EOS comes last"),
    (ex_06b, lambda p, a, e: ([*p, e, *a, e], right_labels(p, a, e)), "one EOS is enough"),
    (ex_06a, lambda r: None, "still blank"),
    (ex_06a, lambda r: PROMPT.format(**r), "this record has an input"),
    (ex_06a, lambda r: PROMPT_WITH_INPUT.format(**r), "the input is empty"),
    (ex_06a, lambda r: PROMPT_WITH_INPUT if r["input"] else PROMPT, "not filled"),
    (ex_06a, lambda r: prompt(r) + r["output"], "leave the output out"),
    (ex_06a, lambda r: prompt(r).strip(), "newline after '### Response:'"),
    (ex_06a, lambda r: prompt(r)[prompt(r).index("###") :], "Below is an instruction"),
    (ex_06a, lambda r: prompt(r).replace("\n\n", "\n"), "two newlines"),
    (ex_06a, lambda r: prompt(r).replace("Response", "Answer"), "from character .* 'Answer"),
    (ex_06a, lambda r: prompt(r).format(**r), "stopped with KeyError"),
    (ex_06a, lambda r: [prompt(r)], "a string is asked for"),
    (ex_06d, lambda alpha, lr, s: ..., "still blank"),
    (ex_06d, lambda alpha, lr, s: lr * s * alpha, "no sign"),
    (ex_06d, lambda alpha, lr, s: lr * alpha.abs(), "scaling s is missing"),
    (ex_06d, lambda alpha, lr, s: s * alpha.abs(), "rate is missing"),
    (ex_06d, lambda alpha, lr, s: lr * s, "α is missing"),
    (ex_06d, lambda alpha, lr, s: 1 + lr * s * alpha.abs(), "minus 1"),
    (ex_06d, lambda alpha, lr, s: 1 + lr * s * alpha, "without sign"),
    (ex_06d, lambda alpha, lr, s: (lr * s * alpha.abs()).mean(), "not their mean"),
    (ex_06d, lambda alpha, lr, s: (lr * s * alpha.abs()).mean(1), "a mean of each row"),
    (ex_06d, lambda alpha, lr, s: lr * s * (alpha.abs() + lr), "does not move in the first step"),
    (ex_06d, lambda alpha, lr, s: 100 * lr * s * alpha.abs(), "not a percentage"),
    (ex_06d, lambda alpha, lr, s: lr * s * alpha.abs().T, "shape"),
]
