// When the gradients of a recorded run arrived, as compute times for a simulation of the same job:
// what would these arrivals have come to under another staleness policy?
//
// A gradient takes, from the answer to its worker's pull to the arrival of the last part of its
// push, what it took in the record: network, computing and the worker's own waits are in it, and
// the simulated network then takes no time. Each worker goes through its own list, so that where
// the other policy makes it wait, start anew or compute again, later gradients arrive later, as
// they would have.
//
// Times are all that arrivals are: what else [simulate] says is left aside, whether the record is a
// real run's, which ignored it, or a simulated one's, whose losses, delays and queues made those
// times. A worker that was lost, and whose list therefore ends early, is not lost again: it goes
// through its list once more. Weights are as old as these arrivals make them, even where the
// record's were made older.
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

// The job of the record with these times, in file `trace`, in place of all of [simulate] that would
// count a second time; limits, checks and the time a cancellation takes stay.
Job job_of_arrivals(Job job, const std::string& trace);

}  // namespace detente
