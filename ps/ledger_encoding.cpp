#include "ps/ledger_encoding.h"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "common/invariant.h"
#include "ps/ledger_bits.h"

namespace detente {
namespace {
using namespace ledger_bits;

class Sink {
  public:
    explicit Sink(std::vector<std::byte>& bytes) : bytes_(bytes) {}
    void octet(std::uint8_t value) { bytes_.push_back(static_cast<std::byte>(value)); }
    void number(std::uint64_t value) {
        while (value >= 0x80) {
            octet(static_cast<std::uint8_t>(value | 0x80U));
            value >>= 7U;
        }
        octet(static_cast<std::uint8_t>(value));
    }
    // value − before, modulo 2^64, small either way.
    void difference(std::uint64_t value, std::uint64_t before) {
        const std::uint64_t delta = value - before;
        number((delta << 1U) ^ (0 - (delta >> 63U)));
    }
    void word(std::uint64_t value) {
        for (unsigned shift = 0; shift < 64; shift += 8) {
            octet(static_cast<std::uint8_t>(value >> shift));
        }
    }
    void half_word(std::uint32_t value) {
        for (unsigned shift = 0; shift < 32; shift += 8) {
            octet(static_cast<std::uint8_t>(value >> shift));
        }
    }
    void text(const std::string& value) {
        number(value.size());
        const auto bytes = std::as_bytes(std::span(value));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    }

  private:
    std::vector<std::byte>& bytes_;
};

std::vector<BlockId> blocks_of(const VerdictRecord& record) {
    std::vector<BlockId> blocks;
    blocks.reserve(record.rows.size());
    for (const VerdictRecord::Row& row : record.rows) blocks.push_back(row.block);
    return blocks;
}

void put_worker_step(Sink& sink, LedgerDeltas& deltas, WorkerId worker, Incarnation incarnation,
                     Step step) {
    sink.number(worker.value);
    sink.number(incarnation.value);
    std::uint64_t& last = deltas.step_of[worker.value];
    sink.difference(step.value, last);
    last = step.value;
}

// Unless the list is the last one again, which the entry's flags then say.
void put_blocks(Sink& sink, LedgerDeltas& deltas, bool same, std::vector<BlockId> blocks) {
    if (same) return;
    sink.number(blocks.size());
    std::uint64_t expected = 0;
    for (const BlockId block : blocks) {
        sink.difference(block.value, expected);
        expected = block.value + 1;
    }
    deltas.list = std::move(blocks);
}

void put_versions(Sink& sink, LedgerDeltas& deltas, const std::vector<BlockId>& blocks,
                  const std::vector<Version>& versions) {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        std::uint64_t& last = deltas.of_block[blocks[i].value].version;
        sink.difference(versions[i].value, last);
        last = versions[i].value;
    }
}

void put_row(Sink& sink, LedgerDeltas& deltas, const VerdictRecord::Row& row) {
    LedgerDeltas::OfBlock& known = deltas.of_block[row.block.value];
    const std::uint64_t base = expected_base(row.version.value, row.staleness, row.verdict);
    const auto short_staleness = static_cast<unsigned>(row.staleness < 3 ? row.staleness : 3);
    unsigned flags = static_cast<unsigned>(row.verdict) | (short_staleness << kStalenessShift);
    if (std::bit_cast<std::uint32_t>(row.step_scale) != std::bit_cast<std::uint32_t>(1.0F)) {
        flags |= kHasScale;
    }
    if (row.tasks.bits != known.tasks) flags |= kHasTasks;
    if (row.reason != ErrorCode::internal) flags |= kHasReason;
    if (row.base.value != base) flags |= kHasBase;
    sink.octet(static_cast<std::uint8_t>(flags));
    sink.difference(row.version.value, known.version);
    if (short_staleness == 3) sink.number(row.staleness);
    if ((flags & kHasScale) != 0) sink.number(std::bit_cast<std::uint32_t>(row.step_scale));
    if ((flags & kHasTasks) != 0) sink.number(row.tasks.bits);
    if ((flags & kHasReason) != 0) sink.number(static_cast<std::uint64_t>(row.reason));
    if ((flags & kHasBase) != 0) sink.difference(row.base.value, base);
    known.version = row.version.value;
    known.tasks = row.tasks.bits;
}

bool has_new_rate(const VerdictRecord& record, const LedgerDeltas& deltas) {
    return std::any_of(record.rows.begin(), record.rows.end(), [&](const auto& row) {
        const auto known = deltas.of_block.find(row.block.value);
        const std::uint64_t last = known == deltas.of_block.end() ? 0 : known->second.rate;
        return row.verdict == Verdict::applied &&
               std::bit_cast<std::uint64_t>(row.scheduled_rate) != last;
    });
}

// A schedule moves all blocks of a rule together, so that most rows repeat the one before.
void put_rates(Sink& sink, LedgerDeltas& deltas, const VerdictRecord& record) {
    std::uint64_t rows_last = 0;
    for (const VerdictRecord::Row& row : record.rows) {
        if (row.verdict != Verdict::applied) continue;
        std::uint64_t& blocks_last = deltas.of_block[row.block.value].rate;
        const auto rate = std::bit_cast<std::uint64_t>(row.scheduled_rate);
        if (rate == blocks_last) {
            sink.octet(kBlocksLast);
        } else if (rate == rows_last) {
            sink.octet(kRowsLast);
        } else {
            sink.octet(kWrittenOut);
            sink.word(rate);
        }
        rows_last = blocks_last = rate;
    }
}

// A flag of the entry's kind.
unsigned batch_tasks_flag(const LedgerDeltas& deltas, const BatchRange& range) {
    return range.tasks.bits != deltas.batch_tasks ? kHasBatchTasks : 0U;
}

void put_range(Sink& sink, LedgerDeltas& deltas, const BatchRange& range) {
    sink.number(range.data_epoch);
    sink.difference(range.first, deltas.batch);
    sink.number(range.count);
    if (batch_tasks_flag(deltas, range) != 0) sink.number(range.tasks.bits);
    deltas.batch = range.first;
    deltas.batch_tasks = range.tasks.bits;
}

void put_time(Sink& sink, LedgerDeltas& deltas, unsigned kind, Time at) {
    sink.octet(static_cast<std::uint8_t>(kind));
    const auto time = static_cast<std::uint64_t>(at.time_since_epoch().count());
    sink.difference(time, deltas.time);
    deltas.time = time;
}

void put_decision(Sink& sink, LedgerDeltas& deltas, Time at, const VerdictRecord& record) {
    const auto weight = std::bit_cast<std::uint32_t>(record.gradient_weight);
    const auto denominator = std::bit_cast<std::uint64_t>(record.denominator);
    unsigned flags = 0;
    if (record.decision.lead_epoch != record.epoch) flags |= kHasEpoch;
    if (weight != std::bit_cast<std::uint32_t>(1.0F)) flags |= kHasWeight;
    if (denominator != std::bit_cast<std::uint64_t>(deltas.denominator)) flags |= kHasDenominator;
    sink.octet(static_cast<std::uint8_t>(flags));
    sink.difference(record.decision.number, deltas.decision);
    if ((flags & kHasEpoch) != 0) sink.number(record.decision.lead_epoch.value);
    if ((flags & kHasWeight) != 0) sink.number(weight);
    if ((flags & kHasDenominator) != 0) sink.word(denominator);
    // Unsigned: a difference of any two times wraps, and comes back.
    sink.difference(static_cast<std::uint64_t>(at.time_since_epoch().count()) -
                        static_cast<std::uint64_t>(record.arrived.time_since_epoch().count()),
                    0);
    deltas.decision = record.decision.number;
    deltas.denominator = record.denominator;
}

// Block scope says nothing of it.
bool has_decision(const VerdictRecord& record) {
    return record.decision != Sequence{} || record.gradient_weight != 1 || record.denominator != 1;
}

struct Encoder {
    Time at;
    LedgerDeltas& deltas;
    Sink sink;

    void operator()(const PullRecord& record) {
        invariant(record.blocks.size() == record.versions.size(), "a pull has a version per block");
        const bool same = record.blocks == deltas.list;
        put_time(sink, deltas, kPull | (same ? kSameBlocks : 0), at);
        put_worker_step(sink, deltas, record.worker, record.incarnation, record.step);
        sink.number(record.epoch.value);
        put_blocks(sink, deltas, same, record.blocks);
        put_versions(sink, deltas, record.blocks, record.versions);
    }
    void operator()(const VerdictRecord& record) {
        std::vector<BlockId> blocks = blocks_of(record);
        const bool same = blocks == deltas.list;
        const bool hash =
            record.gradient_hash != deltas.expected_hash(record.worker.value, record.step.value);
        const bool rates = has_new_rate(record, deltas);
        const bool decided = has_decision(record);
        put_time(sink, deltas,
                 kVerdict | (same ? kSameBlocks : 0) | (hash ? kHasHash : 0) |
                     (rates ? kHasRates : 0) | (decided ? kFlag : 0) |
                     batch_tasks_flag(deltas, record.batch),
                 at);
        put_worker_step(sink, deltas, record.worker, record.incarnation, record.step);
        sink.number(record.part.value);
        sink.number(record.epoch.value);
        put_range(sink, deltas, record.batch);
        sink.number(record.samples);
        if (hash) sink.word(record.gradient_hash);
        deltas.hash_of[record.worker.value] = {record.step.value, record.gradient_hash};
        if (decided) put_decision(sink, deltas, at, record);
        put_blocks(sink, deltas, same, std::move(blocks));
        for (const VerdictRecord::Row& row : record.rows) put_row(sink, deltas, row);
        if (rates) put_rates(sink, deltas, record);
    }
    void operator()(const ClosedRecord& record) {
        put_time(sink, deltas, kClosed | (record.lost ? kFlag : 0), at);
        put_worker_step(sink, deltas, record.worker, record.incarnation, record.step);
        sink.number(record.blocks);
        sink.text(record.reason);
    }
    void operator()(const LeaseRecord& record) {
        put_time(sink, deltas,
                 kLease | (record.granted ? kFlag : 0) | batch_tasks_flag(deltas, record.range),
                 at);
        sink.number(record.worker.value);
        sink.number(record.incarnation.value);
        put_range(sink, deltas, record.range);
    }
    void operator()(const ControlRecord& record) {
        put_time(sink, deltas, kControl, at);
        sink.text(record.what);
    }
    void operator()(const ResolvedRecord& record) {
        put_time(sink, deltas,
                 kResolved | (record.reused ? kFlag : 0) | batch_tasks_flag(deltas, record.batch),
                 at);
        sink.number(record.worker.value);
        std::uint64_t& last = deltas.step_of[record.worker.value];
        sink.difference(record.step.value, last);
        last = record.step.value;
        put_range(sink, deltas, record.batch);
        const std::size_t tasks = record.losses.size();
        sink.number(tasks);
        sink.number(record.gramians.size());
        sink.number(record.weights.size());
        const auto put = [this](const std::vector<float>& values) {
            for (const float value : values) sink.half_word(std::bit_cast<std::uint32_t>(value));
        };
        put(record.losses);
        for (const std::vector<float>& gramian : record.gramians) {
            invariant(gramian.size() == tasks * (tasks + 1) / 2, "a triangle of all tasks");
            put(gramian);
        }
        for (const std::vector<float>& weights : record.weights) {
            invariant(weights.size() == tasks, "a weight per task");
            put(weights);
        }
        invariant(record.result.empty() || record.result.size() == tasks + 1,
                  "a product per task, and a square");
        sink.number(record.result.empty() ? 0 : 1);
        put(record.result);
    }
    void operator()(const ShareRecord& record) {
        invariant(record.blocks.size() == record.versions.size(), "a share has a version a block");
        const bool same = record.blocks == deltas.list;
        put_time(sink, deltas,
                 kShare | (same ? kSameBlocks : 0) | batch_tasks_flag(deltas, record.batch), at);
        put_round(record);
        put_range(sink, deltas, record.batch);
        sink.number(record.samples);
        sink.number(record.tasks.bits);
        sink.word(record.gradient_hash);
        put_blocks(sink, deltas, same, record.blocks);
        put_versions(sink, deltas, record.blocks, record.versions);
    }
    void operator()(const AveragedRecord& record) {
        put_time(sink, deltas, kAveraged, at);
        put_round(record);
        sink.number(record.samples);
    }
    template <class Record>
    void put_round(const Record& record) {
        sink.number(record.worker.value);
        std::uint64_t& last = deltas.step_of[record.worker.value];
        sink.difference(record.step.value, last);
        last = record.step.value;
        sink.number(record.group.value);
        sink.difference(record.round.value, deltas.round);
        deltas.round = record.round.value;
    }
    void operator()(const NamesRecord& record) {
        put_time(sink, deltas, kNames, at);
        sink.text(record.method);
        for (const auto* names : {&record.tasks, &record.layers}) {
            sink.number(names->size());
            for (const std::string& name : *names) sink.text(name);
        }
    }
    void operator()(const LostRecord& record) {
        invariant(record.blocks.size() == record.versions.size(), "a version per lost update");
        const bool same = record.blocks == deltas.list;
        const bool same_text = record.reason == deltas.reason;
        put_time(sink, deltas, kLost | (same ? kSameBlocks : 0) | (same_text ? kFlag : 0), at);
        put_worker_step(sink, deltas, record.worker, record.incarnation, record.step);
        sink.number(record.part.value);
        sink.number(record.epoch.value);
        put_blocks(sink, deltas, same, record.blocks);
        put_versions(sink, deltas, record.blocks, record.versions);
        if (!same_text) sink.text(record.reason);
        deltas.reason = record.reason;
    }
};

}  // namespace

void encode_entry(const LedgerEntry& entry, LedgerDeltas& deltas, std::vector<std::byte>& into) {
    std::visit(Encoder{entry.at, deltas, Sink(into)}, entry.record);
}

}  // namespace detente
