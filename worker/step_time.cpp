#include "worker/step_time.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace detente {
namespace {

StepTime::Parts& operator+=(StepTime::Parts& sum, const StepTime::Parts& more) {
    sum.compute += more.compute;
    sum.wait += more.wait;
    sum.wire += more.wire;
    sum.queue += more.queue;
    sum.apply += more.apply;
    return sum;
}

}  // namespace

Nanos LeastOfLast::with(Nanos value) {
    if (in_block_ == kBlock) {
        before_ = std::exchange(now_, Nanos::max());
        in_block_ = 0;
    }
    ++in_block_;
    now_ = std::min(now_, value);
    return std::min(before_, now_);
}

void StepTime::gradient_begins(Time now) {
    close(now);
    in_step_ = true;
    computing_ = true;
    since_ = now;
}

void StepTime::computation_ends(Time now) {
    if (!std::exchange(computing_, false)) return;
    step_.compute += now - since_;
    since_ = now;
    trips_.clear();
}

void StepTime::next_half_begins(Time now) {
    if (!in_step_ || std::exchange(computing_, true)) return;
    step_.wait += now - since_;
    since_ = now;
}

void StepTime::ends(Time now) {
    close(now);
    in_step_ = false;
    trips_.clear();
}

void StepTime::close(Time now) {
    if (!in_step_) return;
    if (computing_) {
        computation_ends(now);
    } else {
        add_blocked(now);
    }
    total_ += std::exchange(step_, {});
    ++steps_;
}

LeastOfLast& StepTime::way_of(ShardId shard, const Answered& answer) {
    if (ways_.size() <= shard.value) ways_.resize(shard.value + 1);
    std::vector<Way>& ways = ways_[shard.value];
    const auto size = static_cast<std::uint8_t>(std::bit_width(answer.bytes));
    const auto found = std::find_if(ways.begin(), ways.end(), [&](const Way& way) {
        return way.asked == answer.asked && way.size == size;
    });
    if (found != ways.end()) return found->wire;
    return ways.emplace_back(Way{answer.asked, size, {}}).wire;
}

void StepTime::answered(ShardId shard, const Answered& answer, Nanos handled, Time now) {
    RoundTrip trip;
    trip.sent = answer.sent;
    trip.received = now;
    if (answer.straight) {
        const Nanos whole = now - answer.sent;
        trip.apply = std::min(handled, whole);
        const Nanos rest = whole - trip.apply;
        trip.wire = way_of(shard, answer).with(rest);
        trip.queue = rest - trip.wire;
    }
    if (in_step_ && !computing_) trips_.push_back(trip);
}

void StepTime::add_blocked(Time until) {
    for (auto trip = trips_.rbegin(); trip != trips_.rend() && until > since_; ++trip) {
        if (trip->received > until) continue;  // beside the one that came last
        step_.wait += until - trip->received;
        const Time from = std::clamp(trip->sent, since_, trip->received);
        add_share(*trip, trip->received - from);
        until = from;
    }
    if (until > since_) step_.wait += until - since_;
    trips_.clear();
}

void StepTime::add_share(const RoundTrip& trip, Nanos blocked) {
    const Nanos whole = trip.wire + trip.queue + trip.apply;
    if (whole == Nanos{0}) {
        step_.wait += blocked;
        return;
    }
    const double share = static_cast<double>(blocked.count()) / static_cast<double>(whole.count());
    const auto part = [share](Nanos of, Nanos most) {
        const Nanos scaled{static_cast<std::int64_t>(static_cast<double>(of.count()) * share)};
        return std::min(scaled, most);
    };
    const Nanos apply = part(trip.apply, blocked);
    const Nanos queue = part(trip.queue, blocked - apply);
    step_.apply += apply;
    step_.queue += queue;
    step_.wire += blocked - apply - queue;
}

}  // namespace detente
