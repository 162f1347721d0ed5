#include "ps/leases.h"

#include <algorithm>
#include <sstream>

namespace detente {

Leases::Leases(std::uint32_t batches, std::uint32_t data_epochs, std::uint32_t lease_batches,
               std::uint32_t workers, TaskSet tasks)
    : batches_(batches),
      data_epochs_(data_epochs),
      lease_batches_(std::max(1U, lease_batches)),
      workers_(std::max(1U, workers)) {
    for (std::uint32_t task = 0; task < kMaxTasks; ++task) {
        if (!tasks.contains(TaskId{task})) continue;
        cursors_.emplace_back().tasks.insert(TaskId{task});
    }
    if (cursors_.empty()) cursors_.emplace_back();
}

std::uint64_t Leases::total() const {
    return std::uint64_t{batches_} * data_epochs_ * cursors_.size();
}

void Leases::request(WorkerId worker, const LeaseRequest& request, TaskSet wanted) {
    Client& client = clients_[worker];
    if (request.request < client.last_request) return;  // overtaken by a later one
    if (request.request == client.last_request) {  // sent again: the same answer, if there is one
        if (!client.waiting) due_.push_back({worker, client.last_reply});
        return;
    }
    client.last_request = request.request;
    for (const BatchRange& range : request.finished) finish(client, range);
    client.waiting = request.wants_more;
    client.wanted = wanted;
    if (client.waiting) {
        waiting_.insert(worker);
    } else {
        waiting_.erase(worker);
        client.last_reply = LeaseReply{request.request, client.outstanding, false};
        due_.push_back({worker, client.last_reply});
    }
}

// Takes `range` out of what the worker holds, splitting a lease where it lies inside.
void Leases::finish(Client& client, const BatchRange& range) {
    std::vector<BatchRange> rest;
    for (const BatchRange& held : client.outstanding) {
        const std::uint32_t held_end = held.first + held.count;
        const std::uint32_t range_end = range.first + range.count;
        const std::uint32_t from = std::max(held.first, range.first);
        const std::uint32_t to = std::min(held_end, range_end);
        const bool same = held.data_epoch == range.data_epoch && held.tasks == range.tasks;
        if (!same || from >= to) {
            rest.push_back(held);
            continue;
        }
        finished_ += to - from;
        if (held.first < from) {
            rest.push_back({held.data_epoch, held.first, from - held.first, held.tasks});
        }
        if (to < held_end) rest.push_back({held.data_epoch, to, held_end - to, held.tasks});
    }
    client.outstanding = std::move(rest);
}

void Leases::release(WorkerId worker) {
    const auto found = clients_.find(worker);
    if (found == clients_.end()) return;
    for (const BatchRange& range : found->second.outstanding) {
        given_back_.push_back(range);
        returned_ += range.count;
        changes_.push_back({false, worker, range});
    }
    clients_.erase(found);
    waiting_.erase(worker);
}

bool Leases::nothing_outstanding() const {
    return std::all_of(clients_.begin(), clients_.end(),
                       [](const auto& entry) { return entry.second.outstanding.empty(); });
}

bool Leases::idle(WorkerId worker) const {
    const auto found = clients_.find(worker);
    if (found == clients_.end() || !found->second.outstanding.empty()) return false;
    return found->second.waiting || found->second.last_reply.no_more;
}

bool Leases::grant_of(Cursor& cursor, std::uint32_t most, WorkerId worker, Client& client) {
    BatchRange range;
    const auto back =
        std::find_if(given_back_.begin(), given_back_.end(),
                     [&](const BatchRange& one) { return one.tasks == cursor.tasks; });
    if (back != given_back_.end()) {
        range = *back;
        given_back_.erase(back);
    } else if (left(cursor)) {
        // Towards the end leases shrink, so that no worker is left with the last long one.
        const std::uint64_t all = std::uint64_t{batches_} * data_epochs_;
        const std::uint64_t left = all - (std::uint64_t{cursor.epoch} * batches_ + cursor.batch);
        const std::uint64_t fair = std::max<std::uint64_t>(1, left / (2ULL * workers_));
        const auto count = static_cast<std::uint32_t>(
            std::min<std::uint64_t>({most, fair, batches_ - cursor.batch}));
        range = {cursor.epoch, cursor.batch, count, cursor.tasks};
        cursor.batch += count;
        if (cursor.batch == batches_) {
            cursor.batch = 0;
            ++cursor.epoch;
        }
    } else {
        return false;
    }
    leased_ += range.count;
    client.outstanding.push_back(range);
    changes_.push_back({true, worker, range});
    return true;
}

// Some of each task it asks for, which it computes by turns; if there is none, of the task that is
// furthest behind.
void Leases::grant(WorkerId worker, Client& client) {
    const auto wanted = [&](const Cursor& cursor) {
        return (cursor.tasks.bits & client.wanted.bits) != 0;
    };
    const auto asked = std::count_if(cursors_.begin(), cursors_.end(), wanted);
    const std::uint32_t most = std::max(
        1U, lease_batches_ / static_cast<std::uint32_t>(std::max<std::ptrdiff_t>(1, asked)));
    bool any = false;
    for (Cursor& cursor : cursors_) {
        if (wanted(cursor)) any |= grant_of(cursor, most, worker, client);
    }
    if (any) return;
    std::vector<Cursor*> others;
    for (Cursor& cursor : cursors_) others.push_back(&cursor);
    std::stable_sort(others.begin(), others.end(), [](const Cursor* a, const Cursor* b) {
        return std::pair(a->epoch, a->batch) < std::pair(b->epoch, b->batch);
    });
    for (Cursor* cursor : others) {
        if (grant_of(*cursor, lease_batches_, worker, client)) return;
    }
}

std::vector<Leases::Answer> Leases::answers() {
    for (auto next = waiting_.begin(); next != waiting_.end();) {
        const WorkerId worker = *next;
        Client& client = clients_.at(worker);
        grant(worker, client);
        // Everything the worker holds is in every answer, so that a lost answer loses no lease.
        client.last_reply = LeaseReply{client.last_request, client.outstanding, false};
        if (client.outstanding.empty()) {
            if (!nothing_outstanding()) {
                ++next;
                continue;
            }
            client.last_reply.no_more = true;
        }
        client.waiting = false;
        next = waiting_.erase(next);
        due_.push_back({worker, client.last_reply});
    }
    return std::exchange(due_, {});
}

std::vector<Leases::Change> Leases::changes() { return std::exchange(changes_, {}); }

// Format 1: one cursor. Format 2: one per task, named by its bit, as is each open range.
std::string Leases::save() const {
    std::ostringstream text;
    if (split()) {
        text << "leases 2 " << batches_ << ' ' << data_epochs_ << ' ' << cursors_.size();
        for (const Cursor& cursor : cursors_) {
            text << ' ' << cursor.tasks.bits << ' ' << cursor.epoch << ' ' << cursor.batch;
        }
    } else {
        text << "leases 1 " << batches_ << ' ' << data_epochs_ << ' ' << cursors_.front().epoch
             << ' ' << cursors_.front().batch;
    }
    text << ' ' << finished_ << ' ';
    std::vector<BatchRange> open(given_back_.begin(), given_back_.end());
    for (const auto& [worker, client] : clients_) {
        open.insert(open.end(), client.outstanding.begin(), client.outstanding.end());
    }
    text << open.size();
    for (const BatchRange& range : open) {
        text << ' ' << range.data_epoch << ' ' << range.first << ' ' << range.count;
        if (split()) text << ' ' << range.tasks.bits;
    }
    return text.str();
}

Result<void> Leases::restore(const std::string& saved) {
    Former former;
    former.text.str(saved);
    std::string wrong = read_cursors(former);
    if (wrong.empty()) wrong = read_open(former);
    if (!wrong.empty()) {
        return fail(ErrorCode::bad_checkpoint, "data cursor '" + saved + "': " + wrong);
    }
    cursors_ = std::move(former.cursors);
    finished_ = former.finished;
    given_back_ = std::move(former.open);
    return {};
}

std::string Leases::read_cursors(Former& former) const {
    constexpr const char* kNotThis = "not a data cursor of this format";
    std::istringstream& text = former.text;
    std::string word;
    int format = 0;
    std::uint32_t batches = 0;
    std::uint32_t data_epochs = 0;
    text >> word >> format >> batches >> data_epochs;
    if (!text || word != "leases" || (format != 1 && format != 2)) return kNotThis;
    if ((format == 2) != split()) {
        return std::string("made ") + (format == 2 ? "with" : "without") +
               " worker.split_tasks; resume with worker.split_tasks = " +
               (format == 2 ? "true" : "false");
    }
    if (batches != batches_) {
        return "made with " + std::to_string(batches) + " batches per data epoch, this job has " +
               std::to_string(batches_) + "; resume with the same data and batch size";
    }
    former.cursors = cursors_;
    std::size_t tasks = 1;
    if (split()) text >> tasks;
    if (!text) return kNotThis;
    if (tasks != former.cursors.size()) {
        return "of " + std::to_string(tasks) + " tasks, this job has " +
               std::to_string(former.cursors.size()) +
               " that are trained; resume with the model and [[task]] entries it was made with";
    }
    for (Cursor& cursor : former.cursors) {
        TaskSet of = cursor.tasks;
        if (split()) text >> of.bits;
        text >> cursor.epoch >> cursor.batch;
        if (!text) return kNotThis;
        if (of != cursor.tasks) {
            return "of other tasks (bits): expected " + std::to_string(cursor.tasks.bits) +
                   ", found " + std::to_string(of.bits) +
                   "; resume with the model and [[task]] entries it was made with";
        }
        if (cursor.batch >= std::max(1U, batches)) return "out of range";
        former.leased += std::uint64_t{cursor.epoch} * batches + cursor.batch;
    }
    return {};
}

std::string Leases::read_open(Former& former) const {
    std::istringstream& text = former.text;
    std::size_t open = 0;
    text >> former.finished >> open;
    if (!text) return "not a data cursor of this format";
    if (open > total()) return "out of range";
    std::uint64_t accounted = former.finished;
    for (std::size_t i = 0; i < open; ++i) {
        BatchRange range;
        text >> range.data_epoch >> range.first >> range.count;
        if (split()) text >> range.tasks.bits;
        const auto of = [&](const Cursor& cursor) { return cursor.tasks == range.tasks; };
        if (!text || range.count == 0 || std::none_of(cursors_.begin(), cursors_.end(), of) ||
            std::uint64_t{range.first} + range.count > batches_) {
            return "truncated or out of range";
        }
        accounted += range.count;
        if (range.data_epoch < data_epochs_) former.open.push_back(range);
    }
    if (accounted == former.leased) return {};
    return std::to_string(former.leased) + " batches were leased, " + std::to_string(accounted) +
           " are finished or open";
}

}  // namespace detente
