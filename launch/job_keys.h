// The table of every key a job file may hold: where its value lives in a Job, what it means, its
// unit and its limits. Reader, writer and --explain are loops over it.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/config.h"
#include "common/explained_parameter.h"

namespace detente {

// Where a key's value lives. The alternative says how it is written in TOML.
struct ByteSlot {  // a whole number, or "64KiB", "1MiB", "2GiB"
    std::uint64_t* value;
};
struct ChoiceSlot {  // one of Key::valid, kept as an enum
    std::function<std::size_t()> get;
    std::function<void(std::size_t)> set;
};
using NameList = std::vector<std::string>;
using NumberList = std::vector<double>;
using Slot = std::variant<std::string*, NameList*, NumberList*, bool*, std::uint32_t*,
                          std::uint64_t*, double*, Nanos* /* seconds */, ByteSlot, ChoiceSlot>;

// Both ends belong to the range.
struct Limits {
    double lowest = 0;
    double highest = std::numeric_limits<double>::infinity();
};

struct Key {
    std::string name;  // without its table
    std::string unit;  // "samples", "s"; empty = none
    std::string meaning;
    std::function<Slot(Job&, std::size_t entry)> slot;
    Limits limits{};
    NameList valid{};       // what a text or choice may be; empty = anything
    bool required = false;  // an empty text is refused
    std::string alone{};    // what may be written in place of a list
};

using ParameterList = std::vector<std::pair<std::string, std::string>>;

struct Table {
    std::string path;       // "worker", "rule.for"; the top level is ""
    bool repeated = false;  // [[…]], or a table inside an entry of one
    std::string meaning;
    std::vector<Key> keys;
    // Where keys beside `keys` go, as text; none = they are refused.
    std::function<ParameterList&(Job&, std::size_t entry)> parameters{};
    // The parameters allowed; none = any.
    std::function<std::vector<ExplainedParameter>(Job&, std::size_t entry)> known_parameters{};
    // Makes the entry (or the table's defaults) before its keys are read; `name` is the value of
    // the first key, where it is given as text.
    std::function<void(Job&, const std::optional<std::string>& name)> prepare{};
    // How many entries a repeated table has.
    std::function<std::size_t(const Job&)> entries{};
};

// In the order in which they are read and written: [rule] stands before what inherits from it.
const std::vector<Table>& job_tables();

// [model], [[task]] and [[mask]] (job_keys_model.cpp).
std::vector<Table> model_tables();
// [conflict], [gates], [across] (job_keys_conflict.cpp).
std::vector<Table> conflict_tables();
// [launch] and [sync] (job_keys_nodes.cpp).
std::vector<Table> node_tables();
// [simulate] and what lies below it (job_keys_simulate.cpp).
std::vector<Table> simulate_tables();

// Gives the job every parameter of its policies and methods that nobody wrote, at its default, in
// the order of the policy's or method's own table; what that table does not know stays, last.
void complete_parameters(Job& job);

// nullptr where there is none. Paths are dotted, without entry numbers: "rule.for.learning_rate".
const Table* find_table(std::string_view path);
const Key* find_key(std::string_view path);
std::string join_path(std::string_view table, std::string_view key);

}  // namespace detente
