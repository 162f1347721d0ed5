// Which batches a worker asks for, and of which tasks where those are split over workers.
#include <algorithm>
#include <bit>
#include <limits>
#include <tuple>

#include "worker/worker.h"

namespace detente {

void Worker::ask_for_batches(bool wants_more) {
    if (wants_more && (lease_ || no_more_ || lease_useless_)) return;
    LeaseRequest request;
    request.request = ++lease_number_;
    request.wants_more = wants_more;
    std::sort(finished_.begin(), finished_.end(), [](const BatchRange& a, const BatchRange& b) {
        return std::tie(a.tasks, a.data_epoch, a.first) < std::tie(b.tasks, b.data_epoch, b.first);
    });
    for (const BatchRange& batch : finished_) {
        if (!request.finished.empty()) {
            BatchRange& last = request.finished.back();
            if (last.tasks == batch.tasks && last.data_epoch == batch.data_epoch &&
                last.first + last.count == batch.first) {
                ++last.count;
                continue;
            }
        }
        request.finished.push_back(batch);
    }
    lease_ = std::move(request);
    lease_first_sent_ = now_;
    lease_heard_ = now_;
    send_lease_request();
}

bool Worker::lease_waits(const Wait& wait) {
    if (!lease_ || wait.step.value != 0 || wait.request != lease_->request) return false;
    lease_heard_ = now_;
    return true;
}

Result<void> Worker::send_overdue_lease_again() {
    if (!lease_ || now_ - lease_sent_ < setup_.job->reply_deadline) return {};
    const Nanos silence = now_ - lease_heard_;
    if (silence > ShardClient::kGiveUpAfter * setup_.job->reply_deadline) {
        const auto waited = std::chrono::duration_cast<std::chrono::seconds>(silence).count();
        return fail(ErrorCode::timed_out,
                    "no answer of " + to_string(node_of(kLeadShard)) + ", the lead shard, to " +
                        "request " + std::to_string(lease_->request) + " for batches for " +
                        std::to_string(waited) + " s (" +
                        std::to_string(ShardClient::kGiveUpAfter) +
                        " times deadlines.reply_s), not even that it has to wait; is that process "
                        "alive and reachable?");
    }
    send_lease_request();
    return {};
}

void Worker::send_lease_request() {
    lease_sent_ = now_;
    Message message;
    message.envelope = clients_[kLeadShard.value].envelope();
    message.body = *lease_;
    effects_->send(node_of(kLeadShard), std::move(message));
}

void Worker::place_tasks(const std::vector<WorkerId>& members) {
    if (of_all_tasks()) return;
    if (const auto own = setup_.placement->of(setup_.id, members)) own_tasks_ = *own;
    for (ShardClient& client : clients_) client.speaks_for(own_tasks_);
}

// A task that moved away, or was only helped with, has no loss here: the last one would for ever
// stand beside what those see who compute it.
void Worker::forget_losses() {
    if (of_all_tasks()) return;
    TaskSet computes = own_tasks_;
    for (const BatchRange& batch : held_) computes.bits |= batch.tasks.bits;
    for (std::uint32_t task = 0; task < losses_.size(); ++task) {
        if (computes.contains(TaskId{task})) continue;
        losses_[task] = std::numeric_limits<double>::quiet_NaN();
        loss_steps_[task] = 0;
    }
}

Worker::Batch Worker::take_batch() {
    auto chosen = batches_.begin();
    if (!of_all_tasks() && !chosen->repairs()) {
        // How far behind the last task, counted round.
        const auto turn = [this](const Batch& batch) {
            const int last = last_tasks_.empty() ? -1 : std::countr_zero(last_tasks_.bits);
            return static_cast<unsigned>(std::countr_zero(batch.tasks.bits) - last - 1) % kMaxTasks;
        };
        for (auto at = batches_.begin(); at != batches_.end(); ++at) {
            if (turn(*at) < turn(*chosen)) chosen = at;
        }
    }
    Batch batch = std::move(*chosen);
    batches_.erase(chosen);
    last_tasks_ = batch.tasks;
    return batch;
}

bool Worker::of_step(const Block& block) const {
    const TaskSet tasks = computing_->batch.tasks;
    return tasks.empty() || (block.owners.bits & tasks.bits) != 0;
}

}  // namespace detente
