// Ledger entries to try the encoding with.
#pragma once

#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/ledger_entry.h"

namespace detente {

// Entries of every kind, with values from everywhere in their ranges.
class Anything {
  public:
    explicit Anything(unsigned seed) : random_(seed) {}
    LedgerEntry entry() {
        LedgerEntry entry;
        entry.at = Time(Nanos(static_cast<std::int64_t>(number())));
        switch (random_() % 10) {
            case 0:
                entry.record = pull();
                break;
            case 1:
                entry.record = verdict();
                break;
            case 2:
                entry.record =
                    ClosedRecord{WorkerId{small()}, Incarnation{small()},  Step{number()},
                                 small(),           (random_() & 1U) != 0, text()};
                break;
            case 3:
                entry.record = LeaseRecord{WorkerId{small()}, Incarnation{small()},
                                           (random_() & 1U) != 0, range()};
                break;
            case 4:
                entry.record = lost();
                break;
            case 5:
                entry.record = resolved();
                break;
            case 6:
                entry.record = NamesRecord{text(), {text(), text()}, {text()}};
                break;
            case 7:
                entry.record = share();
                break;
            case 8:
                entry.record = AveragedRecord{WorkerId{small()}, Step{number()},
                                              GroupEpoch{number()}, Step{number()}, small()};
                break;
            default:
                entry.record = ControlRecord{text()};
        }
        return entry;
    }

  private:
    std::uint64_t number() {
        switch (random_() % 4) {
            case 0:
                return random_();
            case 1:
                return std::numeric_limits<std::uint64_t>::max() - random_() % 2;
            default:
                return random_() % 200;
        }
    }
    std::uint32_t small() { return static_cast<std::uint32_t>(number()); }
    std::string text() { return std::string(random_() % 20, static_cast<char>(random_())); }
    BatchRange range() {
        return {small(), small(), small(), {(random_() & 1U) != 0 ? 0 : number()}};
    }
    PullRecord pull() {
        PullRecord record{WorkerId{small()}, Incarnation{small()}, Step{number()},
                          blocks(),          Epoch{small()},       {}};
        for (std::size_t i = 0; i < record.blocks.size(); ++i) {
            record.versions.push_back(Version{number()});
        }
        return record;
    }
    LostRecord lost() {
        LostRecord record{WorkerId{small()},
                          Incarnation{small()},
                          Step{number()},
                          Part{small()},
                          Epoch{small()},
                          blocks(),
                          {},
                          text()};
        for (std::size_t i = 0; i < record.blocks.size(); ++i) {
            record.versions.push_back(Version{number()});
        }
        return record;
    }
    ShareRecord share() {
        ShareRecord record;
        record.worker = WorkerId{small()};
        record.step = Step{number()};
        record.group = GroupEpoch{number()};
        record.round = Step{number()};
        record.batch = range();
        record.samples = small();
        record.tasks.bits = number();
        record.gradient_hash = number();
        record.blocks = blocks();
        for (std::size_t i = 0; i < record.blocks.size(); ++i) {
            record.versions.push_back(Version{number()});
        }
        return record;
    }
    ResolvedRecord resolved() {
        ResolvedRecord record;
        record.worker = WorkerId{small()};
        record.step = Step{number()};
        record.batch = range();
        record.reused = (random_() & 1U) != 0;
        const std::size_t tasks = 1 + random_() % 3;
        const auto floats = [this](std::size_t count) {
            std::vector<float> values(count);
            for (float& value : values) value = 1.0F / static_cast<float>(1 + small());
            return values;
        };
        record.losses = floats(tasks);
        for (std::size_t i = random_() % 4; i > 0; --i) {
            record.gramians.push_back(floats(tasks * (tasks + 1) / 2));
            record.weights.push_back(floats(tasks));
        }
        if ((random_() & 1U) != 0) record.result = floats(tasks + 1);
        return record;
    }
    VerdictRecord verdict() {
        VerdictRecord record;
        record.worker = WorkerId{small()};
        record.incarnation = Incarnation{small()};
        record.step = Step{number()};
        record.part = Part{small()};
        record.epoch = Epoch{small()};
        record.batch = range();
        record.samples = small();
        record.gradient_hash = number();
        if ((random_() & 1U) != 0) {
            record.decision = {(random_() & 1U) != 0 ? record.epoch : Epoch{small()}, number()};
            record.gradient_weight = 1.0F / static_cast<float>(1 + random_() % 3);
            record.denominator = static_cast<double>(1 + random_() % 2);
            record.arrived = Time(Nanos(static_cast<std::int64_t>(number() >> 1U)));
        }
        for (const BlockId block : blocks()) {
            VerdictRecord::Row row;
            row.block = block;
            row.tasks.bits = number();
            row.base = Version{number()};
            row.version = Version{number()};
            row.staleness = number();
            row.step_scale = (random_() & 1U) != 0 ? 1.0F : 1.0F / static_cast<float>(small());
            row.verdict = static_cast<Verdict>(random_() % 4);
            const double rates[] = {0.0, 0.5, 1.0 / static_cast<double>(1 + number())};
            if (row.verdict == Verdict::applied) row.scheduled_rate = rates[random_() % 3];
            row.reason = static_cast<ErrorCode>(
                random_() % (static_cast<std::uint64_t>(ErrorCode::internal) + 1));
            record.rows.push_back(row);
        }
        return record;
    }
    std::vector<BlockId> blocks() {
        if (random_() % 3 == 0) return {BlockId{4}, BlockId{1}, BlockId{5}};
        std::vector<BlockId> blocks(random_() % 6);
        for (BlockId& block : blocks) block.value = number();
        return blocks;
    }
    std::mt19937_64 random_;
};

}  // namespace detente
