#include "worker/collectives/mpi/mpi_collective.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

#include "common/collective/average.h"
#include "common/invariant.h"

namespace detente {

namespace {

// MPI wakes nobody and works only while it is called: asked without pause while it sums, seldom
// while a key waits for a member, more seldom with nothing in flight.
constexpr Nanos kAskWaiting = std::chrono::microseconds(100);
constexpr int kMostLooks = 20'000;  // without pause, some milliseconds
constexpr Nanos kAskIdle = std::chrono::milliseconds(2);
// What the first member has to answer, after a deadline, before it is itself what is missing.
constexpr Nanos kGrace = std::chrono::milliseconds(500);

std::uint64_t bit(std::size_t member) { return std::uint64_t{1} << member; }

}  // namespace

MpiCollective::MpiCollective(Group group, WorkerId self, std::vector<int> ranks,
                             MPI_Comm communicator, Notes& notes, Abandoned& abandoned)
    : group_(std::move(group)),
      self_(self),
      index_(group_.index_of(self)),
      ranks_(std::move(ranks)),
      communicator_(communicator),
      notes_(notes),
      abandoned_(abandoned) {}

MpiCollective::~MpiCollective() {
    const Note leaving = note_of(NoteKind::leaving, {group_.epoch, {}, {}});
    if (!broken_ && is_first()) tell_others(leaving);
    if (!broken_ && !is_first()) tell(0, leaving);  // which tells the others
    // The communicator is kept: freeing it is for all of its members together.
    for (auto& [key, entry] : entries_) {
        if (entry.request == MPI_REQUEST_NULL) continue;
        abandoned_.sums.push_back({entry.request, std::move(entry.sum)});
    }
}

CollectiveKey MpiCollective::key_in(const Note& note) const {
    return {group_.epoch, {note.step}, {note.bucket}};
}

Note MpiCollective::note_of(NoteKind kind, const CollectiveKey& key) const {
    Note note;
    note.kind = kind;
    note.index = static_cast<std::uint32_t>(index_);
    note.epoch = group_.epoch.value;
    note.step = key.step.value;
    note.bucket = key.bucket.value;
    return note;
}

void MpiCollective::tell(std::size_t member, const Note& note) {
    if (member == index_) {
        hear(note);
        return;
    }
    if (const auto sent = notes_.send(ranks_[member], note); sent.has_error()) {
        set_broken(bit(member), ErrorCode::peer_lost, key_in(note));
    }
}

void MpiCollective::tell_others(const Note& note) {
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
        if (i != index_) tell(i, note);
    }
}

Result<GradientBuffer> MpiCollective::buffer(std::size_t bytes) {
    auto memory = std::make_shared<AlignedBuffer>(bytes);
    const std::span<std::byte> whole{memory->data(), bytes};
    return GradientBuffer{std::move(memory), whole};
}

Result<void> MpiCollective::begin(const CollectiveKey& key, GradientShare share, Time deadline) {
    if (auto refused = keys_.check(group_, broken_, key, share); refused.has_error()) {
        return refused;
    }
    if (share.elements > static_cast<std::uint64_t>(std::numeric_limits<int>::max())) {
        return fail(ErrorCode::over_limit, "MPI sums at most 2147483647 elements at once, not " +
                                               std::to_string(share.elements));
    }
    Note joined = note_of(NoteKind::joined, key);
    joined.elements = share.elements;
    joined.weights[0] = share.weight;
    keys_.add(key, deadline);
    entries_.emplace(key, Entry{std::move(share)});
    tell(0, joined);
    return {};
}

std::vector<CollectiveEnd> MpiCollective::poll(Time now) {
    for (;;) {
        auto note = notes_.take();
        if (note.has_error()) {
            fail_here(note.error(), {group_.epoch, {}, {}});
            break;
        }
        if (!note->has_value()) break;
        looks_ = 0;
        hear(**note);
    }
    look_at_sums();
    for (const CollectiveKey& key : keys_.overdue(now)) {
        Entry& entry = entries_.at(key);
        if (is_first()) {
            miss(key);
        } else if (!std::exchange(entry.asked, true)) {
            tell(0, note_of(NoteKind::overdue, key));
            keys_.remove(key);
            keys_.add(key, now + kGrace);
        } else {
            set_broken(bit(0), ErrorCode::timed_out, key);
        }
    }
    if (broken_) end_all_broken();
    return std::exchange(ends_, {});
}

void MpiCollective::hear(const Note& note) {
    // What still comes from an old epoch is of no group any more.
    if (note.epoch != group_.epoch.value || broken_) return;
    const CollectiveKey key = key_in(note);
    switch (note.kind) {
        case NoteKind::joined:
            hear_joined(key, note);
            break;
        case NoteKind::sum:
            start_sum(key, {note.weights, note.weights + group_.members.size()});
            break;
        case NoteKind::summed:
            hear_summed(key, note.index);
            break;
        case NoteKind::done:
            end_done(key);
            break;
        case NoteKind::overdue:
            miss(key);
            break;
        case NoteKind::leaving:
            if (is_first()) decide_broken(bit(note.index), ErrorCode::peer_lost, key);
            if (note.index == 0) set_broken(bit(0), ErrorCode::peer_lost, key);
            break;
        case NoteKind::broken:
            set_broken(note.missing, static_cast<ErrorCode>(note.reason), key);
            break;
        case NoteKind::hello:
        case NoteKind::welcome:
        case NoteKind::refused:
            break;  // of a forming that was given up
    }
}

void MpiCollective::hear_joined(const CollectiveKey& key, const Note& note) {
    Known& known = known_[key];
    known.elements.resize(group_.members.size());
    known.weights.resize(group_.members.size());
    known.joined |= bit(note.index);
    known.elements[note.index] = note.elements;
    known.weights[note.index] = note.weights[0];
    if (known.joined != all()) return;
    if (const std::uint64_t others = disagreeing(known.elements); others != 0) {
        decide_broken(others, ErrorCode::bad_length, key);
        return;
    }
    known.is_summing = true;
    Note sum = note_of(NoteKind::sum, key);
    std::copy(known.weights.begin(), known.weights.end(), sum.weights);
    // Itself last: it may be the only member, and then forgets the key while it hears.
    tell_others(sum);
    hear(sum);
}

void MpiCollective::hear_summed(const CollectiveKey& key, std::size_t member) {
    const auto found = known_.find(key);
    if (found == known_.end()) return;
    found->second.summed |= bit(member);
    if (found->second.summed != all()) return;
    known_.erase(found);
    const Note done = note_of(NoteKind::done, key);
    tell_others(done);
    hear(done);
}

void MpiCollective::miss(const CollectiveKey& key) {
    const auto found = known_.find(key);
    if (found == known_.end() && !entries_.contains(key)) return;  // it is done
    std::uint64_t missing = all();
    if (found != known_.end()) {
        missing &= ~(found->second.is_summing ? found->second.summed : found->second.joined);
    }
    decide_broken(missing, ErrorCode::timed_out, key);
}

void MpiCollective::decide_broken(std::uint64_t missing, ErrorCode code, const CollectiveKey& key) {
    if (broken_) return;
    Note note = note_of(NoteKind::broken, key);
    note.missing = missing;
    note.reason = static_cast<std::uint32_t>(code);
    set_broken(missing, code, key);
    tell_others(note);
}

void MpiCollective::set_broken(std::uint64_t missing, ErrorCode code, const CollectiveKey& key) {
    if (broken_) return;
    const std::string names = group_.names_of(missing);
    std::string text =
        names + " had not done its part of " + to_string(key) + " when a deadline passed";
    if (code == ErrorCode::peer_lost) {
        text = names + " is gone, or has left the group of epoch " +
               std::to_string(group_.epoch.value);
    }
    if (code == ErrorCode::bad_length) {
        text = names + " disagrees with " + group_.names_of(1) + " about the elements of " +
               to_string(key) + "; all must average the same blocks";
    }
    if (code == ErrorCode::io) text = "MPI failed at " + names + " during " + to_string(key);
    broken_ = Broken{fail(code, text), group_.ids_of(missing)};
}

void MpiCollective::fail_here(const Error& error, const CollectiveKey& key) {
    if (broken_) return;
    if (is_first()) {
        decide_broken(bit(index_), ErrorCode::io, key);
    } else {
        tell(0, note_of(NoteKind::leaving, key));
        set_broken(bit(index_), ErrorCode::io, key);
    }
    broken_->error.text += "; here: " + error.text;
}

void MpiCollective::start_sum(const CollectiveKey& key, const std::vector<double>& weights) {
    Entry& entry = entries_.at(key);
    const MeanShares shares = mean_shares(weights);
    entry.weight_sum = shares.weight_sum;
    if (shares.weight_sum == 0 || entry.share.elements == 0) {
        entry.stage = Stage::summed;
        tell(0, note_of(NoteKind::summed, key));
        return;
    }
    entry.sum = std::make_shared<AlignedBuffer>(entry.share.elements * sizeof(float));
    if (entry.share.weight > 0) {
        const auto* gradient = reinterpret_cast<const float*>(entry.share.gradient.bytes.data());
        write_mean(std::span(&shares.of[index_], 1), std::span(&gradient, 1), 0,
                   entry.sum->floats());
    } else {
        std::memset(entry.sum->data(), 0, entry.sum->size());
    }
    entry.stage = Stage::summing;
    const int code =
        MPI_Iallreduce(MPI_IN_PLACE, entry.sum->data(), static_cast<int>(entry.share.elements),
                       MPI_FLOAT, MPI_SUM, communicator_, &entry.request);
    if (code != MPI_SUCCESS) fail_here(mpi_error("MPI_Iallreduce", code), key);
}

void MpiCollective::look_at_sums() {
    std::vector<CollectiveKey> summed;
    for (auto& [key, entry] : entries_) {
        if (entry.stage != Stage::summing || broken_) continue;
        int ended = 0;
        const int code = MPI_Test(&entry.request, &ended, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS) {
            fail_here(mpi_error("MPI_Test of a sum", code), key);
        } else if (ended != 0) {
            entry.stage = Stage::summed;
            looks_ = 0;
            summed.push_back(key);
        }
    }
    for (const CollectiveKey& key : summed) tell(0, note_of(NoteKind::summed, key));
}

void MpiCollective::end_done(const CollectiveKey& key) {
    const auto found = entries_.find(key);
    invariant(found != entries_.end(), "a key is done once");
    Entry& entry = found->second;
    CollectiveEnd end{key, Weightless{}, std::move(entry.share.gradient)};
    if (entry.weight_sum > 0) {
        if (!entry.sum) entry.sum = std::make_shared<AlignedBuffer>(0);
        end.result = Averaged{payload_of(std::move(entry.sum)), entry.weight_sum};
    }
    ends_.push_back(std::move(end));
    keys_.remove(key);
    entries_.erase(found);
}

void MpiCollective::end_all_broken() {
    for (auto& [key, entry] : entries_) {
        ends_.push_back({key, *broken_, std::move(entry.share.gradient)});
        keys_.remove(key);
        if (entry.request != MPI_REQUEST_NULL) {
            abandoned_.sums.push_back({entry.request, std::move(entry.sum)});
        }
    }
    entries_.clear();
    known_.clear();
}

void MpiCollective::wait(Nanos at_most) {
    bool sums = false;
    for (const auto& [key, entry] : entries_) sums = sums || entry.stage != Stage::joined;
    if (sums && ++looks_ < kMostLooks) {
        ::sched_yield();
        return;
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::min(at_most, entries_.empty() ? kAskIdle : kAskWaiting),
                      [this] { return woken_; });
    woken_ = false;
}

void MpiCollective::wake() {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    changed_.notify_all();
}

}  // namespace detente
