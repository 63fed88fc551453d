"""Getting accuracy back, and measuring it: records to tokens, transformers' Trainer, lm-eval and perplexity."""
