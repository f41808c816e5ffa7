/* Runs a batch of load cases: load, settle, sample and average, next; then rest.
 *
 * Nothing here waits. batch_step() does what is due now, batch_next() says when to call
 * it again, and the token that started the batch ends it when it runs out.
 */
#ifndef HIL_BATCH_H
#define HIL_BATCH_H

#include "spring_network.h"

/* Start a batch, or acknowledge the newest one again. */
verdict_t batch_run(network_t *network, const wire_run_t *run);

/* Forces to zero and, when a batch is running, end it with `status` and say RunDone. */
void batch_end(network_t *network, unsigned status);

/* End the batch when its token has run out. */
void batch_deadman(network_t *network);

/* Do at most one thing that is due. */
void batch_step(network_t *network);

/* Return the device time at which something is due; UINT64_MAX when nothing is. */
uint64_t batch_next(const network_t *network);

#endif
