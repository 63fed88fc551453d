"""Sparsity-preserving fine-tuning of LLMs: prune, insert SPP factors, train, merge with every zero in place."""
