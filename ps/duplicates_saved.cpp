// The duplicate table in a checkpoint, and what becomes of it when it is restored: the table knows
// what had been judged when it was saved, the old ledger what was applied after that.
#include <algorithm>
#include <bit>
#include <set>
#include <sstream>
#include <tuple>

#include "ps/duplicates.h"

namespace detente {
namespace {

constexpr const char* kFormat = "duplicates 2";

void put(std::ostream& text, const BlockVerdict& verdict) {
    text << ' ' << verdict.block.value << ' ' << static_cast<unsigned>(verdict.verdict) << ' '
         << static_cast<unsigned>(verdict.advice) << ' ' << static_cast<unsigned>(verdict.reason)
         << ' ' << verdict.staleness << ' ' << std::bit_cast<std::uint32_t>(verdict.step_scale)
         << ' ' << verdict.epoch.value << ' ' << verdict.version.value;
}

// False: not what put() wrote.
bool take(std::istream& text, BlockVerdict& verdict) {
    unsigned kind = 0;
    unsigned advice = 0;
    unsigned reason = 0;
    std::uint32_t scale = 0;
    text >> verdict.block.value >> kind >> advice >> reason >> verdict.staleness >> scale >>
        verdict.epoch.value >> verdict.version.value;
    if (!text || kind > static_cast<unsigned>(Verdict::lost) ||
        advice > static_cast<unsigned>(Advice::compensate) ||
        reason > static_cast<unsigned>(ErrorCode::internal)) {
        return false;
    }
    verdict.verdict = static_cast<Verdict>(kind);
    verdict.advice = static_cast<Advice>(advice);
    verdict.reason = static_cast<ErrorCode>(reason);
    verdict.step_scale = std::bit_cast<float>(scale);
    return true;
}

BlockVerdict lost(BlockVerdict verdict) {
    verdict.verdict = Verdict::lost;
    verdict.advice = Advice::refresh;
    verdict.reason = ErrorCode::wrong_epoch;
    return verdict;
}

}  // namespace

Incarnation Duplicates::newest_incarnation() const {
    Incarnation newest{0};
    for (const auto& [worker, client] : clients_) newest = std::max(newest, client.incarnation);
    return newest;
}

std::string Duplicates::save(const std::vector<ClosedBy>& kept) const {
    std::ostringstream text;
    text << kFormat << ' ' << blocks_ << ' ' << books_.computed << ' ' << books_.applied << ' '
         << books_.rejected << ' ' << books_.cancelled << ' ' << books_.lost << ' '
         << books_.in_flight << ' ' << kept.size();
    for (const ClosedBy& one : kept) {
        text << ' ' << one.worker.value << ' ' << one.incarnation.value << ' '
             << one.step.step.value << ' ' << one.step.blocks;
    }
    text << ' ' << clients_.size();
    for (const auto& [worker, client] : clients_) {
        text << '\n'
             << worker.value << ' ' << client.incarnation.value << ' ' << (client.gone ? 1 : 0)
             << ' ' << client.acknowledged.value << ' ' << client.steps.size();
        for (const OpenStep& step : client.steps) {
            text << ' ' << step.step.value << ' ' << step.open_blocks << ' '
                 << (step.lost_by_restore ? 1 : 0) << ' ' << step.parts.size();
            for (const JudgedPart& part : step.parts) {
                text << ' ' << part.part.value << ' ' << part.verdicts.size();
                for (const BlockVerdict& verdict : part.verdicts) put(text, verdict);
            }
        }
    }
    return text.str();
}

Result<void> Duplicates::restore(const std::string& saved) {
    const auto bad = [&](const std::string& why) {
        return fail(ErrorCode::bad_checkpoint, "the checkpoint's duplicate table: " + why +
                                                   "; resume from another checkpoint");
    };
    std::istringstream text(saved);
    std::string word;
    int format = 0;
    std::size_t clients = 0;
    std::size_t kept = 0;
    Duplicates table(0);
    Books& books = table.books_;
    text >> word >> format >> table.blocks_ >> books.computed >> books.applied >> books.rejected >>
        books.cancelled >> books.lost >> books.in_flight >> kept;
    std::uint64_t in_flight = 0;
    std::uint64_t buffered = 0;
    std::set<std::tuple<WorkerId, Incarnation, Step>> kept_steps;
    for (std::size_t i = 0; text && i < kept; ++i) {
        ClosedBy one;
        text >> one.worker.value >> one.incarnation.value >> one.step.step.value >> one.step.blocks;
        in_flight += one.step.blocks;
        buffered += one.step.blocks;
        kept_steps.emplace(one.worker, one.incarnation, one.step.step);
        table.kept_lost_.push_back(one);
    }
    text >> clients;
    if (!text || word + " " + std::to_string(format) != kFormat) {
        return bad("expected it to begin with '" + std::string(kFormat) + "' and its books");
    }
    for (std::size_t i = 0; i < clients; ++i) {
        WorkerId worker;
        Client client;
        int gone = 0;
        std::size_t steps = 0;
        text >> worker.value >> client.incarnation.value >> gone >> client.acknowledged.value >>
            steps;
        if (!text || steps > kMostOpenSteps) return bad("cut off, or more steps than are kept");
        if (worker.value >= ByWorker<Client>::kMostIds) {
            return bad("a worker " + std::to_string(worker.value) + ", where ids are below " +
                       std::to_string(ByWorker<Client>::kMostIds));
        }
        client.gone = gone != 0;
        for (std::size_t s = 0; s < steps; ++s) {
            OpenStep step;
            int was_lost = 0;
            std::size_t parts = 0;
            text >> step.step.value >> step.open_blocks >> was_lost >> parts;
            if (!text || step.open_blocks > table.blocks_ || parts > table.blocks_) {
                return bad("cut off, or a step of more blocks than there are");
            }
            const bool was_kept = kept_steps.contains({worker, client.incarnation, step.step});
            step.lost_by_restore = was_lost != 0 || was_kept;
            for (std::size_t p = 0; p < parts; ++p) {
                JudgedPart part;
                std::size_t verdicts = 0;
                text >> part.part.value >> verdicts;
                if (!text || verdicts > table.blocks_) return bad("cut off within a part");
                part.verdicts.resize(verdicts);
                for (BlockVerdict& verdict : part.verdicts) {
                    if (!take(text, verdict)) return bad("cut off, or no verdict, within a part");
                    if (verdict.verdict != Verdict::buffered) continue;
                    verdict = lost(verdict);
                    if (!was_kept) ++step.buffered_lost;  // else it is counted with the kept
                }
                step.parts.push_back(std::move(part));
            }
            in_flight += step.open_blocks + step.buffered_lost;
            buffered += step.buffered_lost;
            client.steps.push_back(std::move(step));
        }
        table.clients_[worker] = std::move(client);
    }
    if (in_flight != books.in_flight) {
        return bad(std::to_string(books.in_flight) + " blocks in flight by its books, " +
                   std::to_string(in_flight) + " by its steps");
    }
    if (auto balanced = books.balance("it"); !balanced) return bad(balanced.error().text);
    books.in_flight -= buffered;
    books.lost += buffered;
    *this = std::move(table);
    return {};
}

void Duplicates::take_back(const LostRecord& update) {
    const auto count = static_cast<std::uint32_t>(update.blocks.size());
    // What was staged when the table was saved, and applied later, is one update, not two.
    for (ClosedBy& kept : kept_lost_) {
        if (kept.worker != update.worker || kept.incarnation != update.incarnation ||
            kept.step.step != update.step) {
            continue;
        }
        const std::uint32_t twice = std::min(kept.step.blocks, count);
        kept.step.blocks -= twice;
        books_.lost -= twice;
        books_.computed -= twice;
    }
    books_.lost += count;
    const bool met = clients_.contains(update.worker);
    Client& client = clients_[update.worker];
    if (!met) client.incarnation = update.incarnation;
    // Another incarnation's steps have other meanings; nobody of it is left to send them again.
    if (client.incarnation != update.incarnation || update.step <= client.acknowledged) {
        books_.computed += count;
        return;
    }
    OpenStep* step = find(update.worker, update.step);
    if (step == nullptr) {
        step = &client.steps.emplace_back();
        step->step = update.step;
    }
    const std::uint32_t from_open = std::min(step->open_blocks, count);
    step->open_blocks -= from_open;
    step->lost_by_restore = true;
    books_.in_flight -= from_open;
    books_.computed += count - from_open;
    if (client.steps.size() <= kMostOpenSteps) return;
    const auto older = [](const OpenStep& a, const OpenStep& b) {
        return std::pair(a.open_blocks > 0, a.step) < std::pair(b.open_blocks > 0, b.step);
    };
    client.steps.erase(std::min_element(client.steps.begin(), client.steps.end(), older));
}

std::vector<Duplicates::ClosedBy> Duplicates::lose_restored() {
    std::vector<ClosedBy> closed = std::exchange(kept_lost_, {});
    std::erase_if(closed, [](const ClosedBy& one) { return one.step.blocks == 0; });
    for (auto& [worker, client] : clients_) {
        for (OpenStep& step : client.steps) {
            const std::uint32_t blocks = step.open_blocks + step.buffered_lost;
            if (blocks > 0) closed.push_back({worker, client.incarnation, {step.step, blocks}});
            books_.in_flight -= step.open_blocks;
            books_.lost += step.open_blocks;
            if (step.open_blocks > 0) step.lost_by_restore = true;
            step.open_blocks = 0;
            step.buffered_lost = 0;
        }
    }
    std::sort(closed.begin(), closed.end(), [](const ClosedBy& a, const ClosedBy& b) {
        return std::pair(a.worker, a.step.step) < std::pair(b.worker, b.step.step);
    });
    return closed;
}

bool Duplicates::lost_by_restore(WorkerId worker, Step step) const {
    const OpenStep* open = find(worker, step);
    return open != nullptr && open->lost_by_restore;
}

}  // namespace detente
