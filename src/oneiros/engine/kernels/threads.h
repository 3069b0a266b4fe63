/* A fixed set of threads that run one function together and meet at barriers. */
#ifndef THREADS_H
#define THREADS_H

struct pool;
struct pool *pool_new(int threads); /* null if a thread cannot be started */
void pool_free(struct pool *pool);
int pool_threads(const struct pool *pool);
/* Calls run(argument, thread) on every thread, the caller being thread 0, and waits for all. */
void pool_run(struct pool *pool, void (*run)(void *argument, int thread), void *argument);
void pool_barrier(struct pool *pool);
#endif
