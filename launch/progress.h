// What a run looks like on a screen: stages as lines, progress as one line that rewrites itself on
// a terminal, as a plain line every few seconds elsewhere.
//
// Thread: one.
#pragma once

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>

#include "common/ids.h"
#include "launch/cluster_view.h"

namespace detente {

// Of one moment; rates are over the time since the one before.
struct ProgressFigures {
    std::uint64_t steps = 0;
    double samples_per_s = 0;
    std::vector<double> losses;
    StalenessSummary staleness;
    double accepted = 1;                       // share of settled block updates that were applied
    double done = 0;                           // share of batches
    std::optional<std::chrono::seconds> left;  // as it goes on; nothing = too early to tell
};

// Turns views into figures: remembers the last few seconds for the rates.
class ProgressMeter {
  public:
    ProgressFigures measure(const ClusterView& view);

  private:
    struct Sample {
        Time at;
        std::uint64_t samples = 0;
        double done = 0;
    };
    std::vector<Sample> window_;  // the last kWindow, oldest first
};

// "step 412 · 5,210 samples/s · loss item 0.412 parity 0.201 · staleness p50 1 p99 3 · accepted
// 99.8 % · 43 % · 0:12 left"
// Where `columns` do not hold it, in short forms, staleness as p50/p99:
// "step 412 · 5,210/s · item 0.41 parity 0.20 · stale 1/3 · ok 99 % · 0:12 left"
// Where they do not hold that either, first staleness goes, then accepted, then the losses.
std::string progress_line(const ProgressFigures& figures, const std::vector<std::string>& tasks,
                          std::size_t columns = std::string::npos);
// What preparing processes do, for the time before training: "worker:1 loading the model"
std::string waiting_line(const ClusterView& view);
std::string duration_text(std::chrono::seconds duration);  // "1:02:03", "0:12"
std::string with_commas(std::uint64_t number);             // "12,345"

// The terminal (or file) the run talks to.
class Screen {
  public:
    // Lines go to `out`; on a terminal the progress line is kept last.
    Screen(std::FILE* out, bool terminal) : out_(out), terminal_(terminal) {}
    void line(const std::string& text);
    // Shows at once on a terminal; elsewhere a line at most every kPlainInterval.
    void progress(const std::string& text, Time now);
    void end_progress();
    bool terminal() const { return terminal_; }
    std::size_t columns() const;  // what a progress line may fill; npos where it is no terminal

    static constexpr std::chrono::seconds kPlainInterval{5};

  private:
    void erase();
    std::FILE* out_;
    bool terminal_;
    std::string shown_;
    std::optional<Time> last_plain_;
};

}  // namespace detente
