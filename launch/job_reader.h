// From a TOML tree to a Job, by the table of keys. Used by parse_job() only.
#pragma once

#include <toml++/toml.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/config.h"
#include "common/result.h"
#include "launch/job_keys.h"

namespace detente {

// Reads one tree into one Job and collects what is wrong on the way.
class JobReader {
  public:
    JobReader(toml::table tree, std::string file)
        : tree_(std::move(tree)), file_(std::move(file)) {}

    // Sets one "a.b=value" in the tree, before read().
    void override_with(const std::string& assignment);
    // The job, or bad_job with one line per mistake.
    Result<Job> read();

  private:
    void read_table(const Table& table, const toml::table* node, const std::string& path,
                    std::size_t entry);
    void read_entries(const Table& table);
    void read_parameter(const Table& table, const std::string& path, const std::string& name,
                        const toml::node& node, std::size_t entry);
    void refuse_unknown(const Table& table, const std::string& path, const toml::key& key,
                        std::size_t entry);
    void note_place(const std::string& path, const toml::source_region& source);
    void complain(const std::string& path, const std::string& sentence);
    std::string place_of(const std::string& path) const;

    toml::table tree_;
    std::string file_;
    Job job_;
    bool push_pull_given_ = false;
    std::map<std::string, std::string> overrides_;  // path → what --set said
    std::set<std::string> replaced_;                // of these, where the file said otherwise
    std::map<std::string, std::string> places_;     // path → "FILE:LINE"
    std::vector<std::string> mistakes_;
};

}  // namespace detente
