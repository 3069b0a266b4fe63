#define _GNU_SOURCE
#include "threads.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

enum {
    SPINS_BEFORE_YIELD = 4000, /* at a barrier: another program may hold the other's core */
    SPINS_BEFORE_SLEEP = 4000, /* between runs: about the time that sampling a token takes */
};

struct pool {
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint phase;
    _Alignas(64) atomic_uint generation; /* of runs */
    atomic_int sleepers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    void (*run)(void *, int);
    void *argument;
    bool stop;
    int threads, started;
    pthread_t worker[];
};

struct worker { struct pool *pool; int thread; };

static void sleep_until_run(struct pool *pool, unsigned seen) {
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(&pool->generation, memory_order_acquire) != seen) return;
        PAUSE();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->generation) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *argument) {
    struct worker me = *(struct worker *)argument;
    free(argument);
    for (unsigned seen = 0;; seen++) {
        sleep_until_run(me.pool, seen);
        if (me.pool->stop) return NULL;
        me.pool->run(me.pool->argument, me.thread);
        pool_barrier(me.pool);
    }
}

static void start_generation(struct pool *pool) {
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

struct pool *pool_new(int threads) {
    const size_t bytes = (sizeof(struct pool) + (size_t)threads * sizeof(pthread_t) + 63) / 64 * 64;
    struct pool *pool = aligned_alloc(64, bytes);
    if (!pool) return NULL;
    atomic_init(&pool->arrived, 0);
    atomic_init(&pool->phase, 0);
    atomic_init(&pool->generation, 0);
    atomic_init(&pool->sleepers, 0);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->stop = false;
    pool->threads = threads;
    pool->started = 1;
    for (int i = 1; i < threads; i++, pool->started++) {
        struct worker *worker = malloc(sizeof *worker);
        if (worker) *worker = (struct worker){pool, i};
        if (!worker || pthread_create(&pool->worker[i], NULL, work, worker)) {
            free(worker);
            pool_free(pool);
            return NULL;
        }
    }
    return pool;
}

void pool_free(struct pool *pool) {
    pool->stop = true;
    start_generation(pool);
    for (int i = 1; i < pool->started; i++) pthread_join(pool->worker[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
    free(pool);
}

int pool_threads(const struct pool *pool) { return pool->threads; }

void pool_run(struct pool *pool, void (*run)(void *, int), void *argument) {
    pool->run = run;
    pool->argument = argument;
    if (pool->threads > 1) start_generation(pool);
    run(argument, 0);
    pool_barrier(pool);
}

void pool_barrier(struct pool *pool) {
    if (pool->threads == 1) return;
    const unsigned phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) == (unsigned)pool->threads - 1) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->phase, phase + 1, memory_order_release);
        return;
    }
    for (int i = 0; atomic_load_explicit(&pool->phase, memory_order_acquire) == phase; i++) {
        if (i < SPINS_BEFORE_YIELD) PAUSE();
        else sched_yield();
    }
}
