// Computations and stores of a world's nodes.
#include <cstring>
#include <limits>
#include <utility>

#include "common/invariant.h"
#include "common/runtime/sim/world.h"

namespace detente::sim {
namespace {

// The first number of the first part becomes a NaN.
void spoil(std::vector<std::pair<std::uint32_t, Payload>>& parts) {
    for (auto& [index, payload] : parts) {
        if (payload.size() < sizeof(float)) continue;
        auto altered = std::make_shared<AlignedBuffer>(payload.size());
        std::memcpy(altered->data(), payload.bytes.data(), payload.size());
        altered->floats()[0] = std::numeric_limits<float>::quiet_NaN();
        payload = payload_of(std::move(altered));
        return;
    }
}

}  // namespace

void World::compute(Place& place, Ticket ticket, Work&& work) {
    invariant(place.computer != nullptr, "a node that computes was given a computer");
    Running running;
    running.ticket = ticket;
    running.job = std::make_unique<ComputeJob>();
    running.job->computer = place.computer;
    running.job->work = std::move(work);
    place.compute.push_back(std::move(running));
    if (place.compute.size() == 1) start_compute(place);
}

void World::start_compute(Place& place) {
    const std::uint64_t token = ++place.compute_token;
    Running& running = place.compute.front();
    Nanos duration{0};
    if (running.cancelled) {
        duration = options_.cancel_time;
    } else {
        running.begun = true;
        const std::uint64_t count = seat(place.id).computed++;
        if (options_.compute_time) {
            duration = options_.compute_time(place.id, running.job->work, count);
        }
        if (options_.pool != nullptr && duration.count() > 0) {
            running.on_pool = true;
            options_.pool->start(*running.job);
        }
    }
    queue_.push(now_ + duration, ComputeDue{whose(place), token});
}

void World::join(Running& running) const {
    if (!running.on_pool) return;
    running.job->cancelled.store(true);
    options_.pool->wait(*running.job);
}

void World::due(ComputeDue&& compute, std::uint64_t /*handle*/) {
    Place* found = place(compute.at);
    if (found == nullptr || found->compute_token != compute.token) return;
    Running running = std::move(found->compute.front());
    ++found->compute_token;
    found->compute.pop_front();
    ComputeJob& job = *running.job;
    // What a cancelled computation has begun it has begun on a pool and without one: a worker's
    // state is the same afterwards.
    if (running.on_pool) {
        options_.pool->wait(job);
    } else if (running.begun) {
        if (options_.about_to_run && !running.cancelled) {
            options_.about_to_run(found->id, job.work);
        }
        job.run();
    }
    // Before the parts are delivered: a node may ask for more work when it gets one, which starts
    // it if nothing else waits, and no work is to start twice.
    if (!found->compute.empty()) start_compute(*found);
    if (running.cancelled) {
        deliver(compute.at,
                ComputeEnded{running.ticket, fail(ErrorCode::cancelled, "cancelled as asked")});
        return;
    }
    if (found->spoil && std::holds_alternative<CombineWork>(job.work)) {
        found->spoil = false;
        spoil(job.parts);
    }
    for (auto& [index, payload] : job.parts) {
        deliver(compute.at, ComputePart{running.ticket, index, std::move(payload)});
    }
    ComputeEnded ended{running.ticket, *std::move(job.result)};
    if (options_.end_delay.count() == 0) return deliver(compute.at, std::move(ended));
    queue_.push(now_ + options_.end_delay,
                PostDue{compute.at, std::make_unique<Event>(std::move(ended))});
}

void World::cancel_compute(Place& place, Ticket ticket) {
    for (std::size_t i = 0; i < place.compute.size(); ++i) {
        Running& running = place.compute[i];
        if (running.ticket != ticket || running.cancelled) continue;
        running.cancelled = true;
        running.job->cancelled.store(true);
        if (i != 0) continue;
        // Ends after cancel_time instead.
        queue_.push(now_ + options_.cancel_time, ComputeDue{whose(place), ++place.compute_token});
    }
}

void World::store(Place& place, Ticket ticket, StoreOp&& operation) {
    queue_.push(now_ + options_.store_time,
                StoreDue{whose(place), ticket, std::make_unique<StoreOp>(std::move(operation))});
}

Result<void> World::keep_file(StoreOp& operation) {
    for (const auto& [prefix, error] : store_failures_) {
        if (operation.path.starts_with(prefix)) return error;
    }
    if (options_.store) return options_.store(operation);
    std::vector<std::byte>& file = files_[operation.path];
    file.clear();
    for (const Payload& piece : operation.pieces) {
        file.insert(file.end(), piece.bytes.begin(), piece.bytes.end());
    }
    return {};
}

void World::due(StoreDue&& store, std::uint64_t /*handle*/) {
    if (place(store.at) == nullptr) return;
    Result<void> result = keep_file(*store.operation);
    store.operation->pieces.clear();
    deliver(store.at, Stored{store.ticket, std::move(result)});
    buffers_back(store.at);
}

}  // namespace detente::sim
