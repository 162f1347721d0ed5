// The course of a run as JSON lines, RUN/series.jsonl: what the coordinator's view showed over
// time, of real and of simulated runs alike (the view's clock is the run's).
//
//   {"series":1,"job":"j","tasks":["left",…],"virtual":false,"workers":3,"shards":2,
//    "samples_planned":180000}                            the first line
//   {"seconds":1.5,"stage":"training","steps":90,"samples":5760,"workers_up":3,
//    "updates":{"computed":…,"applied":…,"rejected":…,"cancelled":…,"lost":…,"in_flight":…},
//    "loss":[…],"staleness":{"mean":…,"p50":…,"p99":…,"max":…},
//    "step_time_us":[[steps,compute,wait,wire,queue,apply],…]}                      a point
//   {"seconds":20.1,"samples":180000,"checkpoint":3,"accuracy":{"left":0.76,…}}     a score
//
// step_time_us: of worker 0, 1, …, the first kMostWorkers of them, so far.
//
// Bounded: when there are kMostLines of a kind, every second one goes, and points are taken half as
// often from then on; the first and the newest always stay. A crash may cut off the last line.
//
// Thread: the coordinator's. Owner: whoever hosts it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/file.h"
#include "common/result.h"
#include "launch/cluster_view.h"

namespace detente {

struct SeriesOptions {
    Nanos interval = std::chrono::milliseconds(250);  // between two points, at first
    bool virtual_time = false;
};

class SeriesWriter {
  public:
    static constexpr std::size_t kMostLines = 2048;
    static constexpr std::size_t kMostWorkers = 32;

    // Creates the file. io: not writable.
    static Result<SeriesWriter> create(const std::string& path, SeriesOptions options);

    // After any event of the coordinator, as often as one likes: writes what is due.
    // io, once: the disk is full, say; nothing is written from then on.
    Result<void> note(const ClusterView& view);
    // The last point, whatever the interval says.
    Result<void> finish(const ClusterView& view);

  private:
    SeriesWriter(std::string path, SeriesOptions options, OpenFile file)
        : path_(std::move(path)), options_(options), file_(std::move(file)) {}
    Result<void> add_point(const ClusterView& view);
    Result<void> add_scores(const ClusterView& view);
    Result<void> add(std::vector<std::string>& lines, std::string line);
    Result<void> append(const std::string& text);
    Result<void> write_anew();

    std::string path_;
    SeriesOptions options_;
    OpenFile file_;
    bool failed_ = false;
    std::string header_;
    std::vector<std::string> points_;  // what the file holds
    std::vector<std::string> scores_;
    Time next_{};             // when a point is due
    std::size_t scored_ = 0;  // of the view's checkpoints, how many have been looked at
};

}  // namespace detente
