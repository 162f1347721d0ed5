#include "common/runtime/zmq/loop.h"

#include <algorithm>
#include <utility>

#include "common/invariant.h"
#include "common/runtime/disk.h"

namespace detente {
namespace {

constexpr Nanos kFlushInterval = std::chrono::milliseconds(100);

template <class... Cases>
struct Overloaded : Cases... {
    using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

Error nobody_to_average_with() {
    return fail(ErrorCode::not_supported, "this process has nobody to average gradients with");
}

// Not inlined: GCC 12 takes the other alternative of the result for read, and warns.
[[gnu::noinline]] WorkResult nothing_to_compute_with() {
    return fail(ErrorCode::not_supported, "this process has nothing to compute with");
}

}  // namespace

ZmqLoop::ZmqLoop(ZmqLoopOptions options) : options_(std::move(options)) {}

Result<std::unique_ptr<ZmqLoop>> ZmqLoop::open(ZmqLoopOptions options) {
    std::unique_ptr<ZmqLoop> loop(new ZmqLoop(std::move(options)));
    auto transport = Transport::open(loop->options_, loop->counters_, loop->wakeup_);
    if (!transport) return transport.error();
    loop->transport_ = std::move(*transport);
    if (loop->options_.computer != nullptr) {
        loop->compute_ = std::make_unique<ComputeThread>(*loop->options_.computer, loop->inbox_);
    }
    return loop;
}

ZmqLoop::~ZmqLoop() {
    if (compute_) compute_->stop();
    if (disk_) disk_->stop();
}

Time ZmqLoop::now() const {
    return Time{std::chrono::duration_cast<Nanos>(std::chrono::steady_clock::now() - start_)};
}

LoopCounters ZmqLoop::counters() const {
    LoopCounters out = counters_.read();
    out.dropped += posts_dropped_.load(std::memory_order_relaxed);
    return out;
}

void ZmqLoop::log(LogLevel level, std::string_view text) const {
    if (options_.log) options_.log(level, text);
}

void ZmqLoop::post(Event event) {
    if (!inbox_.post(std::move(event))) posts_dropped_.fetch_add(1, std::memory_order_relaxed);
}

void ZmqLoop::deliver(Event event) { inbox_.deliver(std::move(event), nullptr); }

Outcome ZmqLoop::run(Node& node) {
    invariant(!std::exchange(ran_, true), "a loop runs once");
    node_ = &node;
    dispatch(Started{});
    while (!finished_) round();
    wind_down();
    return outcome_;
}

void ZmqLoop::round() {
    bool busy = take_posted();
    busy |= take_returned();
    busy |= fire_timers();
    if (finished_) return;
    const auto received = transport_->receive([this](Message&& message) {
        dispatch(Received{std::move(message)});
        return !finished_;
    });
    busy |= received > 0;
    if (finished_) return;
    transport_->retry_waiting(now());
    flush_ledger(false);
    if (busy) return;
    transport_->wait(most_sleep(),
                     [this] { return inbox_.empty() && transport_->sent().none_returned(); });
}

// ---- events ----

void ZmqLoop::dispatch(Event&& event) {
    if (finished_) return;
    const Time at = now();
    const auto* received = std::get_if<Received>(&event);
    answering_.reset();
    if (received != nullptr) answering_ = received->message.envelope.from;
    dispatched_ = at;
    node_->on(std::move(event), at, effects_);
    release(at);
}

bool ZmqLoop::take_posted() {
    Posted* oldest = inbox_.take();
    const bool any = oldest != nullptr;
    while (oldest != nullptr) {
        const std::unique_ptr<Posted> posted(std::exchange(oldest, oldest->next));
        // What the work held is let go before the node is told: use counts it reads are exact.
        const bool held = posted->kept != nullptr;
        posted->kept.reset();
        if (const auto* ended = std::get_if<ComputeEnded>(&posted->event)) {
            compute_->ended(ended->ticket);
        }
        const bool stored = held && std::holds_alternative<Stored>(posted->event);
        take_control(std::move(posted->event));
        if (stored) dispatch(BuffersReturned{});
    }
    dispatch_deferred();
    return any;
}

// What the coordinator says of peers concerns the transport first.
void ZmqLoop::take_control(Event&& event) {
    if (auto* received = std::get_if<Received>(&event)) {
        if (const auto* welcome = std::get_if<Welcome>(&received->message.body)) {
            for (const Endpoint& peer : welcome->peers) transport_->learn(peer);
        } else if (auto* change = std::get_if<PeerChange>(&received->message.body)) {
            if (change->up) {
                transport_->learn(change->endpoint);
                event = PeerUp{change->node, change->incarnation};
            } else {
                event = PeerDown{change->node, change->incarnation, std::string(change->reason)};
            }
        }
    }
    if (const auto* down = std::get_if<PeerDown>(&event)) {
        transport_->forget(down->node, down->incarnation);
    }
    dispatch(std::move(event));
}

bool ZmqLoop::take_returned() {
    if (transport_->sent().drain() == 0) return false;
    transport_->retry_waiting(now());
    dispatch(BuffersReturned{});
    return true;
}

bool ZmqLoop::fire_timers() {
    const Time due = now();
    bool any = false;
    while (auto fired = timers_.take_due(due)) {
        dispatch(*fired);
        any = true;
    }
    dispatch_deferred();
    return any;
}

void ZmqLoop::dispatch_deferred() {
    while (!deferred_.empty()) {
        std::vector<Event> events = std::exchange(deferred_, {});
        for (Event& event : events) dispatch(std::move(event));
    }
}

// ---- effects ----

void ZmqLoop::release(Time emitted) {
    std::swap(releasing_, effects_.buffered());
    for (Effect& effect : releasing_) apply(std::move(effect), emitted);
    releasing_.clear();
}

void ZmqLoop::apply(Effect&& effect, Time emitted) {
    std::visit(Overloaded{
                   [&](SendEffect& e) { send(e.to, std::move(e.message), emitted); },
                   [&](TimerEffect& e) { timers_.start(e.id, emitted + e.delay, e.tag); },
                   [&](CancelTimerEffect& e) { timers_.cancel(e.id); },
                   [&](ComputeEffect& e) { start_compute(e.ticket, std::move(e.work)); },
                   [&](CancelTicketEffect& e) {
                       if (compute_) compute_->cancel(e.ticket);
                   },
                   [&](StoreEffect& e) { start_store(e.ticket, std::move(e.operation)); },
                   [&](FormEffect& e) { start_form(std::move(e.group), e.deadline); },
                   [&](ReduceEffect& e) { start_reduce(std::move(e)); },
                   [&](RecordEffect& e) {
                       if (options_.ledger == nullptr) return;
                       ledger_dirty_ = true;
                       if (auto kept = options_.ledger->append(e.entry); !kept) {
                           ledger_failed(kept.error());
                       } else if (std::holds_alternative<ShareRecord>(e.entry.record)) {
                           // Others go on with what it says, should this process be killed.
                           flush_ledger(true);
                       }
                   },
                   [&](LogEffect& e) { log(e.level, e.text); },
                   [&](FinishEffect& e) {
                       if (!std::exchange(finished_, true)) outcome_ = std::move(e.outcome);
                   },
               },
               effect);
}

void ZmqLoop::send(NodeId to, Message&& message, Time emitted) {
    Nanos& handled = message.envelope.handled;
    handled = Nanos{0};
    if (answering_ == to) handled = std::max(Nanos{1}, now() - dispatched_);  // 0: no answer
    if (to != kCoordinator) {
        transport_->send(to, std::move(message), emitted);
        return;
    }
    if (options_.control == nullptr) {
        counters_.dropped.add(1);
        return;
    }
    transport_->fill_envelope(message.envelope, to);
    report_refusals(message.body);
    options_.control->send(std::move(message));
}

// What the transport refuses never reaches the node: what the node reports goes out with it.
void ZmqLoop::report_refusals(Body& body) const {
    auto* status = std::get_if<Status>(&body);
    if (auto* stopped = std::get_if<Stopped>(&body)) status = &stopped->last;
    if (status == nullptr) return;
    for (std::size_t code = 0; code < kErrorCodes; ++code) {
        const std::uint64_t count = counters_.refused[code].read();
        if (count == 0) continue;
        status->values.push_back(
            {std::string("refused.transport.") + name_of(static_cast<ErrorCode>(code)),
             static_cast<double>(count)});
    }
}

void ZmqLoop::start_compute(Ticket ticket, Work&& work) {
    if (compute_) {
        compute_->submit(ticket, std::move(work));
        return;
    }
    deferred_.emplace_back(ComputeEnded{ticket, nothing_to_compute_with()});
}

void ZmqLoop::start_form(Group&& group, Nanos deadline) {
    if (options_.reducer != nullptr) return options_.reducer->form(std::move(group), deadline);
    deferred_.emplace_back(GroupFormed{group.epoch, nobody_to_average_with()});
}

void ZmqLoop::start_reduce(ReduceEffect&& effect) {
    if (options_.reducer != nullptr) {
        return options_.reducer->reduce(effect.key, std::move(effect.share), effect.deadline);
    }
    deferred_.emplace_back(Reduced{
        {effect.key, Broken{nobody_to_average_with(), {}}, std::move(effect.share.gradient)}});
}

void ZmqLoop::start_store(Ticket ticket, StoreOp&& operation) {
    if (!disk_) disk_ = std::make_unique<SideThread>("disk");
    // The pieces go back to the loop's thread as they are written, and are let go there; those of a
    // write that failed go back with the result.
    auto kept = std::make_shared<StoreOp>(std::move(operation));
    disk_->submit([this, ticket, kept]() mutable {
        auto result = write_whole_file(std::move(*kept), [this](std::vector<Payload>&& written) {
            inbox_.deliver(BuffersReturned{},
                           std::make_shared<std::vector<Payload>>(std::move(written)));
        });
        inbox_.deliver(Stored{ticket, std::move(result)}, std::move(kept));
    });
}

// ---- ledger ----

void ZmqLoop::flush_ledger(bool now_or_never) {
    if (!ledger_dirty_) return;
    const Time at = now();
    if (!now_or_never && at - last_flush_ < kFlushInterval) return;
    last_flush_ = at;
    ledger_dirty_ = false;
    if (auto flushed = options_.ledger->flush(); !flushed) ledger_failed(flushed.error());
}

void ZmqLoop::ledger_failed(const Error& error) {
    log(LogLevel::error, "ledger: " + error.text);
    deferred_.emplace_back(Stored{Ticket{0}, error});
}

// ---- sleeping and ending ----

std::optional<Nanos> ZmqLoop::most_sleep() {
    const Time at = now();
    std::optional<Nanos> most;
    if (!deferred_.empty()) return Nanos{0};
    if (const auto earliest = timers_.earliest()) most = *earliest - at;
    if (ledger_dirty_) {
        const Nanos flush_in = last_flush_ + kFlushInterval - at;
        most = std::min(most.value_or(flush_in), flush_in);
    }
    return most;
}

void ZmqLoop::wind_down() {
    flush_ledger(true);
    const Time end = now() + options_.linger;
    while (transport_->has_waiting() && now() < end) {
        transport_->wait(end - now(), [this] { return transport_->sent().none_returned(); });
        transport_->sent().drain();
        transport_->retry_waiting(now());
    }
    if (compute_) compute_->stop();
    if (options_.reducer != nullptr) options_.reducer->stop();
    if (disk_) disk_->stop();
    while (Posted* posted = inbox_.take()) {
        while (posted != nullptr) {
            const std::unique_ptr<Posted> dropped(std::exchange(posted, posted->next));
            if (const auto* ended = std::get_if<ComputeEnded>(&dropped->event)) {
                compute_->ended(ended->ticket);
            }
        }
    }
    transport_->close(options_.linger);
}

}  // namespace detente
