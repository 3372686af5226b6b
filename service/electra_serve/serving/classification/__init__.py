"""Logits of a head to labels, labeled spans and answer spans, as transformers' pipelines compute them."""
