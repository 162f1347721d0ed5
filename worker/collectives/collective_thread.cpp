#include "worker/collectives/collective_thread.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace detente {

namespace {
// Who has nothing in flight looks for losses this often, not to be told of one too late to re-form.
constexpr Nanos kIdleWait = std::chrono::milliseconds(500);

Time now() {
    return Time(
        std::chrono::duration_cast<Nanos>(std::chrono::steady_clock::now().time_since_epoch()));
}
}  // namespace

CollectiveThread::CollectiveThread(CollectiveBackend& backend, WorkerId self, CollectiveSink sink)
    : backend_(backend), self_(self), sink_(std::move(sink)), thread_([this] { run(); }) {
    pthread_setname_np(thread_.native_handle(), "collective");
}

void CollectiveThread::form(Group group, Nanos deadline) {
    submit(Forming{std::move(group), deadline});
}

void CollectiveThread::begin(const CollectiveKey& key, GradientShare share, Nanos deadline) {
    submit(Beginning{key, std::move(share), deadline});
}

void CollectiveThread::submit(Request request) {
    const std::lock_guard lock(mutex_);
    requests_.push_back(std::move(request));
    changed_.notify_one();
    if (collective_) collective_->wake();
}

Result<GradientBuffer> CollectiveThread::buffer(std::size_t bytes) {
    std::shared_ptr<Collective> collective;
    {
        const std::lock_guard lock(mutex_);
        collective = collective_;
    }
    if (!collective) return fail(ErrorCode::peer_lost, "no group is formed to average in");
    return collective->buffer(bytes);
}

void CollectiveThread::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        changed_.notify_one();
        if (collective_) collective_->wake();
    }
    if (thread_.joinable()) thread_.join();
}

void CollectiveThread::run() {
    while (take_requests()) {
        if (collective_) {
            poll_once();
            sleep();
        }
    }
    give_up_what_is_in_flight();
    const std::lock_guard lock(mutex_);
    collective_.reset();
}

bool CollectiveThread::take_requests() {
    for (;;) {
        Request request;
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [this] { return stopping_ || collective_ || !requests_.empty(); });
            if (stopping_) return false;
            if (requests_.empty()) return true;
            request = std::move(requests_.front());
            requests_.pop_front();
        }
        if (auto* forming = std::get_if<Forming>(&request)) do_form(*forming);
        if (auto* beginning = std::get_if<Beginning>(&request)) do_begin(std::move(*beginning));
    }
}

void CollectiveThread::do_form(const Forming& forming) {
    give_up_what_is_in_flight();
    std::shared_ptr<Collective> last;
    {
        const std::lock_guard lock(mutex_);
        last = std::move(collective_);
    }
    last.reset();
    auto formed = backend_.form(forming.group, self_, forming.deadline);
    told_broken_ = false;
    if (formed.has_value()) {
        const std::lock_guard lock(mutex_);
        collective_ = std::move(*formed);
    }
    sink_.formed(forming.group.epoch,
                 formed.has_value() ? Result<void>() : Result<void>(formed.error()));
}

void CollectiveThread::do_begin(Beginning beginning) {
    Payload gradient = beginning.share.gradient;
    Result<void> begun = fail(ErrorCode::peer_lost, "no group is formed to average in");
    if (collective_) {
        begun = collective_->begin(beginning.key, std::move(beginning.share),
                                   now() + beginning.deadline);
    }
    if (begun.has_value()) {
        in_flight_.emplace_back(beginning.key, std::move(gradient));
        return;
    }
    Broken broken{begun.error(), {}};
    if (collective_ && collective_->broken()) {
        broken.missing = collective_->broken()->missing;
    } else if (collective_ && beginning.key.epoch == collective_->group().epoch) {
        // The others would wait for it until their deadline, and then take it for late.
        collective_->give_up(beginning.key, begun.error());
    }
    beginning.share.gradient = {};
    sink_.ended({beginning.key, std::move(broken), std::move(gradient)});
}

void CollectiveThread::give_up_what_is_in_flight() {
    for (auto& [key, gradient] : in_flight_) {
        const Error error = fail(ErrorCode::cancelled, to_string(node_of(self_)) +
                                                           " left the group of " + to_string(key));
        sink_.ended({key, Broken{error, {self_}}, std::move(gradient)});
    }
    in_flight_.clear();
}

void CollectiveThread::poll_once() {
    for (CollectiveEnd& end : collective_->poll(now())) {
        std::erase_if(in_flight_, [&end](const auto& one) { return one.first == end.key; });
        sink_.ended(std::move(end));
    }
    if (collective_->broken() && !std::exchange(told_broken_, true)) {
        sink_.broken(collective_->group().epoch, *collective_->broken());
    }
}

void CollectiveThread::sleep() {
    {
        const std::lock_guard lock(mutex_);
        if (stopping_ || !requests_.empty()) return;
    }
    Nanos at_most = kIdleWait;
    if (const auto deadline = collective_->next_deadline()) {
        at_most = std::clamp(*deadline - now(), Nanos::zero(), kIdleWait);
    }
    collective_->wait(at_most);
}

}  // namespace detente
