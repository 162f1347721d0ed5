#include "worker/sync_rounds.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/invariant.h"

namespace detente {
namespace {

constexpr std::uint32_t kNotes = 0;
constexpr std::uint64_t kDigit = 1U << 16U;
constexpr std::size_t kEpochDigits = 2;
constexpr std::size_t kVersionDigits = 4;
constexpr std::size_t kBlockDigits = kEpochDigits + kVersionDigits;

void write_digits(std::span<float> out, std::uint64_t value) {
    for (float& digit : out) {
        digit = static_cast<float>(value % kDigit);
        value /= kDigit;
    }
}

std::vector<float> floats_of(const Payload& payload) {
    std::vector<float> floats(payload.size() / sizeof(float));
    std::memcpy(floats.data(), payload.bytes.data(), payload.size());
    return floats;
}

GradientShare share_of(const std::vector<float>& values, double weight) {
    return {values.size(), weight, copy_of(std::as_bytes(std::span(values)))};
}

// A member says whether it takes part, and at which version of each block it computes.
std::uint64_t notes_of_member(std::size_t blocks) { return 1 + kBlockDigits * blocks; }

}  // namespace

std::uint64_t round_bytes(const Plan& plan, std::size_t tasks, std::size_t members) {
    const InStepRows rows(plan, tasks);
    const std::size_t blocks = rows.blocks().size();
    std::uint64_t bytes = 0;
    const auto add = [&bytes](std::uint64_t elements) {
        bytes += (elements * sizeof(float) + 63) / 64 * 64;
    };
    add(members * notes_of_member(blocks));
    for (std::uint32_t task = 0; task < tasks; ++task) add(rows.elements(TaskId{task}));
    add(blocks);
    return bytes;
}

SyncRounds::SyncRounds(WorkerId self, const Plan& plan, const Job& job, std::size_t tasks)
    : self_(self),
      deadline_(job.sync_deadline),
      form_deadline_(std::min(job.sync_deadline, job.peer_deadline)),
      rows_(plan, tasks) {}

// ---- the group ----

bool SyncRounds::form(Group group, Effects& effects) {
    if (group.epoch <= this->group().epoch) return false;
    const bool told = this->group().members.size() > 1 || group.members.size() > 1;
    state_ = State::forming;
    if (told) {
        forming_ = std::move(group);
        effects.form(*forming_, form_deadline_);
        return true;
    }
    group_ = std::move(group);  // alone as before: there is nobody to meet or to leave
    state_ = State::ready;
    return true;
}

SyncRounds::Formed SyncRounds::formed(const GroupFormed& event) {
    if (!forming_ || event.epoch != forming_->epoch) return Formed::no;
    group_ = std::move(*forming_);
    forming_.reset();
    rounds_.clear();
    next_ = Step{1};
    const bool there = event.result.has_value() || group_.members.size() == 1;
    state_ = there ? State::ready : State::lost;
    return there ? Formed::ready : Formed::lost;
}

bool SyncRounds::broke(const GroupBroken& event) {
    if (forming_ || event.epoch != group_.epoch || state_ == State::lost) return false;
    state_ = State::lost;
    rounds_.clear();
    return true;
}

// ---- rounds ----

std::uint64_t SyncRounds::note_elements() const {
    return group_.members.size() * notes_of_member(blocks().size());
}

void SyncRounds::reduce(Step round, std::uint32_t bucket, GradientShare share,
                        Effects& effects) const {
    effects.reduce({group_.epoch, round, Bucket{bucket}}, std::move(share), deadline_);
}

Step SyncRounds::open(const Base* base, std::uint32_t samples, Effects& effects) {
    const Step number = next_;
    next_ = next(next_);
    Round& round = rounds_[number];
    round.takes_part = base != nullptr;
    round.samples = samples;
    round.brought.assign(rows_.tasks(), false);
    round.averages.resize(rows_.tasks());
    for (std::uint32_t task = 0; task < rows_.tasks(); ++task) {
        if (rows_.elements(TaskId{task}) > 0) continue;  // it has nothing in step
        round.brought[task] = true;
        round.averages[task] = Averaged{};
    }
    std::vector<float> notes(note_elements(), 0.0F);
    if (base != nullptr) {
        std::size_t at = group_.index_of(self_) * (note_elements() / group_.members.size());
        notes[at++] = 1;
        for (const BlockId id : blocks()) {
            const auto& [epoch, version] = base->at(id);
            write_digits(std::span(notes).subspan(at, kEpochDigits), epoch.value);
            write_digits(std::span(notes).subspan(at + kEpochDigits, kVersionDigits),
                         version.value);
            at += kBlockDigits;
        }
    }
    reduce(number, kNotes, share_of(notes, 1), effects);
    if (base == nullptr) withdraw(number, effects);
    return number;
}

void SyncRounds::bring(Step number, TaskId task, Payload rows, Effects& effects) {
    const auto found = rounds_.find(number);
    if (found == rounds_.end() || found->second.brought[task.value]) return;
    found->second.brought[task.value] = true;
    const std::uint64_t elements = rows_.elements(task);
    reduce(number, 1 + task.value,
           {elements, static_cast<double>(found->second.samples), std::move(rows)}, effects);
}

void SyncRounds::withdraw(Step number, Effects& effects) {
    const auto found = rounds_.find(number);
    if (found == rounds_.end()) return;
    Round& round = found->second;
    for (std::uint32_t task = 0; task < rows_.tasks(); ++task) {
        if (round.brought[task]) continue;
        round.brought[task] = true;
        reduce(number, 1 + task, cancelled_share(rows_.elements(TaskId{task})), effects);
    }
    round.taken = true;  // nobody here asks for the averages
    if (std::exchange(round.told, true)) return;
    reduce(number, static_cast<std::uint32_t>(1 + rows_.tasks()), cancelled_share(blocks().size()),
           effects);
}

std::uint64_t SyncRounds::digits(const std::vector<float>& notes, std::size_t at,
                                 std::size_t count) const {
    const auto members = static_cast<double>(group_.members.size());
    std::uint64_t value = 0;
    for (std::size_t i = count; i-- > 0;) {
        value = value * kDigit +
                static_cast<std::uint64_t>(std::llround(double{notes[at + i]} * members));
    }
    return value;
}

std::optional<std::size_t> SyncRounds::pusher(const std::vector<float>& notes) const {
    const std::size_t each = notes.size() / group_.members.size();
    for (std::size_t i = 0; i < group_.members.size(); ++i) {
        if (digits(notes, i * each, 1) == 1) return i;
    }
    return std::nullopt;
}

SyncRounds::Base SyncRounds::oldest(const std::vector<float>& notes) const {
    const std::size_t each = notes.size() / group_.members.size();
    Base base;
    for (std::size_t i = 0; i < group_.members.size(); ++i) {
        std::size_t at = i * each;
        if (digits(notes, at++, 1) != 1) continue;
        for (const BlockId id : blocks()) {
            const std::pair of_member{
                Epoch{static_cast<std::uint32_t>(digits(notes, at, kEpochDigits))},
                Version{digits(notes, at + kEpochDigits, kVersionDigits)}};
            at += kBlockDigits;
            const auto [known, fresh] = base.emplace(id, of_member);
            if (!fresh) known->second = std::min(known->second, of_member);
        }
    }
    return base;
}

std::optional<SyncRounds::Averages> SyncRounds::take_averages(Step number, Effects& effects) {
    const auto found = rounds_.find(number);
    if (found == rounds_.end() || found->second.taken || !found->second.notes) return std::nullopt;
    Round& round = found->second;
    for (const auto& average : round.averages) {
        if (!average) return std::nullopt;
    }
    round.taken = true;
    Averages averages;
    const std::optional<std::size_t> pushes = pusher(*round.notes);
    averages.pushes = pushes && group_.members[*pushes] == self_;
    averages.base = oldest(*round.notes);
    double samples = 0;
    for (const auto& average : round.averages) {
        samples = std::max(samples, average->weight_sum);
        averages.by_task.push_back(average->mean);
    }
    averages.samples = static_cast<std::uint32_t>(std::llround(samples));
    if (!averages.pushes) {
        round.told = true;
        reduce(number, static_cast<std::uint32_t>(1 + rows_.tasks()),
               cancelled_share(blocks().size()), effects);
    }
    return averages;
}

void SyncRounds::tell(Step number, const std::vector<BlockId>& rejected, Effects& effects) {
    const auto found = rounds_.find(number);
    if (found == rounds_.end() || std::exchange(found->second.told, true)) return;
    std::vector<float> word;
    for (const BlockId id : blocks()) {
        const bool no = std::find(rejected.begin(), rejected.end(), id) != rejected.end();
        word.push_back(no ? 1.0F : 0.0F);
    }
    reduce(number, static_cast<std::uint32_t>(1 + rows_.tasks()), share_of(word, 1), effects);
}

std::optional<SyncRounds::Ended> SyncRounds::reduced(Reduced&& event) {
    const CollectiveKey& key = event.end.key;
    const auto found = rounds_.find(key.step);
    if (key.epoch != group_.epoch || found == rounds_.end()) return std::nullopt;
    // GroupBroken follows, also where only this share was refused (CollectiveThread).
    if (std::holds_alternative<Broken>(event.end.result)) return std::nullopt;
    Round& round = found->second;
    auto* averaged = std::get_if<Averaged>(&event.end.result);
    if (key.bucket.value == kNotes) {
        invariant(averaged != nullptr, "every member has a weight in the notes");
        round.notes = floats_of(averaged->mean);
        return std::nullopt;
    }
    const std::size_t task = key.bucket.value - 1;
    if (task < rows_.tasks()) {
        round.averages[task] = averaged != nullptr ? std::move(*averaged) : Averaged{};
        return std::nullopt;
    }
    Ended ended{key.step, {}};
    if (averaged == nullptr) {
        ended.dropped = true;
    } else {
        const std::vector<float> word = floats_of(averaged->mean);
        for (std::size_t i = 0; i < word.size(); ++i) {
            if (word[i] > 0.5F) ended.rejected.push_back(blocks()[i]);
        }
    }
    rounds_.erase(found);
    ++ended_;
    return ended;
}

bool SyncRounds::passes() const {
    return std::any_of(rounds_.begin(), rounds_.end(),
                       [](const auto& round) { return !round.second.takes_part; });
}

std::string SyncRounds::waiting_for() const {
    if (!designated()) return "";
    std::string members;
    for (const WorkerId id : group().members) {
        if (id == self_) continue;
        members += (members.empty() ? "" : ", ") + to_string(node_of(id));
    }
    if (state_ == State::forming) return "the others of its node: " + members;
    if (state_ != State::ready) return "word of who is left in its node";
    if (rounds_.empty()) return "";
    return "round " + std::to_string(rounds_.begin()->first.value) + " of its node, with " +
           members;
}

}  // namespace detente
