"""Rerank APIs of Cohere, Jina, vLLM and Text Embeddings Inference."""
