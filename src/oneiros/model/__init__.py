"""What a model is: parameter files, tokenizer, chat format, catalog."""
