#include "common/runtime/zmq/compute_thread.h"

#include <exception>
#include <string>
#include <utility>

namespace detente {

void ComputeThread::submit(Ticket ticket, Work work) {
    auto job = std::make_shared<Job>();
    job->ticket = ticket;
    job->work = std::move(work);
    jobs_.emplace(ticket.value, job);
    thread_.submit([this, job]() mutable {
        WorkResult result = compute(*job);
        const Ticket ended = job->ticket;
        inbox_.deliver(ComputeEnded{ended, std::move(result)}, std::move(job));
    });
}

WorkResult ComputeThread::compute(const Job& job) {
    if (job.cancelled.load()) {
        return fail(ErrorCode::cancelled, "cancelled before the computation began");
    }
    try {
        return computer_.run(job.work, job.cancelled, [&](std::uint32_t index, Payload payload) {
            inbox_.deliver(ComputePart{job.ticket, index, std::move(payload)}, nullptr);
        });
    } catch (const std::exception& thrown) {
        return fail(ErrorCode::internal, std::string("the computation threw: ") + thrown.what());
    } catch (...) {
        return fail(ErrorCode::internal, "the computation threw what is no std::exception");
    }
}

void ComputeThread::cancel(Ticket ticket) {
    if (const auto found = jobs_.find(ticket.value); found != jobs_.end()) {
        found->second->cancelled.store(true);
    }
}

void ComputeThread::stop() {
    for (auto& [ticket, job] : jobs_) job->cancelled.store(true);
    thread_.stop();
}

}  // namespace detente
