"""Making models: token shards, pre-training, fine-tuning. The only room that imports torch."""
