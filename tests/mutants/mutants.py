"""Faults planted in a copy of the sources, one at a time; `detente fuzz` must find each.

A mutant is one replacement in one file; what it replaces must stand there exactly once, so that a
mutant that no longer fits says so instead of surviving. scripts/mutants runs this; --fit SOURCES
only says which no longer fit, or are not in the table.
"""

import pathlib
import subprocess
import sys

# The share that must be found, or this fails.
LEAST_FOUND = 0.95
TABLE = "tests/mutants/table.md"

# name, file, what stands there, what the mutant has instead.
MUTANTS = [
    ("bound off by one", "common/staleness/bounded_reject.cpp",
     "arrived->staleness > tau_max_", "arrived->staleness > tau_max_ + 1"),
    ("bound too strict", "common/staleness/bounded_reject.cpp",
     "arrived->staleness > tau_max_", "arrived->staleness >= tau_max_"),
    ("ringmaster too strict", "common/staleness/ringmaster.cpp",
     "arrived->staleness >= r_", "arrived->staleness + 1 >= r_"),
    ("an average takes stale gradients", "common/staleness/averaging.cpp",
     "arrived->staleness > *bound()", "arrived->staleness > *bound() + 1"),
    ("reply before apply", "ps/shard_steps.cpp",
     "    wait(from, body.step, body.part, 0, WaitFor::verdict);\n"
     "    if (step.complete()) notify_lead(step);\n",
     "    std::vector<BlockVerdict> early;\n"
     "    for (const LiveBlock* block : blocks) {\n"
     "        early.push_back({block->plan->id, Verdict::applied, Advice::none, ErrorCode::internal,"
     " 0, 1, block->epoch, next(block->version)});\n"
     "    }\n"
     "    reply_to_push(from, body, early);\n"
     "    if (step.complete()) notify_lead(step);\n"),
    ("version not bumped", "ps/block_store.cpp",
     "    block.version = next(block.version);\n", ""),
    ("version bumped twice", "ps/block_store.cpp",
     "block.version = next(block.version);", "block.version = next(next(block.version));"),
    ("update not counted", "ps/block_store.cpp", "    ++block.updates;\n", ""),
    ("duplicate table forgets a part", "ps/duplicates.cpp",
     "if (judged.part == part) return &judged.verdicts;",
     "if (judged.part != part) return &judged.verdicts;"),
    ("an applied part may come again", "ps/duplicates.cpp",
     "    open->open_blocks -= static_cast<std::uint32_t>(verdicts.size());\n    count(verdicts);\n"
     "    open->parts.push_back({part, std::move(verdicts)});\n", "    count(verdicts);\n    (void)part;\n"),
    ("rejected is told as applied", "ps/shard_push.cpp",
     "        verdict.verdict = Verdict::rejected;\n        verdict.advice = rejected->advice;\n",
     "        verdict.verdict = Verdict::applied;\n        verdict.advice = rejected->advice;\n"),
    ("scale forgotten", "ps/shard_push.cpp",
     "applied->step_scale, push.samples);", "1, push.samples);"),
    ("rate recorded wrongly", "ps/shard_push.cpp",
     "verdict.verdict == Verdict::applied ? arrived.learning_rate : 0;",
     "verdict.verdict == Verdict::applied ? arrived.learning_rate * 0.5 : 0;"),
    ("staleness one too low", "ps/shard_push.cpp",
     "verdict.staleness = block.version.value - gradient.base.value;",
     "verdict.staleness = block.version.value - gradient.base.value - "
     "(block.version.value > gradient.base.value ? 1 : 0);"),
    ("checksum of pushes not checked", "ps/shard_push.cpp",
     "verify_block(gradient.gradient.bytes, gradient.checksum)",
     "verify_block(gradient.gradient.bytes, std::nullopt)"),
    ("NaN applied", "ps/shard_push.cpp",
     "if (!std::exchange(finite, false)) continue;", "if (!std::exchange(finite, true)) continue;"),
    ("decisions out of order", "ps/shard_steps.cpp",
     "decisions_.begin()->first == acted_ + 1", "decisions_.begin()->first >= acted_ + 1"),
    ("decision confirmed before it is there", "ps/shard_steps.cpp",
     "StageReply{{lead_epoch, acted_}}", "StageReply{{lead_epoch, acted_ + 1}}"),
    ("lead does not wait for all shards", "ps/lead.cpp",
     "if (pending.shards.size() < shards_.size()) return;",
     "if (pending.shards.size() < 1) return;"),
    ("a refused part does not abort", "ps/lead.cpp",
     "if (!notice.staged && !pending.refused) {", "if (false) {"),
    ("ssp never releases", "common/staleness/ssp.cpp",
     "            worker[kHeld] = 0;\n            outcomes.emplace_back(ReleasePull{id});\n", "            (void)id, (void)outcomes;\n"),
    ("lost batches are not leased again", "ps/leases.cpp",
     "        given_back_.push_back(range);\n", ""),
    ("credit leak", "worker/shard_client.cpp",
     "    in_flight_bytes_ -= found->bytes;\n    const Answered answered{Asked::push",
     "    const Answered answered{Asked::push"),
    ("nothing is sent again", "worker/shard_client.cpp",
     "if (now - one.sent < reply_deadline_) continue;", "if (true) continue;"),
    ("acknowledges one step too many", "worker/shard_client.cpp",
     "        acknowledged_ = next(acknowledged_);\n        settled_ahead_.erase(",
     "        acknowledged_ = next(next(acknowledged_));\n        settled_ahead_.erase("),
    ("a pull's second piece is forgotten", "worker/shard_client.cpp",
     "if (seen.size() == asked.size()) {", "if (!seen.empty()) {"),
    ("an average is not divided", "ps/block_store.cpp",
     "static_cast<float>(folded_[i] / denominator)", "static_cast<float>(folded_[i])"),
    ("holds are ignored", "ps/shard_steps.cpp",
     "for (const WorkerId worker : due.hold) held_[worker];\n", ""),
    ("ssp lets a worker start one clock too far", "common/staleness/ssp.cpp",
     "return worker[kClock] - slowest(state) <= s_;",
     "return worker[kClock] - slowest(state) <= s_ + 1;"),
    ("a finished clock is not counted", "common/staleness/ssp.cpp",
     "        worker[kClock] += 1;\n", ""),
    ("a tombstone is dropped early", "ps/shard_steps.cpp",
     "if (decided < store_.trainable() && may_come) aborted_",
     "if (decided > store_.trainable() && may_come) aborted_"),
    ("spares leak", "ps/block_store.cpp",
     "        spares_[lent_[i]->size()].push_back(std::move(lent_[i]));\n",
     "        lent_[i].reset();\n"),
    ("credit of the first weights leaks", "worker/shard_client.cpp",
     "    const auto found = find(Kind::initialise, {}, reply.part.value);\n"
     "    if (found == outstanding_.end()) return;\n    in_flight_bytes_ -= found->bytes;\n",
     "    const auto found = find(Kind::initialise, {}, reply.part.value);\n"
     "    if (found == outstanding_.end()) return;\n"),
    ("a lost worker is heard again", "ps/duplicates.cpp",
     "(incarnation == client.incarnation && client.gone)", "false"),
    ("workers keep their incarnation over a restart", "launch/resume_point.cpp",
     "next(found->newest_incarnation)", "found->newest_incarnation"),
    ("an older generation is accepted", "common/runtime/envelope_check.cpp",
     "if (envelope.generation != expected.generation) {", "if (false) {"),
    ("the epoch is not raised at a restore", "ps/restore.cpp",
     "return next(newest);", "return newest;"),
    ("the duplicate table is lost at a restart", "ps/restore.cpp",
     "if (table != (*extras)->end()) former", "if (false) former"),
    ("lost updates are not listed", "ps/restore.cpp",
     "        former.lost = std::move(lost.updates);\n", ""),
    ("a restored version is one too high", "ps/restore.cpp",
     "contents.version = slice.version;", "contents.version = next(slice.version);"),
    ("a slice's checksum is not looked at", "ps/checkpoint.cpp",
     "if (found->bytes == file.bytes && found->checksum == file.checksum) return {};",
     "if (found->bytes == file.bytes) return {};"),
    ("a step begins at a shut gate", "ps/shard_scopes.cpp",
     "           last->second.step < step;", "           next(last->second.step) < step;"),
    ("weights that come with verdicts pass the gate", "ps/shard_push.cpp",
     "if (beyond_gate(from, body.opens)) {", "if (false) {"),
    ("the gate opens one confirmation early", "ps/lead.h",
     "log_.empty() || log_.front().sequence.number > number",
     "log_.empty() || log_.front().sequence.number >= number"),
    ("one shard's confirmation counts for all", "ps/lead.cpp",
     "least = std::min(least, number);", "least = id == shard ? number : least;"),
    ("scope changes when one worker's steps are settled", "ps/shard_scopes.cpp",
     "return std::all_of(decision.cuts.begin(), decision.cuts.end(),",
     "return std::any_of(decision.cuts.begin(), decision.cuts.end(),"),
    ("a change of policy is not sent again", "ps/lead.cpp",
     "if (decision.sequence.number > found->second) missing",
     "if (decision.sequence.number > found->second && decision.changes.empty()) missing"),
    ("what is staged is forgotten when block scope begins", "ps/shard_scopes.cpp",
     "            deferred_.push_back(std::move(message));\n", ""),
    ("who is held stays so when block scope begins", "ps/lead.cpp",
     "        decision.release.insert(decision.release.end(), held_.begin(), held_.end());\n", ""),
    ("what was handed out before step scope is fresh", "ps/shard_scopes.cpp",
     "kFirstVersion = 1ULL << 32U;", "kFirstVersion = 0;"),
    ("an idle worker keeps the gate shut", "ps/shard_scopes.cpp",
     "        reply(to, Restart{last.step});\n", ""),
    ("a gradient is not corrected", "ps/block_store.cpp",
     "                policy.correct(part.arrived, block.policy_state, vectors, scratch_);\n", ""),
    ("a policy's vectors are lost at a restart", "ps/block_store.cpp",
     "    block.vectors.restore(contents.vectors);\n", ""),
]
# Not here, because nothing can show it: that a worker does not hear "push again". A shard says so
# when it has forgotten what it had staged, which takes a shard that restarts while its workers go
# on. tests/worker/ has it.


def run(command, **options):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, **options)


def verdict_of(tree, build, seeds):
    built = run(["ninja", "-C", str(build), "detente"])
    if built.returncode != 0:
        return "does not build", built.stdout[-2000:]
    fuzzed = run([str(build / "detente"), "fuzz", "--seeds", f"1..{seeds}", "--jobs", "2",
                  "--first-failure", "--out", str(tree / "fuzz-failures")])
    return ("found" if fuzzed.returncode in (1, 5, 10) else "survives"), fuzzed.stdout


def enough(rows):
    """What does not fit or build was not looked for, and counts as not found."""
    return sum(verdict == "found" for _, verdict, _ in rows) >= LEAST_FOUND * len(rows)


def told_before():
    """The rows of the table there is, by name: what is not looked for again stays as it was."""
    known = {name for name, *_ in MUTANTS}
    rows = {}
    for line in pathlib.Path(TABLE).read_text().splitlines():
        cells = line[2:-2].split(" | ")
        if len(cells) == 3 and cells[0] in known:
            rows[cells[0]] = tuple(cells)
    return rows


def write_table(rows, seeds):
    """`rows` by name; those of the table in the order of MUTANTS."""
    rows = [rows[name] for name, *_ in MUTANTS if name in rows]
    found = sum(verdict == "found" for _, verdict, _ in rows)
    lines = ["# Planted faults and what `detente fuzz` says of them", "",
             f"Made by `scripts/mutants {seeds}`; the faults are in `mutants.py`.", "",
             "| mutant | | first finding |", "|---|---|---|"]
    lines += [f"| {name} | {verdict} | {text.replace('|', '/')} |" for name, verdict, text in rows]
    lines += ["", f"{found} of {len(rows)} found within {seeds} seeds: "
              f"{'enough' if enough(rows) else 'too few'}, {LEAST_FOUND:.0%} must be."]
    if len(rows) < len(MUTANTS):
        lines += [f"{len(MUTANTS) - len(rows)} more were not looked for yet."]
    pathlib.Path(TABLE).write_text("\n".join(lines) + "\n")
    return rows, lines[-1]


def unfit(tree):
    """The mutants that this tree's sources no longer have exactly one place for."""
    return [(name, file) for name, file, before, _ in MUTANTS
            if (tree / file).read_text().count(before) != 1]


def chosen(which):
    """All; `new`: those that the table does not have; or those of these names."""
    if not which:
        return MUTANTS
    if which == ["new"]:
        before = told_before()
        return [one for one in MUTANTS if one[0] not in before]
    unknown = set(which) - {name for name, *_ in MUTANTS}
    if unknown:
        sys.exit(f"no such mutant: {', '.join(sorted(unknown))}; names are in {__file__}")
    return [one for one in MUTANTS if one[0] in which]


def main(tree, build, seeds, which):
    told = told_before() if which else {}
    rows, last = list(told.values()), "nothing to look for"
    for name, file, before, after in chosen(which):
        path = tree / file
        original = path.read_text()
        if original.count(before) != 1:
            told[name] = (name, "does not fit", f"{original.count(before)} places in {file}")
        else:
            try:
                path.write_text(original.replace(before, after))
                verdict, text = verdict_of(tree, build, seeds)
            finally:
                path.write_text(original)
            lines = [line for line in text.splitlines() if line.startswith("seed ")]
            told[name] = (name, verdict, lines[0][:100] if lines
                          else text.strip().splitlines()[-1][:100])
        print(*told[name], sep=": ", flush=True)
        rows, last = write_table(told, seeds)
    print(last)
    planted = all(verdict in ("found", "survives") for _, verdict, _ in rows)
    if not planted:
        print("some mutants no longer fit the sources or do not build: repair tests/mutants/mutants.py")
    return 0 if planted and enough(rows) else 1


if __name__ == "__main__":
    if sys.argv[1] == "--fit":  # a test: nothing is planted
        for name, file in unfit(pathlib.Path(sys.argv[2])):
            print(f"{name}: not exactly one place in {file}: repair tests/mutants/mutants.py")
        table = (pathlib.Path(sys.argv[2]) / TABLE).read_text()
        untold = [name for name, *_ in MUTANTS if f"| {name} |" not in table]
        for name in untold:
            print(f"{name}: not in tests/mutants/table.md: run scripts/mutants")
        sys.exit(1 if untold or unfit(pathlib.Path(sys.argv[2])) else 0)
    sys.exit(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]),
                  sys.argv[4:]))
