// What [model.options] says to a builtin model. Reading an option makes it known; what is left
// unread at the end is a mistake of the job file's.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "worker/engine.h"

namespace detente {

class BuiltinOptions {
  public:
    BuiltinOptions(std::string model, const EngineOptions& options)
        : model_(std::move(model)), options_(options) {}

    // The first mistake is kept; afterwards defaults are returned.
    double number(const std::string& name, double otherwise, double lowest, double highest);
    std::uint64_t whole(const std::string& name, std::uint64_t otherwise, std::uint64_t lowest,
                        std::uint64_t highest);
    std::string text(const std::string& name, const std::string& otherwise);
    std::string choice(const std::string& name, const std::vector<std::string>& valid);

    // bad_job: a value that was refused, or an option that nobody asked for.
    std::optional<Error> mistake() const;
    std::optional<Error> refuse(const std::string& name, const std::string& sentence);

  private:
    const std::string* find(const std::string& name);

    std::string model_;
    const EngineOptions& options_;
    std::set<std::string> known_;
    std::optional<Error> mistake_;
};

}  // namespace detente
