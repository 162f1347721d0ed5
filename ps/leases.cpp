#include "ps/leases.h"

#include <algorithm>
#include <sstream>

namespace detente {

Leases::Leases(std::uint32_t batches, std::uint32_t data_epochs, std::uint32_t lease_batches,
               std::uint32_t workers)
    : batches_(batches),
      data_epochs_(data_epochs),
      lease_batches_(std::max(1U, lease_batches)),
      workers_(std::max(1U, workers)) {}

std::uint64_t Leases::total() const { return std::uint64_t{batches_} * data_epochs_; }

void Leases::request(WorkerId worker, const LeaseRequest& request) {
    Client& client = clients_[worker];
    if (request.request < client.last_request) return;  // overtaken by a later one
    if (request.request == client.last_request) {  // sent again: the same answer, if there is one
        if (!client.waiting) due_.push_back({worker, client.last_reply});
        return;
    }
    client.last_request = request.request;
    for (const BatchRange& range : request.finished) finish(client, range);
    client.waiting = request.wants_more;
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
        if (held.data_epoch != range.data_epoch || from >= to) {
            rest.push_back(held);
            continue;
        }
        finished_ += to - from;
        if (held.first < from) rest.push_back({held.data_epoch, held.first, from - held.first});
        if (to < held_end) rest.push_back({held.data_epoch, to, held_end - to});
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

void Leases::grant(WorkerId worker, Client& client) {
    BatchRange range;
    if (!given_back_.empty()) {
        range = given_back_.front();
        given_back_.pop_front();
    } else {
        // Towards the end leases shrink, so that no worker is left with the last long one.
        const std::uint64_t left = total() - (std::uint64_t{epoch_} * batches_ + batch_);
        const std::uint64_t fair = std::max<std::uint64_t>(1, left / (2ULL * workers_));
        const auto count = static_cast<std::uint32_t>(
            std::min<std::uint64_t>({lease_batches_, fair, batches_ - batch_}));
        range = {epoch_, batch_, count};
        batch_ += count;
        if (batch_ == batches_) {
            batch_ = 0;
            ++epoch_;
        }
    }
    leased_ += range.count;
    client.outstanding.push_back(range);
    changes_.push_back({true, worker, range});
}

std::vector<Leases::Answer> Leases::answers() {
    for (auto next = waiting_.begin(); next != waiting_.end();) {
        const WorkerId worker = *next;
        Client& client = clients_.at(worker);
        const bool something = !given_back_.empty() || (epoch_ < data_epochs_ && batches_ > 0);
        if (something) grant(worker, client);
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

std::string Leases::save() const {
    std::ostringstream text;
    text << "leases 1 " << batches_ << ' ' << data_epochs_ << ' ' << epoch_ << ' ' << batch_ << ' '
         << finished_ << ' ';
    std::vector<BatchRange> open(given_back_.begin(), given_back_.end());
    for (const auto& [worker, client] : clients_) {
        open.insert(open.end(), client.outstanding.begin(), client.outstanding.end());
    }
    text << open.size();
    for (const BatchRange& range : open) {
        text << ' ' << range.data_epoch << ' ' << range.first << ' ' << range.count;
    }
    return text.str();
}

Result<void> Leases::restore(const std::string& saved) {
    const auto bad = [&](const std::string& why) {
        return fail(ErrorCode::bad_checkpoint, "data cursor '" + saved + "': " + why);
    };
    std::istringstream text(saved);
    std::string word;
    int format = 0;
    std::uint32_t batches = 0;
    std::uint32_t data_epochs = 0;
    std::uint32_t epoch = 0;
    std::uint32_t batch = 0;
    std::uint64_t finished = 0;
    std::size_t open = 0;
    text >> word >> format >> batches >> data_epochs >> epoch >> batch >> finished >> open;
    if (!text || word != "leases" || format != 1) return bad("not a data cursor of this format");
    if (batches != batches_) {
        return bad("made with " + std::to_string(batches) +
                   " batches per data epoch, this job has " + std::to_string(batches_) +
                   "; resume with the same data and batch size");
    }
    if (batch >= std::max(1U, batches) || open > total()) return bad("out of range");
    std::deque<BatchRange> ranges;
    std::uint64_t accounted = finished;
    for (std::size_t i = 0; i < open; ++i) {
        BatchRange range;
        text >> range.data_epoch >> range.first >> range.count;
        if (!text || range.count == 0 || std::uint64_t{range.first} + range.count > batches) {
            return bad("truncated or out of range");
        }
        accounted += range.count;
        if (range.data_epoch < data_epochs_) ranges.push_back(range);
    }
    const std::uint64_t leased = std::uint64_t{epoch} * batches + batch;
    if (accounted != leased) {
        return bad(std::to_string(leased) + " batches were leased, " + std::to_string(accounted) +
                   " are finished or open");
    }
    epoch_ = epoch;
    batch_ = batch;
    finished_ = finished;
    given_back_ = std::move(ranges);
    return {};
}

}  // namespace detente
