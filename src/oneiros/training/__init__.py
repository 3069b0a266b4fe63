"""Training: text, tokenizer, base model, assistant. The only room that imports torch."""
