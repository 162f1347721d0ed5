// When the gradients of a recorded run arrived, as compute times for a simulation of the same job:
// what would these arrivals have come to under another staleness policy?
//
// A gradient takes, from the answer to its worker's pull to the arrival of the last part of its
// push, what it took in the record: network, computing and the worker's own waits are in it, and
// the simulated network then takes no time. Each worker goes through its own list, so that where
// the other policy makes it wait, start anew or compute again, later gradients arrive later, as
// they would have.
//
// Thread: pure.
#pragma once

#include <string>

#include "common/result.h"
#include "launch/replay/recording.h"

namespace detente {

// A line per gradient, "WORKER SECONDS", as simulate.compute.trace reads it. bad_message: no
// gradient in the record has both a pull and a push.
Result<std::string> arrival_times(const Recording& recording);

}  // namespace detente
