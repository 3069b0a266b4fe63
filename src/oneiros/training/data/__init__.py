"""From crawled pages and collected files to clean documents and token shards."""
